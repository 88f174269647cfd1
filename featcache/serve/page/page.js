"use strict";

const SHOWN = 5;
const drop = document.getElementById("drop");
const files = document.getElementById("files");
const answers = document.getElementById("answers");
let about = null;
let turn = Promise.resolve();

function made(kind, text, parent) {
  const element = document.createElement(kind);
  element.textContent = text;
  parent.append(element);
  return element;
}

function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}

async function introduce() {
  about = await (await fetch("info")).json();
  document.title = `${about.classifier} - featcache`;
  document.getElementById("name").textContent = about.classifier;
  const measured = about.estimate && typeof about.estimate.accuracy === "number"
    ? `, ${percent(about.estimate.accuracy)} right on held-out pictures` : "";
  document.getElementById("about").textContent =
    `${about.classes.length} classes, ${about.backbone}${measured}`;
}

function card(file) {
  const article = document.createElement("article");
  const image = made("img", "", article);
  image.alt = "";
  image.src = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => { image.hidden = true; };
  const said = made("div", "", article);
  made("h2", file.name, said);
  answers.prepend(article);
  return said;
}

function showBars(prediction, said) {
  const list = made("ol", "", said);
  const chosen = prediction.labels ?? [prediction.label];
  for (const { label, probability } of prediction.top) {
    const item = made("li", "", list);
    item.className = chosen.includes(label) ? "chosen" : "";
    const line = made("div", "", item);
    made("span", label, line);
    made("span", percent(probability), line);
    const track = made("span", "", item);
    track.className = "track";
    const bar = made("span", "", track);
    bar.className = "bar";
    bar.style.width = percent(probability);
  }
}

function showError(reason, said) {
  const text = made("p", reason, said);
  text.className = "wrong";
  text.setAttribute("role", "alert");
}

async function ask(file, said) {
  if (about && file.size > about.most_bytes) {
    throw new Error(`too large: at most ${(about.most_bytes / 1e6).toFixed(0)} MB are taken`);
  }
  const response = await fetch(`predict?top=${SHOWN}`, { method: "POST", body: file });
  const body = await response.json();
  const [prediction] = Array.isArray(body) ? body : [body];
  if (prediction.error) {
    throw new Error(prediction.error);
  }
  showBars(prediction, said);
}

function take(list) {
  for (const file of list) {
    const said = card(file);
    const waiting = made("p", "…", said);
    turn = turn.then(() => ask(file, said))
      .catch((error) => showError(error.message, said))
      .finally(() => waiting.remove());
  }
}

files.addEventListener("change", () => { take([...files.files]); files.value = ""; });
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") {
      take([...event.dataTransfer.files]);
    }
  });
}
introduce().catch(() => {
  document.getElementById("about").textContent = "the server does not answer";
});
