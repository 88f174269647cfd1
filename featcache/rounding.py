"""How many digits of a number are written, and how: in a terminal, a notebook and a page alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

DIGITS = 1
"""Decimals of per cent where no interval says how many."""

_MOST_DIGITS = 3


def digits(*intervals: Sequence[float]) -> int:
    """Decimals of per cent that intervals of shares support: the last is a tenth of a half-width.

    Of several the narrowest decides, so that a column is rounded alike.
    """
    halves = [50 * (high - low) for low, high in intervals if high > low]
    if not halves:
        return DIGITS
    return min(max(math.ceil(1 - math.log10(min(halves))), 0), _MOST_DIGITS)


def percent(share: float, decimals: int = DIGITS) -> str:
    """A share as per cent."""
    return f"{100 * share:.{decimals}f}%"


def points(difference: float, decimals: int = DIGITS) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * difference:+.{decimals}f}"


def count(number: int) -> str:
    """A large number of things: 950, 12.3K, 23.5M, 4.1G."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
