"""The advice of a sweep over depth: the shallowest depth that is as good as the best, or none yet.

Which depth is best is unknown too. Hsu's (1981) multiple comparisons with the best: were b the
best, all D - 1 differences to b hold their lower bounds at once with the confidence asked for;
so, whichever b is, with that confidence no depth is further below the best than its least bound
over all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.pairwise import Floats, Pairwise, against_first, pairwise

_MOST = 10_000.0
"""Times as many rows, at most, that are looked at to decide."""

_STEPS = 16

_METHOD = (
    "multiple comparisons with the best, Bonferroni over depths, Tango's score bounds on the "
    "effective number of rows"
)


@dataclass(frozen=True, eq=False)
class Recommendation:
    """Which depth to take.

    Attributes:
        depth: position of the shallowest one shown to be within the margin of the best; None where
            that is undecided.
        best: position of the highest accuracy, the shallowest of equals.
        lower: (D,) simultaneous lower bounds of accuracy minus that of the truly best depth.
        difference: (D,) accuracy minus the highest.
        rows_needed: where undecided, about how many held-out rows would decide; None where more
            rows would not, since training seeds differ too much.
        better_than_first: (D,) two-sided p of no difference to the first depth, adjusted for
            all of them (Holm 1979).
        reason: in a sentence.
        method: how the bounds were computed, in words.
    """

    depth: int | None
    best: int
    lower: Floats
    difference: Floats
    rows_needed: int | None
    better_than_first: Floats
    reason: str
    method: str


def recommend(
    right: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    *,
    margin: float = 0.01,
    confidence: float = 0.95,
    names: Sequence[str] = (),
    seed: int = 0,
    solved: bool = False,
) -> Recommendation:
    """The shallowest depth whose simultaneous lower bound against the best exceeds -margin.

    Args:
        right: (S, D, n) bool: whether depth d, trained with seed s, has held-out row i right; the
            shallowest depth first.
        groups: (n,) ids; rows of one id are not independent.
        margin: accuracy one gives away for a simpler model, between 0 and 1.
        confidence: of all bounds together, between 0 and 1.
        names: D, for the sentence; none: "depth 0", "depth 1", ...
        seed: of the resampling behind `better_than_first`.
        solved: no seed trained any of them, so that the sentence says nothing of seeds.

    Raises:
        ProbeError: margin or confidence are not between 0 and 1, or as `pairwise`.
    """
    _check(margin, confidence)
    found = pairwise(right, groups)
    depths = len(found.accuracy)
    level = 1 - (1 - confidence) / max(1, depths - 1)
    lower = np.minimum(0.0, found.lower(found.quantile(level)).min(axis=1))
    shown = np.flatnonzero(lower > -margin)
    pairs = against_first(right, groups, seed)
    made = Recommendation(
        depth=int(shown[0]) if len(shown) else None,
        best=int(found.accuracy.argmax()),
        lower=lower,
        difference=found.accuracy - found.accuracy.max(),
        rows_needed=None if len(shown) else _rows_needed(found, level, margin),
        better_than_first=np.array([1.0, *holm([p.p_value for p in pairs])]),
        reason="",
        method=f"{_METHOD}, {_seeds(found)}",
    )
    words = list(names) or [f"depth {d}" for d in range(depths)]
    told = _decided if len(shown) else _undecided
    reason = told(made, found, words, 100 * margin)
    return replace(made, reason=reason if solved else f"{reason}; {_seeds(found)}")


def holm(p_values: Sequence[float]) -> Floats:
    """P values that hold together: each ordered one times how many are left, never falling."""
    order = np.argsort(p_values, kind="stable")
    left = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(left * np.asarray(p_values)[order]))
    return adjusted


def _rows_needed(found: Pairwise, level: float, margin: float) -> int | None:
    """How many rows decide, were the differences about as estimated.

    The highest of noisy accuracies is too high: what a depth is ahead by is taken a standard error
    smaller, at least nothing; what it is behind by is taken as it is.
    """
    ahead = np.maximum(0.0, found.difference - found.standard_error())
    likely = np.where(found.difference > 0, ahead, found.difference)

    def decides(times: float) -> bool:
        bounds = found.lower(found.quantile(level, times), times, likely)
        return bool((bounds.min(axis=1) > -margin).any())

    if not decides(_MOST):
        return None
    few, many = 0.0, float(np.log(_MOST))
    for _ in range(_STEPS):
        middle = (few + many) / 2
        few, many = (few, middle) if decides(float(np.exp(middle))) else (middle, many)
    return int(np.ceil(found.n * np.exp(many)))


def _decided(made: Recommendation, found: Pairwise, words: Sequence[str], points: float) -> str:
    chosen = made.depth or 0
    told = (
        f"{words[chosen]} is enough: {_share(found.accuracy[chosen])}, shown to be at most "
        f"{_points(made.lower[chosen])} points below the best (margin {points:g})"
    )
    if chosen != made.best:
        told += f", which here is {words[made.best]} with {_share(found.accuracy[made.best])}"
    if chosen > 0:
        told += f"; {words[chosen - 1]} may be {_points(made.lower[chosen - 1])} points below"
    return told


def _undecided(made: Recommendation, found: Pairwise, words: Sequence[str], points: float) -> str:
    more = (
        "more rows would not decide, more training seeds may"
        if made.rows_needed is None
        else f"about {_rounded(made.rows_needed):,} rows would decide"
    )
    estimates = ", ".join(
        f"{word} {_share(value)}" for word, value in zip(words, found.accuracy, strict=True)
    )
    unit = "point" if points == 1 else "points"
    return (
        f"undecided at n = {found.n:,} held-out rows ({estimates}): none is shown to be within "
        f"{points:g} {unit} of the best; {more}"
    )


def _seeds(found: Pairwise) -> str:
    if found.seeds == 1:
        return "the variance of training seeds is not included (one seed)"
    return f"the variance of training seeds is included ({found.seeds} seeds)"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _points(lower: float) -> str:
    return f"{100 * abs(lower):.1f}"


def _rounded(count: int) -> int:
    """To two digits, upwards."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit


def _check(margin: float, confidence: float) -> None:
    for name, value in (("margin", margin), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ProbeError(f"{name} {value}; give a number between 0 and 1")
