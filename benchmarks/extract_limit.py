"""Share of the machine's limit, for `extract.py`, where the machine's speed moves by the minute.

Decoding alone, the forward pass alone and the extraction run in turn, several times, each in a
process of its own, so that a share is of numbers of the same minutes; the medians are what counts.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

import extract_sides as sides
from extract_sides import Job, Run
from measuring import apart

_EXTRACTION = (("start s", 9, 2), ("of limit", 10, 3), ("passes", 8, 3))

COLUMNS = (
    *(("decoding ms", 13, 2), ("forward ms", 12, 2)),
    *(("first start s", 15, 2), *_EXTRACTION),
    *(("compiled before s", 19, 2), *_EXTRACTION),
)
"""Title, width and decimals: a picture's milliseconds, then the seconds of an extraction, those of
them before and after the passes, and the share of the limit, of all and of the passes."""


@dataclass(frozen=True, eq=False)
class Turn:
    """What was measured in one turn: the halves of the limit, and two extractions.

    Attributes:
        decoding, forward: alone. first: where the engine compiles the network; again: where it is
            compiled already.
    """

    decoding: Run
    forward: Run
    first: Run
    again: Run

    def share(self, run: Run, seconds: float | None = None) -> float:
        """Of the limit, that a run reaches, or would if it had taken so many seconds."""
        limit = self.decoding.each + self.forward.each
        return run.count * limit / (run.seconds if seconds is None else seconds)

    def cells(self) -> tuple[float, ...]:
        """A line of the table."""
        cells = [1e3 * self.decoding.each, 1e3 * self.forward.each]
        for run in (self.first, self.again):
            passes = run.seconds if run.passes is None else run.passes
            cells += [run.seconds, run.seconds - passes]
            cells += [self.share(run), self.share(run, passes)]
        return tuple(cells)


def in_turn(job: Job, number: int, forwards: int) -> list[Turn]:
    """Measure so many turns, the forward pass on so many pictures by the engine that was chosen."""
    turns = list[Turn]()
    for _ in range(number):
        decoding = apart(sides.decoding, job)
        first = apart(sides.ours, job, "auto")
        again = apart(sides.ours, job, "auto", compiled=True)
        forward = apart(sides.forward, job, first.engine, forwards)
        turns.append(Turn(decoding, forward, first, again))
    return turns


def print_turns(title: str, turns: list[Turn]) -> None:
    """The table of the turns, the medians of its columns, and what a start is made of."""
    print(f"{title}, in turn\n{'turn':<8}" + "".join(f"{t:>{w}}" for t, w, _ in COLUMNS))
    columns = list(zip(*(turn.cells() for turn in turns), strict=True))
    for number, turn in enumerate(turns, 1):
        print(_line(str(number), turn.cells()))
    print(_line("median", tuple(map(statistics.median, columns))))
    for name, runs in (
        ("first start", [turn.first for turn in turns]),
        ("compiled before", [turn.again for turn in turns]),
    ):
        start = {what: statistics.median(r.outside[what] for r in runs) for what in runs[0].outside}
        print(f"  - {name}: " + ", ".join(f"{what} {s:.2f} s" for what, s in start.items()))
    print(flush=True)


def record(title: str, turns: list[Turn]) -> dict[str, object]:
    """What is kept of them."""
    return {"name": title, "turns": [_turn_record(turn) for turn in turns]}


def _turn_record(turn: Turn) -> dict[str, object]:
    alone = {"decoding": turn.decoding, "forward": turn.forward}
    record: dict[str, object] = {f"seconds_{name}": run.each for name, run in alone.items()}
    for name, run in (("first", turn.first), ("again", turn.again)):
        record[name] = {
            "by": run.by,
            "count": run.count,
            "usage": asdict(run.usage),
            "seconds_of_passes": run.passes,
            "outside": run.outside,
            "of_limit": turn.share(run),
        }
    return record


def _line(name: str, cells: tuple[float, ...]) -> str:
    formatted = (
        f"{cell:{width}.{decimals}f}"
        for cell, (_, width, decimals) in zip(cells, COLUMNS, strict=True)
    )
    return f"{name:<8}" + "".join(formatted)
