"""From values to places on paper: axes and their ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_FEW = 5
"""Ticks that an axis has, about."""


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        label: what it shows.
        low, high: values at its ends, in the scale's own units.
        ticks: (value, text), in the scale's own units.
        scale: from values to the scale's own units.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    scale: Callable[[float], float] = float

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1."""
        return (self.scale(value) - self.low) / (self.high - self.low)

    @property
    def placed_ticks(self) -> list[tuple[float, str]]:
        """Shares from 0 to 1 of the ticks, and their texts."""
        return [((at - self.low) / (self.high - self.low), text) for at, text in self.ticks]


def linear_axis(
    label: str,
    values: Sequence[float],
    text: Callable[[float], str],
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Axis:
    """Round steps that hold all values, ends within bounds."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    step = _step((high - low) or abs(high) or 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        first, last = first - 1, last + 1
    ticks = tuple((k * step, text(k * step)) for k in range(first, last + 1))
    within = tuple((at, said) for at, said in ticks if bounds[0] <= at <= bounds[1] + 1e-12)
    return Axis(label, max(first * step, bounds[0]), min(last * step, bounds[1]), within)


def _step(span: float) -> float:
    rough = span / _FEW
    size = 10.0 ** math.floor(math.log10(rough))
    return size * next(step for step in _STEPS if step * size >= rough * 0.999)


def log_axis(label: str, values: Sequence[float], named: Sequence[float] = ()) -> Axis:
    """Powers of ten that lie among the values, or the values that are named."""
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = 0.04 * (high - low) or 0.5
    every = max(1, math.ceil((high - low) / 7))
    powers = [10.0**k for k in range(math.ceil(low), math.floor(high) + 1) if k % every == 0]
    ticks = tuple((math.log10(v), f"{v:g}") for v in (named or powers))
    return Axis(label, low - pad, high + pad, ticks, math.log10)


def named_axis(label: str, names: Sequence[str]) -> Axis:
    """Names side by side, at 0, 1, 2, ..."""
    ticks = tuple((float(k), name) for k, name in enumerate(names))
    return Axis(label, -0.4, len(names) - 0.6, ticks)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved as little as it takes to be at least a gap apart, between low and high."""
    order = np.argsort(places, kind="stable").tolist()
    moved = list(places)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + gap)
    ceiling = high
    for at in reversed(order):
        moved[at] = max(low, min(moved[at], ceiling))
        ceiling = moved[at] - gap
    return moved
