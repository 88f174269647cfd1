"""Labels that are likely wrong, by confident learning.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels"
(arXiv 1911.00068), in the form that the package cleanlab has made the usual one: what is flagged
is what `cleanlab.filter.find_label_issues` flags at its defaults, prune by noise rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from featcache.errors import ProbeError
from featcache.evaluation.metrics import confusion

Quality = Literal["self_confidence", "normalized_margin"]

SLACK = 1e-6
"""Probabilities this close are equal; a class's threshold is at least twice this."""


@dataclass(frozen=True, eq=False)
class Suspects:
    """How far each label is to be doubted.

    Attributes:
        flagged: (m,) int64 rows whose label is likely wrong, the most suspicious first.
        ranking: (n,) int64 all rows: those flagged, then the others, the most suspicious first.
        suggested: (n,) int64 the most probable class; that of a flagged row is not its label.
        quality: (n,) float64, 0 (suspicious) to 1.
    """

    flagged: np.ndarray
    ranking: np.ndarray
    suggested: np.ndarray
    quality: np.ndarray


def suspects(
    probabilities: np.ndarray, targets: np.ndarray, by: Quality = "self_confidence"
) -> Suspects:
    """Find rows whose label disagrees with what the other rows teach.

    The probabilities must be out-of-fold: a head that trained on a wrong label believes it. Classes
    without rows are allowed; a label that is its class's only one is never flagged. Rows of equal
    quality keep their order.

    Args:
        probabilities: (n, K), out-of-fold.
        targets: (n,) int codes, as given.
        by: what ranks: "self_confidence", the probability p of the given label, or
            "normalized_margin", (p - the largest other probability + 1) / 2.

    Raises:
        ProbeError: several labels a row, fewer than two classes, or the arrays disagree.
    """
    _check(probabilities, targets)
    p = probabilities.astype(np.float64)
    is_flagged = _prune(p, targets, _noise(_joint(p, targets)))
    # a row on whose label the head agrees is never flagged
    p_given_first = p.copy()
    p_given_first[np.arange(len(p)), targets] += SLACK
    is_flagged &= p_given_first.argmax(axis=1) != targets
    quality = _quality(p, targets, by)
    ranking = np.lexsort([quality, ~is_flagged])
    return Suspects(ranking[: is_flagged.sum()], ranking, p.argmax(axis=1), quality)


def _quality(p: np.ndarray, targets: np.ndarray, by: Quality) -> np.ndarray:
    own = np.arange(p.shape[1]) == targets[:, None]
    if by == "self_confidence":
        return p[own]
    return (p[own] - np.where(own, -np.inf, p).max(axis=1) + 1) / 2


def _joint(p: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(K, K) int64: rows by given and true class, as estimated; row sums are the given counts.

    A row is confidently of class k where p_k reaches the mean of p_k over the rows labelled k
    (of the most probable class where it reaches several); what is not confident is left out, and
    the counts of each given class are scaled back to its number of rows.
    """
    n, classes = p.shape
    given = np.bincount(targets, minlength=classes)
    sums = np.bincount(targets, weights=p[np.arange(n), targets], minlength=classes)
    means = sums / np.maximum(given, 1)
    thresholds = np.where(given > 0, np.maximum(means, 2 * SLACK), 2.0)  # 2: never reached
    reached = p >= thresholds - SLACK
    true = np.where(reached.sum(axis=1) > 1, p.argmax(axis=1), reached.argmax(axis=1))
    some = reached.any(axis=1)
    counts = confusion(targets[some], true[some], classes)  # rows: true; columns: given
    np.fill_diagonal(counts, np.maximum(counts.diagonal(), 1))
    # in cleanlab's order of operations: their last bit decides between equals when rounded
    scaled = counts / counts.sum(axis=0) * given
    return _rounded((scaled / scaled.sum() * n).T, given)


def _rounded(values: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Whole numbers nearest to the values, with these row totals.

    What is missing (too much) goes to (comes from) those rounded down (up) the furthest, the last
    (the first) of equals.
    """
    whole = values.round()
    order = np.argsort(values - whole, axis=1, kind="stable")
    for row, missing in enumerate((totals - whole.sum(axis=1)).astype(np.int64)):
        if missing > 0:
            whole[row, order[row, -missing:]] += 1
        else:
            whole[row, order[row, :-missing]] -= 1
    return whole.astype(np.int64)


def _noise(joint: np.ndarray) -> np.ndarray:
    """(K, K) how many rows given i and truly j to flag; a class that would lose all keeps one."""
    lost = joint.diagonal() == 0
    noise = np.maximum(joint - lost[:, None], 0)
    np.fill_diagonal(noise, 0)
    return noise


def _prune(p: np.ndarray, targets: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(n,) bool: of the rows given i, the noise[i, j] with the largest p_j - p_i, for each j."""
    flagged = np.zeros(len(p), bool)
    for i, j in zip(*np.nonzero(noise), strict=True):
        rows = np.flatnonzero(targets == i)
        if len(rows) > 1:
            order = np.argsort(p[rows, i] - p[rows, j], kind="stable")
            flagged[rows[order[: noise[i, j]]]] = True
    return flagged


def _check(probabilities: np.ndarray, targets: np.ndarray) -> None:
    if targets.ndim == 2:
        raise ProbeError(
            "suspicious labels are found among rows of one label each, these have several; give "
            "one label's column at a time, as codes 0 and 1 with probabilities 1 - p and p"
        )
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or len(probabilities) != len(targets):
        raise ProbeError(
            f"probabilities of shape {probabilities.shape} for {len(targets)} labels; give (n, K) "
            "and (n,), of at least 2 classes"
        )
    if not len(targets) or targets.min() < 0 or targets.max() >= probabilities.shape[1]:
        raise ProbeError(
            f"labels outside the {probabilities.shape[1]} columns of the probabilities, or none; "
            "give at least one row, and codes from 0 to K - 1"
        )
    if not ((probabilities >= 0) & (probabilities <= 1 + SLACK)).all():
        raise ProbeError("probabilities are not all from 0 to 1; give those of out-of-fold rows")
