"""How numbers are written in the page; the command line writes them alike."""

from __future__ import annotations

_MINUS = "\N{MINUS SIGN}"


def percent(share: float | None) -> str:
    """A share as per cent, one decimal."""
    return "" if share is None else f"{100 * share:.1f}%"


def points(difference: float | None) -> str:
    """A difference of shares in points, signed."""
    return "" if difference is None else f"{100 * difference:+.1f}".replace("-", _MINUS)


def probability(share: float | None) -> str:
    """A probability to a reader's precision; never 0 or 1 where it is not."""
    if share is None:
        return ""
    if 0 < share < 0.001:
        return "<0.1%"
    return ">99.9%" if 0.999 < share < 1 else f"{100 * share:.1f}%"


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
    for unit, size in (("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


FILTERS = {f.__name__: f for f in (percent, points, probability, short, nats, count, numerous)}
"""By the names that templates call them."""
