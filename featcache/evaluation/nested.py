r"""What the training of heads adds to the uncertainty of a cross-validated accuracy.

Every row of a cross-validation trains the heads that score the others, so that the scores are not
independent, and the binomial variance of their mean is too small. Bates, Hastie and Tibshirani
(2024, "Cross-validation: what does it estimate and how well does it do it?", JASA 119, section 4)
estimate what it should be. Of K folds take one, k, and compare two scores of heads that never saw
it: e_out, the error on fold k of the head of all others; e_in, the error of a cross-validation
within these others. As k says nothing of the heads' errors, and the others nothing of k,

    E (e_in - e_out)^2  =  MSE of the cross-validation on the others  +  Var(e_out | the head)

and the last is estimated by the rows of fold k. Averaged over folds and over random partitions, the
difference is the mean squared error of a cross-validation of n (K-1)/K rows. Divided by the
binomial variance of as many rows it is a design effect, which that of n rows is taken to be too.
It takes the heads of all sets that leave one or two folds out, at one C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from featcache.evaluation.splits import Folds


@dataclass(frozen=True)
class DesignEffect:
    """How a cross-validation's mean squared error compares with independent rows.

    Attributes:
        value: mean squared error / binomial variance, an unbiased but noisy estimate: it can be
            negative. In truth it is 1 or more, and at most K, where scores of folds are all alike.
        folds: K.
    """

    value: float
    folds: int


@dataclass(frozen=True)
class _Left:
    """Which folds of which partition a training set leaves out."""

    partition: int
    folds: tuple[int, ...]


class LeftOut:
    """Training sets that leave one or two folds out, of several partitions of the same rows.

    Args:
        partitions: of n rows, each of K >= 3 folds.

    Attributes:
        train: (F, n) bool, the training sets; held_out: (F, n) bool, what each is to be scored on.
    """

    def __init__(self, partitions: Sequence[Folds]) -> None:
        self._partitions = partitions
        self._left = [
            _Left(number, folds)
            for number, partition in enumerate(partitions)
            for size in (1, 2)
            for folds in combinations(range(partition.count), size)
        ]
        self.held_out = np.stack(
            [np.isin(partitions[left.partition].held_out, left.folds) for left in self._left]
        )
        self.train = ~self.held_out

    def __len__(self) -> int:
        return len(self._left)

    def design_effect(self, right: np.ndarray, groups: np.ndarray) -> DesignEffect:
        """The design effect of the accuracy of a cross-validation of these rows.

        Args:
            right: (F, n) bool, whether the head of each training set is right on its held-out rows.
            groups: (n,) int ids; rows of one id are not independent.
        """
        scores = {left: right[at] for at, left in enumerate(self._left)}
        excess, shares = list[float](), list[float]()
        for number, partition in enumerate(self._partitions):
            for fold in partition:
                out = partition.held_out == fold
                one = scores[_Left(number, (fold,))][out]
                inner = _within(scores, number, partition, fold)
                share = float(inner.mean())
                excess.append((share - one.mean()) ** 2 - _variance_of_mean(one, groups[out]))
                shares.append(share)
        folds = self._partitions[0].count
        rows = (self._partitions[0].held_out >= 0).sum() * (folds - 1) / folds
        share = float(np.mean(shares))
        binomial = share * (1 - share) / rows
        value = float(np.mean(excess)) / binomial if binomial > 0 else 1.0
        return DesignEffect(value, folds)


def _within(
    scores: dict[_Left, np.ndarray], number: int, partition: Folds, fold: int
) -> np.ndarray:
    """Scores of the rows of all other folds, by heads that saw neither their fold nor this one."""
    return np.concatenate(
        [
            scores[_Left(number, (min(fold, other), max(fold, other)))][partition.held_out == other]
            for other in partition
            if other != fold
        ]
    )


def _variance_of_mean(right: np.ndarray, groups: np.ndarray) -> float:
    """Of rows that one head scores: cluster-robust, and the usual one where all are alone."""
    _, position, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    m = len(sizes)
    if m < 2:
        return 0.0
    sums = np.bincount(position, weights=right - right.mean())
    return m / (m - 1) * float(np.square(sums).sum()) / len(right) ** 2
