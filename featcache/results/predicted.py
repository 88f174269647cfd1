"""What a classifier says of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from featcache.results.record import Record


@dataclass(frozen=True)
class LabelProbability:
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction(Record):
    """What a classifier says of one picture.

    Attributes:
        path: the picture.
        label: the likeliest class; None if unreadable or under the least probability asked for.
        probability: of the likeliest class; None if unreadable.
        top: the likeliest classes, best first.
        labels: for classifiers of several labels, all at or over the threshold.
        error: why the picture could not be read, else None.
    """

    path: str
    label: str | None
    probability: float | None
    top: tuple[LabelProbability, ...] = ()
    labels: tuple[str, ...] | None = None
    error: str | None = None

    _main: ClassVar[str] = "top"
    _shown: ClassVar[tuple[str, ...]] = ("top",)
