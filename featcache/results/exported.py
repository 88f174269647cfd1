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


@dataclass(frozen=True)
class ClassifierExport(Record):
    """A whole classifier, pixels to probabilities, in one file of another format.

    Attributes:
        file: that was written. format: "onnx", "torchscript" or "pt2". bytes: of it.
        classes: names, in the order of the probabilities.
        input: name, dtype and shape of what it takes; "N" is any number of pictures.
        output: the same of what it gives.
        checked: pictures that the file and the classifier were run on.
        difference: largest one of a log-probability, as a share of the picture's largest (or of 1,
            if that is smaller). tolerance: what was allowed.
        warnings: what a person should know.
        example: how to use it, in Python without featcache.
    """

    file: str
    format: str
    bytes: int
    classes: tuple[str, ...]
    input: dict[str, str | tuple[str | int, ...]]
    output: dict[str, str | tuple[str | int, ...]]
    checked: int
    difference: float
    tolerance: float
    warnings: tuple[str, ...]
    example: str
    seconds: float
