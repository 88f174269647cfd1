"""What held-out rows say: of every candidate, and of the one that was chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.evaluation.intervals import Interval, accuracy_interval
from featcache.evaluation.metrics import Scores, confusion, correct, losses, score
from featcache.evaluation.nested import DesignEffect
from featcache.heads.linear import LinearHead
from featcache.probing.rows import Bools, LabelledRows, Probabilities
from featcache.probing.spec import PathScore

_ROWS = 16384
"""Predicted at a time."""


class HeldOut:
    """Held-out probabilities of every C, gathered fit by fit.

    Attributes:
        losses: (G, n) log-loss of each row, NaN where it was not held out.
        right: (G, n) whether it was right.
        probabilities: (G, n, K), NaN where not held out; (0, n, K) unless `keep` was said.
    """

    def __init__(self, data: LabelledRows, values: int, *, keep: bool = False) -> None:
        self._targets = data.targets
        self.losses = np.full((values, len(data)), np.nan)
        self.right = np.zeros((values, len(data)), np.bool_)
        kept = values if keep else 0
        self.probabilities = np.full((kept, len(data), len(data.classes)), np.nan)

    def add(self, position: int, rows: npt.NDArray[np.int64], probabilities: Probabilities) -> None:
        """Take the probabilities (m, K) that the C at a position of the grid gives some rows."""
        targets = self._targets[rows]
        self.losses[position, rows] = losses(probabilities, targets)
        self.right[position, rows] = correct(probabilities, targets)
        if len(self.probabilities):
            self.probabilities[position, rows] = probabilities

    @property
    def best(self) -> int:
        """Position of the C with the least mean log-loss; the smaller C where equal."""
        return int(np.argmin(np.nanmean(self.losses, axis=1)))

    def path(self, grid: npt.NDArray[np.float64]) -> tuple[PathScore, ...]:
        """Scores at every C, with the standard error of the mean log-loss."""
        measured = ~np.isnan(self.losses[0])
        found = self.losses[:, measured]
        errors = found.std(axis=1, ddof=1) / np.sqrt(found.shape[1])
        right = self.right[:, measured].mean(axis=1)
        return tuple(
            PathScore(*values)
            for values in zip(
                *(part.tolist() for part in (grid, right, found.mean(axis=1), errors)), strict=True
            )
        )


def predict(head: LinearHead, data: LabelledRows, rows: Bools) -> Probabilities:
    """(m, K) of some rows (n,) bool, read block by block."""
    places = np.flatnonzero(rows)
    blocks = [places[start : start + _ROWS] for start in range(0, len(places), _ROWS)]
    return np.concatenate([head.probabilities(data.features[block]) for block in blocks])


def accuracy_on(head: LinearHead, data: LabelledRows, rows: Bools) -> float:
    """Share of some rows (n,) bool that a head has right."""
    return float(correct(predict(head, data, rows), data.targets[rows]).mean())


def judge(
    data: LabelledRows,
    judged: Bools,
    probabilities: Probabilities,
    effect: DesignEffect | None = None,
) -> tuple[Scores, Interval, npt.NDArray[np.int64]]:
    """Scores, interval and (K, K) confusion of the judged rows; (0, 0) for several labels.

    Args:
        data: the labelled rows.
        judged: (n,) bool, rows that were held out.
        probabilities: (n, K), of those rows at least.
        effect: of the cross-validation that they come from, where it is known.
    """
    given, targets = probabilities[judged], data.targets[judged]
    right = correct(given, targets)
    interval = accuracy_interval(right, data.groups[judged], effect=effect)
    return score(given, targets), interval, _confusion(given, targets)


def _confusion(probabilities: Probabilities, targets: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if targets.ndim == 2:
        return np.zeros((0, 0), np.int64)
    return confusion(probabilities.argmax(axis=1), targets, probabilities.shape[1])
