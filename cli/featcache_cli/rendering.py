"""How records look in a terminal: results on stdout, progress and remarks on stderr."""

import json
import logging
import shlex
import sys
import unicodedata
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_STAGES = {
    "hash": ("reading", "pictures"),
    "extract": ("extracting", "pictures"),
    "derive": ("deriving", "pictures"),
    "fit": ("fitting", "fits"),
    "predict": ("predicting", "pictures"),
    "report": ("reporting", "parts"),
}

_NOT_IN_CELLS = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of Unicode that end a line, steer a terminal or are no characters."""

_FORMULA = tuple("=+-@＝＋－＠'")  # noqa: RUF001 - spreadsheets take wide signs for narrow ones
"""What a cell begins with that a spreadsheet would run, and what marks those."""

Report = Callable[[str, int, int], None]


def printable(text: str) -> str:
    """Text from files, safe to print: no control characters, no lone surrogates, no markup."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return escape(shown)


def cell(text: str) -> str:
    """Text from files, safe in a cell of CSV: no control characters, and no spreadsheet's formula.

    A cell that a spreadsheet would run gets a ' in front, as OWASP advises ("CSV injection"); so
    does one that begins with ', so that taking one away gives back the name.
    """
    spelt = "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _NOT_IN_CELLS else c
        for c in text
    )
    return f"'{spelt}" if spelt.startswith(_FORMULA) else spelt


def console(*, stderr: bool = False) -> Console:
    """Where text goes as it is: names of files hold no emoji codes and are not coloured in."""
    return Console(stderr=stderr, highlight=False, emoji=False)


def say(text: str, style: str = "") -> None:
    """A remark on stderr."""
    lines = "\n".join(printable(line) for line in text.splitlines())
    console(stderr=True).print(lines, style=style, soft_wrap=True)


def suggest(reason: str, *command: str) -> None:
    """A command to run next, on stderr, quoted for a shell."""
    say(f"{reason}: {shlex.join(command)}")


class _Said(logging.Handler):
    """Says what the library logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say one message."""
        say(record.getMessage())


@contextmanager
def said(name: str) -> Generator[None, None, None]:
    """What one logger of the library tells is said on stderr, while it happens."""
    logger, handler = logging.getLogger(name), _Said(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def warn(warnings: Iterable[str]) -> None:
    """Warnings on stderr, one a line."""
    for warning in warnings:
        say(f"warning: {warning}", style="yellow")


def line(text: str) -> None:
    """A line of the result on stdout; `text` may hold markup."""
    console().print(text, soft_wrap=True)


def show(table: Table) -> None:
    """A table on stdout."""
    console().print(table)


def show_json(value: Any) -> None:
    """JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table.

    Columns whose name starts with ">" hold numbers: they are right-aligned and never cut. Those
    that start with "~" hold names, which give way with an ellipsis where the line is full. Other
    text is folded.
    """
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        name = column.lstrip("~>")
        if column.startswith(">"):
            made.add_column(name, justify="right", no_wrap=True)
        elif column.startswith("~"):
            made.add_column(name, overflow="ellipsis")
        else:
            made.add_column(name, overflow="fold")
    return made


def count(number: int) -> str:
    """A large number of things: 950, 12.3K, 23.5M, 4.1G."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def percent(share: float) -> str:
    """A share as per cent, one decimal."""
    return f"{100 * share:.1f}%"


def interval(low: float, high: float) -> str:
    """A 95% interval of shares as per cent."""
    return f"95% interval {percent(low)} to {percent(high)}"


@contextmanager
def progress() -> Generator[Report, None, None]:
    """One bar on stderr that follows the stages of a command; nothing where it is no terminal."""
    stderr = console(stderr=True)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}, {task.fields[rate]}"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )
    tasks: dict[str, Any] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            verb, unit = _STAGES.get(stage, (stage, "steps"))
            tasks[stage] = bar.add_task(verb, total=total, unit=unit, rate="")
        bar.update(tasks[stage], completed=done, total=total)
        task = next(t for t in bar.tasks if t.id == tasks[stage])
        bar.update(tasks[stage], rate=f"{task.speed:.1f}/s" if task.speed else "")
        if done >= total:
            bar.remove_task(tasks.pop(stage))

    with bar:
        yield report
