"""What a probe is asked, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.intervals import Interval
from featcache.evaluation.metrics import Scores
from featcache.heads.linear import LinearHead, Loss
from featcache.heads.solver import Fit, FitStatus
from featcache.probing.rows import Bools, Probabilities
from featcache.recipe import PENULTIMATE


@dataclass(frozen=True)
class ProbeSpec:
    """How heads are fitted and judged.

    Attributes:
        loss: "softmax" or "logistic".
        folds: outer folds of the cross-validation; inner_folds: those that choose C within them.
        seed: of the folds.
        standardize: scale columns to unit variance by the rows a fit trains on.
        tolerance: on the certified gap.
        balanced: every class weighs the same in all, however many rows it has.
        smoothing: share of every target that is given to all classes alike.
        prior: (K, D) weights that heads are drawn to instead of 0, or None.
        memory: bytes for the solver to stay within, about; device: of its products.
        grid: values of C; None places them by the features of the rows that C is chosen on.
        cut: which activations.

    Raises:
        ProbeError: a value that cannot be asked for.
    """

    loss: Loss = "softmax"
    folds: int = 5
    inner_folds: int = 3
    seed: int = 0
    standardize: bool = False
    tolerance: float = 1e-3
    balanced: bool = False
    smoothing: float = 0.0
    prior: npt.NDArray[np.float64] | None = field(default=None, compare=False)
    memory: int = 2 << 30
    device: str = "cpu"
    grid: tuple[float, ...] | None = None
    cut: str = PENULTIMATE

    def __post_init__(self) -> None:
        known = get_args(Loss)
        problems = [
            (self.loss not in known, f"head {self.loss!r}: unknown; give {' or '.join(known)}"),
            (min(self.folds, self.inner_folds) < 2, f"{self.folds} folds: give at least 2"),
            (not 0 <= self.seed < 2**32, f"seed {self.seed}: give one from 0 to 4294967295"),
            (not self.tolerance > 0, f"tolerance {self.tolerance}: give a positive number"),
            (not 0 <= self.smoothing < 1, f"smoothing {self.smoothing}: give 0 to below 1"),
            (self.memory < 1, f"memory of {self.memory} bytes: give a positive number"),
            (self.grid is not None and not self.grid, "the grid of C is empty: give some values"),
        ]
        for wrong, message in problems:
            if wrong:
                raise ProbeError(message)


@dataclass(frozen=True)
class PathScore:
    """One candidate on held-out rows; a C, or where neighbours vote, a number of them.

    Attributes:
        C: inverse strength of the penalty; None where neighbours vote.
        accuracy: share of rows that are right.
        log_loss: mean, in nats, and log_loss_error its standard error; None for scores that are
            no probabilities (ridge).
        neighbours: how many vote, else None.
        squared_error: mean squared error of ridge's scores, else None.
    """

    C: float | None
    accuracy: float
    log_loss: float | None = None
    log_loss_error: float | None = None
    neighbours: int | None = None
    squared_error: float | None = None


@dataclass(frozen=True)
class ShotScore:
    """What heads of so many pictures a class reach, one support set a seed.

    Attributes:
        shots: pictures of each class, at most; None: all there are.
        scores: of each seed's head, on rows that neither trained it nor chose its settings.
        chosen: C of each seed's head.
        method: how C was chosen, and what was measured on.
    """

    shots: int | None
    scores: tuple[Scores, ...]
    chosen: tuple[float, ...]
    method: str


@dataclass(frozen=True, eq=False)
class Probed:
    """A fitted head and what is known of it.

    Attributes:
        fit: the refit; None where what predicts is no linear head with a certificate (ridge, kNN).
        path: scores by candidate on held-out rows of the training part.
        best: position of the one that was chosen.
        method: how the estimate came about.
        scores, interval: the estimate, on the judged rows.
        judged, trained: (n,) bool, rows of the estimate and rows of the refit.
        probabilities: (n, K) of every held-out row, NaN for a row that was never held out.
        confusion: (K, K) on the judged rows, given by predicted; (0, 0) for several labels.
        fits: how many heads were fitted; missed: how many of them have a certified gap over the
            tolerance.
        chosen: C of each outer fold of a nested cross-validation, else empty.
        seconds: of the whole.
        train_accuracy: of the heads that judged, each on the rows that it was fitted on (mean over
            outer folds); None of ridge and neighbours.
        warnings: what a person should know, by name.
    """

    fit: Fit | None
    path: tuple[PathScore, ...]
    best: int
    method: str
    scores: Scores
    interval: Interval
    judged: Bools
    trained: Bools
    probabilities: Probabilities
    confusion: npt.NDArray[np.int64]
    fits: int = 0
    missed: int = 0
    chosen: tuple[float, ...] = ()
    seconds: float = 0.0
    train_accuracy: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def one_error_C(self) -> float | None:  # noqa: N802 - the field's name
        """The smallest C whose log-loss is within one standard error of the least."""
        known = [
            (point.log_loss, point.log_loss_error, point.C)
            for point in self.path
            if point.log_loss is not None
            and point.log_loss_error is not None
            and point.C is not None
        ]
        if not known:
            return None
        least, error, _ = min(known)
        return min(C for loss, _, C in known if loss <= least + error)

    @property
    def head(self) -> LinearHead | None:
        """The refitted head."""
        return self.fit.head if self.fit else None

    @property
    def converged(self) -> bool:
        """Whether the refit is certified to the tolerance, or in closed form."""
        return self.fit is None or self.fit.status is FitStatus.CONVERGED
