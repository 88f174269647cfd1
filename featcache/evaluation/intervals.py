"""The uncertainty of an accuracy, with rows of one group counted as what they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from featcache.errors import ProbeError
from featcache.evaluation.nested import DesignEffect

WILSON = "Wilson score"
WILSON_BY_GROUP = "Wilson score on the effective number of rows (clustered by group)"
WILSON_NESTED = f"{WILSON}, widened for the variance of training"
WILSON_NESTED_BY_GROUP = f"{WILSON_BY_GROUP}, widened for the variance of training"


@dataclass(frozen=True)
class Interval:
    """An interval of an accuracy.

    Attributes:
        lo, hi: ends, from 0 to 1.
        confidence: share of such intervals that are to hold the true value.
        method: how it was computed, in words.
    """

    lo: float
    hi: float
    confidence: float
    method: str


def accuracy_interval(
    correct: np.ndarray,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    effect: DesignEffect | None = None,
) -> Interval:
    """Interval of the accuracy behind n scored rows.

    Rows that are independent: Wilson's score interval (Wilson 1927). Where groups hold several
    rows, Wilson's interval on the effective number of rows (see `effective_rows`), as Korn and
    Graubard (1998) do for surveys. It speaks of rows drawn like these, scored by heads like these.
    Where the rows trained the heads that score each other, the variance of training is in it only
    if its design effect is given: no row then counts for more than 1 / effect, and none for less
    than 1 / K, as scores of K folds that are all alike would.

    Args:
        correct: (n,) bool.
        groups: (n,) int ids; rows of one id are not independent.
        confidence: between 0 and 1.
        effect: of the cross-validation that scored the rows (see `nested`), or None.

    Raises:
        ProbeError: there is no row, or the confidence is not between 0 and 1.
    """
    if not len(correct):
        raise ProbeError("an interval of no rows; hold some rows out")
    if not 0 < confidence < 1:
        raise ProbeError(f"confidence {confidence}; give a number between 0 and 1, such as 0.95")
    share, n = float(np.mean(correct)), float(len(correct))
    ids = np.arange(len(correct)) if groups is None else groups
    alone = len(np.unique(ids)) == len(ids)
    rows = n if alone else effective_rows(correct, ids, confidence)
    if effect is None:
        return _wilson(share, rows, confidence, WILSON if alone else WILSON_BY_GROUP)
    rows = min(rows, max(n / max(effect.value, 1.0), rows / effect.folds))
    method = WILSON_NESTED if alone else WILSON_NESTED_BY_GROUP
    return _wilson(share, rows, confidence, method)


def effective_rows(correct: np.ndarray, groups: np.ndarray, confidence: float) -> float:
    r"""How many independent rows would say as much about the accuracy.

    With m groups of n_g rows, x_i whether row i is right, p their mean:

        deff  = cluster-robust variance / binomial variance
              = m/(m-1) sum_g (sum_{i in g} (x_i - p))^2  /  (n p (1-p)),   at least 1
        n_eff = n / deff x (t_{n-1} / t_{m-1})^2

    where the quantiles of t pay for a variance that was estimated from m groups (Korn and Graubard
    1998; Franco et al. 2019). Rows of a group cannot agree more than fully, so n_eff is at least
    n^2 / sum_g n_g^2 (m groups of one size: m), which is also taken where all rows are right or
    all are wrong and agreement cannot be estimated.
    """
    _, position, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n, m = len(correct), len(sizes)
    fewest = float(n**2 / np.square(sizes).sum())
    share = float(np.mean(correct))
    if m < 2 or share in (0.0, 1.0):
        return fewest
    sums = np.bincount(position, weights=correct - share)
    deff = max(1.0, m / (m - 1) * float(np.square(sums).sum()) / (n * share * (1 - share)))
    tail = (1 + confidence) / 2
    rows = n / deff * float(t.ppf(tail, n - 1) / t.ppf(tail, m - 1)) ** 2
    return max(rows, fewest)


def _wilson(share: float, n: float, confidence: float, method: str) -> Interval:
    z2 = float(norm.ppf((1 + confidence) / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    lo = 0.0 if share == 0 else max(0.0, middle - float(half))
    hi = 1.0 if share == 1 else min(1.0, middle + float(half))
    return Interval(lo, hi, confidence, method)
