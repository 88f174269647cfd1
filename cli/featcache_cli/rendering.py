"""How records look in a terminal: results on stdout, progress and remarks on stderr."""

import json
import logging
import sys
import unicodedata
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from featcache.naming import command_line, harmless, shown
from featcache.rounding import DIGITS, digits, percent, points

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

_LEAST = 8
"""Columns that a name is given at least, where there are any."""

Report = Callable[[str, int, int], None]


def printable(text: str) -> str:
    """Text from files, safe to print: no control characters, no lone surrogates, no markup."""
    return escape(shown(text))


def cell(text: str) -> str:
    """Text from files, safe in a cell of CSV: no control characters, no spreadsheet's formula."""
    return harmless(
        "".join(
            c.encode("unicode_escape").decode() if unicodedata.category(c) in _NOT_IN_CELLS else c
            for c in text
        )
    )


def console(*, stderr: bool = False) -> Console:
    """Where text goes as it is: names of files hold no emoji codes and are not coloured in."""
    return Console(stderr=stderr, highlight=False, emoji=False)


def say(text: str, style: str = "") -> None:
    """A remark on stderr."""
    lines = "\n".join(printable(line) for line in text.splitlines())
    console(stderr=True).print(lines, style=style, soft_wrap=True)


def suggest(reason: str, *command: str | Path) -> None:
    """A command to run next, on stderr, quoted for a shell."""
    say(f"{reason}: {command_line(*command)}")


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


class Listing(Table):
    """A table whose names give way where a line is full, and whose numbers never do."""

    def __init__(self, title: str | None) -> None:
        super().__init__(box=None, pad_edge=False)
        self._heading = title
        self._names: set[int] = set()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._heading is not None:  # as wide as the line, not as the table
            yield Text.from_markup(self._heading, style="bold", emoji=False)
        yield from super().__rich_console__(console, options)

    def add(self, column: str) -> None:
        """A column, by its name and what that starts with; see `table`."""
        name = column.lstrip("~>")
        if column.startswith(">"):
            self.add_column(name, justify="right", no_wrap=True)
        elif column.startswith("~"):
            self._names.add(len(self.columns))
            self.add_column(name)
        else:
            self.add_column(name, overflow="fold")

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """A row; names are cut, not wrapped."""
        made = (
            _Name(Text.from_markup(cell, emoji=False))
            if i in self._names and isinstance(cell, str)
            else cell
            for i, cell in enumerate(cells)
        )
        super().add_row(*made, **options)


class _Name:
    """Text in one line, cut with an ellipsis."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.text.no_wrap, self.text.overflow = True, "ellipsis"

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = self.text.cell_len
        return Measurement(min(width, _LEAST), width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class Ending(_Name):
    """A path in one line: where it must be cut, the end of it stays."""

    def __init__(self, path: str) -> None:
        super().__init__(Text(shown(path)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain, room = self.text.plain, options.max_width
        if cell_len(plain) > room:
            while plain and cell_len(plain) > room - 1:
                plain = plain[1:]
            plain = "…" + plain
        yield Text(plain, no_wrap=True, overflow="crop")


def folded(text: str) -> Text:
    """Text from files that is read whole, in as many lines as it takes."""
    return Text(shown(text), overflow="fold")


def table(*columns: str, title: str | None = None) -> Listing:
    """An empty table.

    Columns whose name starts with ">" hold numbers: they are right-aligned and never cut. Those
    that start with "~" hold names, in one line each, cut with an ellipsis where the line is full.
    Other text is folded.
    """
    made = Listing(title)
    for column in columns:
        made.add(column)
    return made


def ends(ci95: Sequence[float], decimals: int = DIGITS) -> str:
    """The ends of an interval of shares, in per cent."""
    return f"{100 * ci95[0]:.{decimals}f} to {100 * ci95[1]:.{decimals}f}"


def interval(ci95: Sequence[float], decimals: int = DIGITS) -> str:
    """A 95% interval of shares as per cent."""
    return f"95% interval {percent(ci95[0], decimals)} to {percent(ci95[1], decimals)}"


def gain(difference: Any, *, bold: bool = True) -> str:
    """A paired difference in points, with its interval and p, as precise as the interval is."""
    decimals = digits(difference.ci95)
    low, high = (points(end, decimals) for end in difference.ci95)
    told = f"{points(difference.difference, decimals)} points"
    told = f"[bold]{told}[/bold]" if bold else told
    return f"{told} (95% interval {low} to {high}, p = {difference.p_value:.2g})"


def loss(value: float | None, decimals: int = DIGITS) -> str:
    """A log-loss in nats, beside shares of so many decimals of per cent; "" for none."""
    return "" if value is None else f"{value:.{decimals + 2}f}"


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
