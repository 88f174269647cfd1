"""Several classifiers on the same rows, each trained with several seeds, compared two by two.

right (S, D, n) says whether classifier d, trained with seed s, has row i right. A (D, D) array
holds at [d, j] something of accuracy of d minus accuracy of j.

The variance of a difference is that of the rows plus that of the seeds. With d_si in -1, 0, 1 the
difference on row i with seed s, over m groups of rows:

    rows    variance over groups of their sums of mean_s d_si
    seeds   variance over seeds of mean_i d_si, / S

What differs by both at once is in either term, so the sum errs towards wide. Few rows differ where
classifiers are good, and the mean of few is no normal deviate: bounds are Tango's score bounds on
the number of independent rows that has this variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from featcache.errors import ProbeError
from featcache.evaluation.paired import (
    FEW,
    PairedDifference,
    compare,
    score_lower,
    sign_flips,
)

SEEDED = "sign flips of groups and a score test, Tango's score interval, training seeds included"

_NOTHING = 1e-9
"""A variance below is rounding: the pair is alike on every row, or differs on every row."""

_FLIPS = 10_000

_HALVINGS = 40

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairwise:
    """All differences of D classifiers, and what is known of their variance.

    Attributes:
        accuracy: (D,), over rows and seeds.
        differ: (D, D) share of rows and seeds of which only one of the two is right.
        rows: (D, D) how many independent rows would say as much, were there no other seeds.
        seeds_variance: (D, D) variance of the difference that is due to seeds, estimated with
            seeds_freedom degrees of freedom.
        n: rows; groups: of them; seeds: S.
    """

    accuracy: Floats
    differ: Floats
    rows: Floats
    seeds_variance: Floats
    seeds_freedom: int
    n: int
    groups: int
    seeds: int

    @property
    def difference(self) -> Floats:
        """(D, D) accuracy of the first minus that of the second."""
        return self.accuracy[:, None] - self.accuracy[None, :]

    def independent_rows(self, times: float = 1.0) -> Floats:
        """(D, D) independent rows with the variance of `times` as many rows, seeds included."""
        rows, spread = times * self.rows, np.maximum(self._spread(), _NOTHING)
        return rows / (1 + self.seeds_variance * rows / spread)

    def quantile(self, level: float | Floats, times: float = 1.0) -> Floats:
        """(D, D) standard errors below which a difference lies at a level, of `times` the rows.

        Each variance at its own quantile of t, q^2 V = q_rows^2 V_rows + q_seeds^2 V_seeds, which
        does not trust a small variance of few seeds as Satterthwaite's degrees of freedom would.
        Single rows have no variance that is estimated apart from their share: theirs is normal.
        """
        of_rows = np.maximum(self._spread(), _NOTHING) / (times * self.rows)
        free = np.inf if self.groups == self.n else times * self.groups - 1
        squares = t.ppf(level, free) ** 2 * of_rows
        squares += t.ppf(level, max(1, self.seeds_freedom)) ** 2 * self.seeds_variance
        return np.sqrt(squares / (of_rows + self.seeds_variance))

    def lower(self, z: Floats, times: float = 1.0, difference: Floats | None = None) -> Floats:
        """(D, D) lower bounds of the differences, 1 on the diagonal.

        Args:
            z: (D, D) standard errors below.
            times: were there so many times as many rows.
            difference: (D, D), were they these.
        """
        apart = self.difference if difference is None else difference
        rows = self.independent_rows(times)
        only_a, only_b = (np.maximum(0, self.differ + sign * apart) / 2 for sign in (1, -1))
        bounds = score_lower(only_a * rows, only_b * rows, rows, z)
        np.fill_diagonal(bounds, 1.0)
        return bounds

    def score_test(self) -> Floats:
        """(D, D) two-sided p of no difference: McNemar's on the independent rows, by halving."""
        rows = self.independent_rows()
        z = np.abs(self.difference) * np.sqrt(rows / np.maximum(self.differ, _NOTHING))
        low, high = np.zeros_like(z), np.ones_like(z)
        for _ in range(_HALVINGS):
            p = (low + high) / 2
            significant = z >= self.quantile(1 - p / 2)
            low, high = np.where(significant, low, p), np.where(significant, p, high)
        return high

    def standard_error(self) -> Floats:
        """(D, D) of the differences."""
        return np.sqrt(self._spread() / self.rows + self.seeds_variance)

    def _spread(self) -> Floats:
        """(D, D) variance of the difference on one row with one seed."""
        return np.maximum(0.0, self.differ - self.difference**2)


