"use strict";
// Tables sort by a click on a column's name; commands are copied by a click. All else needs no script.

function value(cell) {
  const text = (cell.dataset.v ?? cell.textContent).trim().replace("−", "-").replaceAll(",", "");
  const number = parseFloat(text);
  return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
}

function order(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sort(table, column, header) {
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const keyed = [...table.tBodies[0].rows].map((row) => [value(row.cells[column]), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // nothing comes last
    return up ? order(a, b) : order(b, a);
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, column, header));
    header.append(button);
  });
}

for (const block of document.querySelectorAll(".commands pre")) {
  if (!navigator.clipboard) break; // not where the page is no secure place
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "copy";
  const text = block.textContent;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  });
  block.append(button);
}
