"""What a probe is asked, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
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
    """One C: accuracy and mean log-loss on held-out rows, and the mean's standard error."""

    C: float
    accuracy: float
    log_loss: float
    log_loss_error: float


@dataclass(frozen=True, eq=False)
class Probed:
    """A fitted head and what is known of it.

    Attributes:
        fit: the refit.
        path: scores by C on held-out rows of the training part.
        method: how the estimate came about.
        scores, interval: the estimate, on the judged rows.
        judged, trained: (n,) bool, rows of the estimate and rows of the refit.
        probabilities: (n, K) of every held-out row, NaN for a row that was never held out.
        confusion: (K, K) on the judged rows, given by predicted; (0, 0) for several labels.
        fits: how many heads were fitted; missed: how many of them have a certified gap over the
            tolerance.
        chosen: C of each outer fold of a nested cross-validation, else empty.
        seconds: of the whole.
        warnings: what a person should know, by name.
    """

    fit: Fit
    path: tuple[PathScore, ...]
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
    warnings: tuple[str, ...] = ()

    @property
    def one_error_C(self) -> float:  # noqa: N802 - the field's name
        """The smallest C whose log-loss is within one standard error of the least."""
        least = min(self.path, key=lambda point: point.log_loss)
        bound = least.log_loss + least.log_loss_error
        return min(point.C for point in self.path if point.log_loss <= bound)

    @property
    def head(self) -> LinearHead:
        """The refitted head."""
        return self.fit.head

    @property
    def converged(self) -> bool:
        """Whether the refit is certified to the tolerance."""
        return self.fit.status is FitStatus.CONVERGED
