"""What `report` wrote."""

from __future__ import annotations

from dataclasses import dataclass

from featcache.results.record import Record


@dataclass(frozen=True)
class ReportResult(Record):
    """What `write_report` wrote.

    Attributes:
        path: the file; bytes: of it.
        cache, result: what it is of.
        pictures: that are in it; left_out: that could not be had any more.
        warnings: what a person should know.
    """

    path: str
    cache: str
    result: str
    bytes: int
    pictures: int
    left_out: int
    seconds: float
    warnings: tuple[str, ...] = ()
