"""How a record looks where it is printed: a few lines of text, or small tables in a notebook.

Names come from files and may hold anything. What is not printable is written as an escape, and
HTML is given no mark of theirs. Colours are left to the notebook, light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from featcache.naming import shown

_FIRST = 3
"""Facts in one line."""

_SHORT = 60
"""Characters of a fact in one line."""


class Shown:
    """What has a headline, by which it is known where it is printed."""

    def _headline(self) -> dict[str, str]:
        """What to know first, by name."""
        raise NotImplementedError

    def __repr__(self) -> str:
        facts = [f"{name} {_shortened(text)}" for name, text in self._headline().items()]
        return f"<{type(self).__name__}: {', '.join(facts[:_FIRST])}>"

    def __str__(self) -> str:
        facts = self._headline()
        width = max(map(len, facts), default=0)
        return "\n".join(
            [type(self).__name__, *(f"  {name:<{width}}  {text}" for name, text in facts.items())]
        )

    def _repr_html_(self) -> str:
        """The headline as a table, for a notebook."""
        facts = "".join(
            f"<tr><th style='text-align:left'>{_safe(name)}</th>"
            f"<td style='text-align:left'>{_safe(text)}</td></tr>"
            for name, text in self._headline().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{facts}</table>"


def html_table(rows: Sequence[dict[str, Any]], *, title: str, total: int, more: str) -> str:
    """Rows as a table.

    Args:
        rows: cells by column; those that a row lacks are empty.
        title: above it, if any.
        total: rows there are, some of which may be left out.
        more: what gives all of them; "" where these are all.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{_safe(name.replace('_', ' '))}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_safe(cell(row.get(name)))}</td>" for name in columns) + "</tr>"
        for row in rows
    )
    caption = f"<caption>{_safe(title.replace('_', ' '))}</caption>" if title else ""
    rest = f"<p>{len(rows)} of {total} rows; all of them: <code>{_safe(more)}</code></p>"
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return table + (rest if more else "")


def cell(value: Any) -> str:
    """A value in a few printable characters; nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (tuple, list)):
        return shown(", ".join(map(cell, value)))
    return shown(str(value))


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first few of some names, and how many more there are."""
    texts = [shown(name) for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _safe(text: str) -> str:
    return escape(shown(text))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."
