"""`solve_path`: every fold and every C of a problem, each fit with its certificate."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np

from featcache.errors import ProbeError
from featcache.heads.certificate import Certificate, certify
from featcache.heads.columns import Columns
from featcache.heads.design import Design
from featcache.heads.lbfgs import WarmPath, one_thread_each, usable_cores
from featcache.heads.linear import LinearHead, Loss

_FIRST_STOP = 0.1
"""The engine first stops at a gradient of this share of (tolerance x the last objective)."""

_TIGHTEN, _TIGHTENINGS = 4, 10
"""Where the gap is still too wide, the engine goes on to a quarter of the gradient, ten times."""


class FitStatus(enum.Enum):
    """How a fit ended; the text is advice."""

    CONVERGED = "converged: the certified gap is within the tolerance"
    TOLERANCE_MISSED = (
        "not converged: the certified gap is above the tolerance; use a smaller C or a looser "
        "tolerance, or standardise the features"
    )


@dataclass(frozen=True, eq=False)
class PathProblem:
    """Heads to be fitted on one set of features: every fold's training rows, at every C.

    Attributes:
        features: (n, D) float32.
        targets: (n,) int codes in 0..K-1; or (n, K) bool, several labels a row.
        n_classes: K.
        train: (F, n) bool: the rows that each fold's fits train on. The others have no influence
            at all on these fits: no number changes by a bit whatever they hold.
        grid: (G,) values of C.
        loss: "softmax", or "logistic" (one-vs-rest, or one column a label).
        standardize: divide by the standard deviation over each fold's training rows; it is folded
            into the returned head, which takes features as they are.
        tolerance: the certified relative gap at which a fit counts as converged.
    """

    features: np.ndarray
    targets: np.ndarray
    n_classes: int
    train: np.ndarray
    grid: np.ndarray
    loss: Loss = "softmax"
    standardize: bool = False
    tolerance: float = 1e-3


@dataclass(frozen=True, eq=False)
class Fit:
    """One fitted head and what is known of it.

    Attributes:
        fold: row of `PathProblem.train`.
        C: inverse strength of the penalty.
        head: for features as they were given (centring and scaling folded in, float32).
        objective: `objective.py`'s at the float64 solution, in the coordinates of the fit; for
            "logistic" the sum over the columns solved (one, where there are two classes).
        gap: proven upper bound of (objective - optimum) / objective.
        status: whether the gap is within the tolerance.
        iterations: of the engine, over all columns.
        seconds: spent on this fit.
        absent: classes with no training row; their probability is 0.
    """

    fold: int
    C: float
    head: LinearHead
    objective: float
    gap: float
    status: FitStatus
    iterations: int
    seconds: float
    absent: tuple[int, ...]


def solve_path(problem: PathProblem) -> Iterator[Fit]:
    """Fit every fold at every C, folds in parallel, each fold from the smallest C to the largest.

    Returns:
        An iterator over F x G fits, in no promised order; it solves while it is read.

    Raises:
        ProbeError: the problem's arrays disagree, or a fold's training rows hold a single class
            (at once, before the first fit).
    """
    _check(problem)
    return _solve_folds(problem)


def _solve_folds(problem: PathProblem) -> Iterator[Fit]:
    folds = range(len(problem.train))
    workers = min(usable_cores(), len(folds))
    with ThreadPoolExecutor(workers) as pool:
        for first in folds[::workers]:
            with one_thread_each():  # the process's setting: not to be held over a yield
                wave = folds[first : first + workers]
                paths = list(pool.map(partial(_solve_fold, problem), wave))
            for path in paths:
                yield from path


def _solve_fold(problem: PathProblem, fold: int) -> list[Fit]:
    rows = problem.train[fold]
    columns = Columns.of(problem.targets[rows], problem.n_classes, problem.loss)
    design = Design.of(problem.features[rows], problem.standardize)
    parts = [_Part(design.X, codes) for codes in columns.codes]
    fits: list[Fit] = []
    for C in np.sort(problem.grid).tolist():
        start = perf_counter()
        for part in parts:
            part.advance(C, problem.tolerance)
        proven = Certificate.of_sum(part.proven for part in parts)
        converged = proven.relative_gap <= problem.tolerance
        fits.append(
            Fit(
                fold=fold,
                C=C,
                head=_head(problem, columns, design, parts),
                objective=proven.objective,
                gap=proven.relative_gap,
                status=FitStatus.CONVERGED if converged else FitStatus.TOLERANCE_MISSED,
                iterations=sum(part.iterations for part in parts),
                seconds=perf_counter() - start,
                absent=columns.absent,
            )
        )
    return fits


class _Part:
    """One independent problem on its way along C: a softmax, or one logistic column."""

    def __init__(self, X: np.ndarray, codes: np.ndarray) -> None:
        self._engine = WarmPath(X, codes)
        self._X = X
        classes = int(codes.max()) + 1
        self._loss: Loss = "softmax" if classes > 2 else "logistic"
        self._Y = np.eye(classes)[codes] if classes > 2 else codes[:, np.newaxis].astype(np.float64)
        self.proven = Certificate(float(np.log(classes)), 0.0)  # of W = 0, b = 0
        self.coef, self.bias, self.iterations = np.empty(0), np.empty(0), 0

    def advance(self, C: float, tolerance: float) -> None:
        """Solve at this C; the gradient to stop at scales with the objective, as the gap does."""
        stop = _FIRST_STOP * tolerance * self.proven.objective
        self.iterations = 0
        for _ in range(_TIGHTENINGS + 1):
            self.coef, self.bias, iterations = self._engine.advance(C, stop)
            self.iterations += iterations
            self.proven = certify(self._loss, self._X, self._Y, self.coef, self.bias, C)
            if self.proven.relative_gap <= tolerance:
                return
            stop /= _TIGHTEN


def _head(problem: PathProblem, columns: Columns, design: Design, parts: list[_Part]) -> LinearHead:
    coef, bias = design.original(
        np.concatenate([part.coef for part in parts]), np.concatenate([part.bias for part in parts])
    )
    return LinearHead(
        problem.loss,
        (columns.spread @ coef).astype(np.float32),
        (columns.spread @ bias + columns.certain).astype(np.float32),
        multi_label=problem.targets.ndim == 2,
    )


def _check(problem: PathProblem) -> None:
    """Raise where the arrays disagree; each line says which and what was expected."""
    X, y, K, train = problem.features, problem.targets, problem.n_classes, problem.train
    n = len(X)
    problems = [
        (X.ndim != 2, f"features of shape {X.shape}; give (n, D)"),
        (
            y.shape not in ((n,), (n, K)),
            f"targets of shape {y.shape} for {n} rows and {K} classes; give (n,) or (n, K)",
        ),
        (
            y.dtype.kind != ("b" if y.ndim == 2 else "i"),
            f"targets of dtype {y.dtype}; give int codes (n,) or bool labels (n, K)",
        ),
        (
            y.ndim == 2 and problem.loss != "logistic",
            f"several labels a row with the loss {problem.loss!r}; use 'logistic'",
        ),
        (
            y.ndim == 1 and n > 0 and not (y.min() >= 0 and y.max() < K),
            f"codes outside 0..{K - 1}",
        ),
        (
            train.shape[1:] != (n,) or train.dtype != np.bool_ or not len(train),
            f"train of shape {train.shape} and dtype {train.dtype}; give (folds, {n}) bool",
        ),
        (
            problem.grid.ndim != 1
            or not len(problem.grid)
            or not bool(np.all(np.isfinite(problem.grid) & (problem.grid > 0))),
            f"grid {problem.grid}; give positive values of C",
        ),
        (not problem.tolerance > 0, f"tolerance {problem.tolerance}; give a positive number"),
    ]
    for wrong, message in problems:
        if wrong:
            raise ProbeError(f"probe: {message}")
    if not np.isfinite(X[train.any(axis=0)]).all():
        raise ProbeError(
            "probe: features of training rows are not finite; check the pictures and the "
            "backbone's weights and precision (`featcache verify`)"
        )
    for fold, rows in enumerate(train):
        try:
            Columns.of(y[rows], K, problem.loss)
        except ProbeError as error:
            raise ProbeError(f"fold {fold}: {error}") from error
