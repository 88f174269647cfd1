"""From labels to independent problems, and from their solutions to the columns of a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from featcache.errors import ProbeError
from featcache.heads.linear import CERTAIN_LOGIT, Loss


@dataclass(frozen=True, eq=False)
class Columns:
    """What one fold's training labels ask to be solved, and how a head is made of the solutions.

    Softmax of three classes or more is one problem with a column a class. Everything else is
    single logistic columns: one for two classes, one a class or label otherwise. Classes without
    a training row, and labels that every training row has, are not solved for: their bias alone
    makes them certain.

    Attributes:
        codes: one (m,) int array a problem; two values are a logistic column, more a softmax.
        spread: (K, S): coefficients of the head = spread @ the S solved columns.
        certain: (K,) bias of the classes that are not solved for, 0 elsewhere.
        absent: classes with no training row.
    """

    codes: tuple[np.ndarray, ...]
    spread: np.ndarray
    certain: np.ndarray
    absent: tuple[int, ...]

    @classmethod
    def of(cls, targets: np.ndarray, n_classes: int, loss: Loss) -> Self:
        """Read the targets of the training rows: (m,) codes, or (m, K) bool.

        Raises:
            ProbeError: there is nothing to tell apart.
        """
        if targets.ndim == 2:
            return cls._of_labels(targets)
        present, codes = np.unique(targets, return_inverse=True)
        absent = np.setdiff1d(np.arange(n_classes), present)
        if len(present) < 2:
            held = f"class {present[0]} alone" if len(present) else "no row"
            raise ProbeError(
                f"the training rows hold {held}; a head needs rows of two classes: add pictures of "
                "another class, or use fewer folds"
            )
        certain = np.zeros(n_classes)
        certain[absent] = -CERTAIN_LOGIT
        spread = np.eye(n_classes)[:, present]
        problems = [codes]
        if len(present) == 2:
            step = 0.5 if loss == "softmax" else 1.0  # see objective.py: [-w/2, w/2] or [-w, w]
            spread = spread @ np.array([[-step], [step]])
        elif loss == "logistic":
            problems = [(codes == k).astype(np.int64) for k in range(len(present))]
        return cls(tuple(problems), spread, certain, tuple(absent.tolist()))

    @classmethod
    def _of_labels(cls, targets: np.ndarray) -> Self:
        count = targets.sum(axis=0)
        varied = np.flatnonzero((count > 0) & (count < len(targets)))
        if not len(varied):
            raise ProbeError(
                f"each of the {targets.shape[1]} labels is on all {len(targets)} training rows or "
                "on none; a head needs a label that some rows have and others don't"
            )
        certain = np.where(count == 0, -CERTAIN_LOGIT, CERTAIN_LOGIT)
        certain[varied] = 0.0
        return cls(
            tuple(targets[:, k].astype(np.int64) for k in varied),
            np.eye(targets.shape[1])[:, varied],
            certain,
            tuple(np.flatnonzero(count == 0).tolist()),
        )