def pairwise(right: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> Pairwise:
    """Compare all classifiers with each other.

    Args:
        right: (S, D, n) bool.
        groups: (n,) ids; rows of one id are not independent.

    Raises:
        ProbeError: the shapes disagree, there is no row, or all rows are in one group.
    """
    _check(right, groups)
    seeds, _, n = right.shape
    _, position, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    hits = right.sum(axis=0)  # (D, n), of S
    accuracy = hits.mean(axis=1) / seeds
    both = np.einsum("sdi,sji->dj", *(right.astype(np.float32),) * 2, dtype=np.float64) / (
        seeds * n
    )
    differ = accuracy[:, None] + accuracy[None, :] - 2 * both
    np.fill_diagonal(differ, 0.0)
    by_group = np.stack([np.bincount(position, weights=row) for row in hits])  # (D, m), of S
    varies = (hits % seeds > 0).any(axis=1)
    return Pairwise(
        accuracy=accuracy,
        differ=differ,
        rows=_rows(differ, accuracy, hits / seeds, by_group / seeds, sizes),
        seeds_variance=_seeds_variance(right.mean(axis=2), varies),
        seeds_freedom=int(varies.sum()) * (seeds - 1),
        n=n,
        groups=len(sizes),
        seeds=seeds,
    )


def _rows(
    differ: Floats, accuracy: Floats, hits: Floats, by_group: Floats, sizes: npt.NDArray[np.int64]
) -> Floats:
    """(D, D) independent rows, as `intervals.effective_rows` counts them.

    Several seeds can make them more than n, but not where under `FEW` groups differ.

    Args:
        differ: (D, D), as in `Pairwise`.
        accuracy: (D,).
        hits: (D, n) share of seeds that have the row right.
        by_group: (D, m) its sums.
        sizes: (m,) rows of each group.
    """
    n, m = int(sizes.sum()), len(sizes)
    fewest = n**2 / float(np.square(sizes).sum())
    by_row = _square_distances(hits - accuracy[:, None]) / n  # variance of one row's difference
    over_groups = _square_distances(by_group - accuracy[:, None] * sizes) / n * m / (m - 1)
    few = (by_group[:, None, :] != by_group[None, :, :]).sum(axis=2) < FEW
    spread = differ - (accuracy[:, None] - accuracy[None, :]) ** 2
    known = (by_row > _NOTHING) & (spread > _NOTHING)
    over_groups = np.maximum(over_groups, by_row) if m < n else by_row
    rows = n * np.divide(spread, over_groups, out=np.zeros_like(spread), where=known)
    rows = np.where(few, np.minimum(rows, n), rows)
    return np.maximum(rows, fewest)


def _seeds_variance(by_seed: Floats, varies: npt.NDArray[np.bool_]) -> Floats:
    """(D, D) variance between seeds of a difference, / S.

    A few seeds say little of one pair. So it is at least what the classifiers that differ by seed
    have on average, as if each had seeds of its own.

    Args:
        by_seed: (S, D) accuracies.
        varies: (D,) whether any row does.
    """
    seeds = len(by_seed)
    if seeds == 1 or not varies.any():
        return np.zeros((by_seed.shape[1],) * 2)
    apart = by_seed[:, :, None] - by_seed[:, None, :]
    average = float(by_seed.var(axis=0, ddof=1)[varies].mean())
    pooled = average * (varies[:, None].astype(float) + varies[None, :])
    np.fill_diagonal(pooled, 0.0)
    return np.maximum(apart.var(axis=0, ddof=1), pooled) / seeds


def _square_distances(points: Floats) -> Floats:
    """(D, k) points to (D, D) squares of the distances between them."""
    products = points @ points.T
    squares = np.diag(products)
    return np.maximum(0.0, squares[:, None] + squares[None, :] - 2 * products)


def against_first(
    right: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], seed: int = 0
) -> tuple[PairedDifference, ...]:
    """The other classifiers, each minus the first one: D - 1 of them.

    One training seed: `paired.compare`. Several: the score interval with the variance of seeds, and
    of two tests the less certain one: sign flips of groups, which hold at any count but know no
    seeds, and the score test with the variance of seeds.

    Args:
        right: (S, D, n) bool.
        groups: (n,) ids.
        seed: of the resampling.

    Raises:
        ProbeError: as `pairwise`.
    """
    _check(right, groups)
    if right.shape[0] == 1:
        return tuple(compare(other, right[0, 0], groups, seed) for other in right[0, 1:])
    found = pairwise(right, groups)
    lower, by_score = found.lower(found.quantile(0.975)), found.score_test()
    hits, (_, position) = right.sum(axis=0), np.unique(groups, return_inverse=True)
    made: list[PairedDifference] = []
    for d in range(1, len(hits)):
        sums = np.bincount(position, weights=hits[d].astype(float) - hits[0])
        by_flips = sign_flips(sums, _FLIPS, np.random.default_rng(seed))
        interval = float(lower[d, 0]), -float(lower[0, d])
        p_value = max(by_flips, float(by_score[d, 0]))
        made.append(PairedDifference(float(found.difference[d, 0]), interval, p_value, SEEDED))
    return tuple(made)


def _check(right: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> None:
    if right.ndim != 3 or not right.size or groups.shape != right.shape[2:]:
        raise ProbeError(
            f"right or wrong in an array of shape {right.shape} with groups of {groups.shape}; "
            "give (seeds, classifiers, rows) and (rows,), at least one of each"
        )
    if len(np.unique(groups)) < 2:
        raise ProbeError(
            f"all {len(groups)} rows are in one group, which says nothing of another; compare on "
            "rows of at least 2 groups"
        )
