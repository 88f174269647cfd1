"""From labels to independent problems, and from their solutions to the columns of a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from featcache.errors import ProbeError
from featcache.heads.linear import CERTAIN_LOGIT, Loss


@dataclass(frozen=True, eq=False)
class Columns:
    """What one fold's training rows ask to be solved, and how a head is made of the solutions.

    Softmax of three classes or more is one problem with K columns. Everything else is single
    logistic columns: one for two classes, one a class or label otherwise. Classes without a
    training row, and labels that every training row has, are not solved for: their bias alone
    makes them certain.

    Attributes:
        loss: of the problems: "softmax" (one problem) or "logistic" (J columns).
        labels: (n, K) float64 shares of the classes for a softmax, (n, J) of the columns; None for
            a softmax of hard labels, whose codes say it all.
        present: (K,) bool, the classes that a softmax solves for.
        spread: (K, S): coefficients of the head = spread @ the S solved columns.
        certain: (K,) bias of the classes that are not solved for, 0 elsewhere.
        absent: classes with no training row.
    """

    loss: Loss
    labels: np.ndarray | None
    present: np.ndarray
    spread: np.ndarray
    certain: np.ndarray
    absent: tuple[int, ...]

    @classmethod
    def of(
        cls, targets: np.ndarray, rows: np.ndarray, classes: int, loss: Loss, smoothing: float = 0.0
    ) -> Self:
        """Read the targets of the training rows.

        Args:
            targets: (n,) codes, (n, K) bool labels, or (n, K) shares from 0 to 1.
            rows: (n,) bool, those trained on.
            classes: K.
            loss: as asked for; two classes are one logistic column either way.
            smoothing: share of every target that is given to all classes alike.

        Raises:
            ProbeError: there is nothing to tell apart.
        """
        if targets.ndim == 2 and loss == "logistic":
            return cls._of_labels(targets, rows, smoothing)
        hard = targets.ndim == 1
        if hard:
            mass = np.bincount(targets[rows], minlength=classes).astype(np.float64)
        else:
            mass = targets[rows].sum(axis=0, dtype=np.float64)
        present = mass > 0
        found = np.flatnonzero(present)
        if len(found) < 2:
            held = f"class {found[0]} alone" if len(found) else "no row"
            raise ProbeError(
                f"the training rows hold {held}; a head needs rows of two classes: add pictures of "
                "another class, or use fewer folds"
            )
        shares = None
        if not hard or smoothing or loss == "logistic" or len(found) == 2:
            shares = np.eye(classes)[targets] if hard else targets.astype(np.float64)
            if smoothing and loss == "softmax" and len(found) > 2:
                shares = (1 - smoothing) * shares + smoothing * present / len(found)
        certain = np.where(present, 0.0, -CERTAIN_LOGIT)
        absent = tuple(np.flatnonzero(~present).tolist())
        spread = np.eye(classes)[:, found]
        if len(found) == 2 and shares is not None:
            step = 0.5 if loss == "softmax" else 1.0  # see objective.py: [-w/2, w/2] or [-w, w]
            spread = spread @ np.array([[-step], [step]])
            return cls(
                "logistic",
                _smooth(shares[:, found[1:]], smoothing),
                present,
                spread,
                certain,
                absent,
            )
        if loss == "logistic" and shares is not None:
            labels = _smooth(shares[:, found], smoothing)
            return cls("logistic", labels, present, spread, certain, absent)
        return cls("softmax", shares, present, np.eye(classes) * present, certain, absent)

    @classmethod
    def _of_labels(cls, targets: np.ndarray, rows: np.ndarray, smoothing: float) -> Self:
        labels = np.asarray(targets, np.float64)
        classes = len(labels[0])
        share = np.mean(labels[rows], axis=0)
        varied = np.flatnonzero((share > 0) & (share < 1))
        if not len(varied):
            raise ProbeError(
                f"each of the {classes} labels is on all {int(rows.sum())} training rows or "
                "on none; a head needs a label that some rows have and others don't"
            )
        certain = np.where(share == 0, -CERTAIN_LOGIT, CERTAIN_LOGIT)
        certain[varied] = 0.0
        return cls(
            "logistic",
            _smooth(labels[:, varied], smoothing),
            np.ones(classes, np.bool_),
            np.eye(classes)[:, varied],
            certain,
            tuple(int(k) for k in np.flatnonzero(share == 0)),
        )

    def weights(
        self,
        targets: np.ndarray,
        rows: np.ndarray,
        kept: np.ndarray,
        sample: np.ndarray | None,
        balanced: bool,
    ) -> np.ndarray:
        """Weights of m kept rows, 0 where not trained on: (1, m) for a softmax, (J, m) for columns.

        Balanced as in scikit-learn: a class (or, in a column, either side) weighs
        n / (classes x its rows), its rows counted with their own weights.

        Args:
            targets: (n,) or (n, K).
            rows: (n,) bool, those trained on.
            kept: (m,) positions that hold all rows trained on.
            sample: (n,) weights of the rows, or None.
            balanced: give every class the same total weight.
        """
        own = rows[kept].astype(np.float64) if sample is None else rows[kept] * sample[kept]
        if not balanced:
            return np.broadcast_to(own, (self.problems, len(own)))
        if self.loss == "softmax":
            codes = targets[kept]
            shares = np.eye(len(self.present))[codes] if codes.ndim == 1 else codes
            mass = own @ shares  # (K,)
            factor = own.sum() / (self.present.sum() * np.where(mass > 0, mass, 1.0))
            return (own * (shares @ (factor * (mass > 0))))[None]
        labels = self._labels()[kept]
        mass = own @ labels  # (J,)
        with_label, without = own.sum() / (2 * mass), own.sum() / (2 * (own.sum() - mass))
        return (own[:, None] * (labels * with_label + (1 - labels) * without)).T

    def solved(self, coef: np.ndarray) -> np.ndarray:
        """(S, D) of the solved columns that make the head (K, D), up to what all classes share."""
        return np.linalg.pinv(self.spread) @ np.asarray(coef, np.float64)

    @property
    def are_classes(self) -> bool:
        """Whether the solved columns are those of the head: a softmax of every class."""
        return self.loss == "softmax" and not self.absent

    @property
    def columns(self) -> int:
        """Of all problems: K of a softmax, J of single ones."""
        return len(self.present) if self.loss == "softmax" else self.problems

    @property
    def problems(self) -> int:
        """How many."""
        return 1 if self.loss == "softmax" else self._labels().shape[1]

    def _labels(self) -> np.ndarray:
        if self.labels is None:
            raise TypeError("a softmax of hard labels has no columns")
        return self.labels


def _smooth(labels: np.ndarray, smoothing: float) -> np.ndarray:
    return (1 - smoothing) * labels + smoothing / 2
