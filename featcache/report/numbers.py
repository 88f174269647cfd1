"""How numbers are written in the page: one decimal of per cent, a proper minus, "" for none."""

from __future__ import annotations

from featcache import rounding

_MINUS = "\N{MINUS SIGN}"


def percent(share: float | None) -> str:
    """A share as per cent, one decimal."""
    return "" if share is None else rounding.percent(share)


def points(difference: float | None) -> str:
    """A difference of shares in points, signed."""
    return "" if difference is None else rounding.points(difference).replace("-", _MINUS)


def probability(share: float | None) -> str:
    """A probability to a reader's precision; never 0 or 1 where it is not."""
    if share is None:
        return ""
    if 0 < share < 0.001:
        return "<0.1%"
    return ">99.9%" if 0.999 < share < 1 else percent(share)


def short(value: float | None) -> str:
    """Three significant digits."""
    return "" if value is None else f"{value:.3g}".replace("-", _MINUS)


def nats(value: float | None) -> str:
    """A log-loss."""
    return "" if value is None else f"{value:.4f}"


def count(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}"


def numerous(number: int) -> str:
    """A number of parameters: 950, 12.3K, 23.5M."""
    return rounding.count(number)


FILTERS = {f.__name__: f for f in (percent, points, probability, short, nats, count, numerous)}
"""By the names that templates call them."""
