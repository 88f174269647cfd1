"""What was handed out to others."""

from __future__ import annotations

from dataclasses import dataclass

from featcache.results.record import Record


@dataclass(frozen=True)
class CacheExport(Record):
    """A cache's features and labels in one file.

    Attributes:
        file: that was written. format: "npz", "parquet", "csv" or "hdf5". bytes: of it.
        rows: samples in it. skipped: samples without features, which are not.
        classes: names, by the number of their label.
        features: shape of a row by cut (and view).
        result: the probe whose held-out probabilities are in it; None without.
        warnings: what a person should know.
        example: how to read it, in Python.
    """

    file: str
    format: str
    bytes: int
    rows: int
    skipped: int
    classes: tuple[str, ...]
    features: dict[str, tuple[int, ...]]
    result: str | None
    warnings: tuple[str, ...]
    example: str
    seconds: float
