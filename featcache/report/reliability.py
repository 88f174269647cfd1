"""Whether probabilities mean what they say, bin by bin, as a diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featcache.evaluation.intervals import accuracy_interval
from featcache.report.numbers import percent
from featcache.report.rows import ResultRows

BINS = 15
"""As in the calibration error."""

_SIDE, _LEFT, _TOP, _COUNTS = 300.0, 58.0, 12.0, 56.0


@dataclass(frozen=True)
class Bin:
    """Cases whose confidence lies between two ends.

    Attributes:
        n: how many. confidence: their mean; right: the share that is right; low, high: its 95%
            interval (Wilson).
    """

    n: int
    confidence: float
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class PlacedBin:
    """A bin in pixels: its point, its interval, its bar of the counts below."""

    x: float
    y: float
    top: float
    bottom: float
    bar_x: float
    bar_y: float
    bar_height: float
    text: str


@dataclass(frozen=True)
class Diagram:
    """Share that is right over confidence, above how many cases each bin has."""

    bins: tuple[Bin, ...]
    placed: tuple[PlacedBin, ...]
    ticks: tuple[tuple[float, float, str], ...]
    width: float = _LEFT + _SIDE + 26
    height: float = _TOP + _SIDE + _COUNTS + 70
    left: float = _LEFT
    top: float = _TOP
    side: float = _SIDE
    bar_width: float = _SIDE / BINS - 2
    counts_bottom: float = _TOP + _SIDE + _COUNTS + 24


def reliability(rows: ResultRows) -> Diagram | None:
    """Of the judged rows; None where there are no probabilities."""
    if not rows.judged.any():
        return None
    confidence, right = _cases(rows)
    position = np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")
    counts = np.bincount(position, minlength=BINS)
    found = [
        (k, _bin(confidence[position == k], right[position == k])) for k in range(BINS) if counts[k]
    ]
    most = int(counts.max())
    return Diagram(
        bins=tuple(one for _, one in found),
        placed=tuple(_placed(k, one, most) for k, one in found),
        ticks=tuple(
            (_LEFT + share * _SIDE, _TOP + (1 - share) * _SIDE, f"{share:.0%}")
            for share in (0.0, 0.25, 0.5, 0.75, 1.0)
        ),
    )


def _cases(rows: ResultRows) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and whether it was right, as `expected_calibration_error` counts them."""
    given, targets = rows.probabilities[rows.judged], rows.targets[rows.judged]
    if rows.several:
        return given.ravel(), targets.ravel().astype(np.bool_)
    return given.max(axis=1), given.argmax(axis=1) == targets


def _bin(confidence: np.ndarray, right: np.ndarray) -> Bin:
    interval = accuracy_interval(right)
    mean = float(confidence.mean())
    return Bin(len(right), mean, float(right.mean()), interval.lo, interval.hi)


def _placed(number: int, one: Bin, most: int) -> PlacedBin:
    def y(share: float) -> float:
        return _TOP + (1 - share) * _SIDE

    height = _COUNTS * one.n / most
    text = f"{one.n} at {percent(one.confidence)}: {percent(one.right)} right "
    text += f"({percent(one.low)} to {percent(one.high)})"
    return PlacedBin(
        x=_LEFT + one.confidence * _SIDE,
        y=y(one.right),
        top=y(one.high),
        bottom=y(one.low),
        bar_x=_LEFT + number * _SIDE / BINS + 1,
        bar_y=_TOP + _SIDE + _COUNTS + 24 - height,
        bar_height=height,
        text=text,
    )
