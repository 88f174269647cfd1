"""The two sides of `heads.py`: the same fits by featcache and by scikit-learn.

Every function here is called in a process of its own and imports its libraries itself, so that
the memory of one side holds nothing of the other.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from measuring import Gauge, Usage

Solver = Literal["lbfgs", "newton-cholesky"]

MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Data:
    """Features (n, D) and codes (n,) on disk, `classes` of them."""

    folder: Path
    classes: int

    @property
    def features(self) -> np.ndarray:
        """Read into memory."""
        return np.load(self.folder / "features.npy")

    @property
    def mapped(self) -> np.ndarray:
        """A memory map."""
        return np.load(self.folder / "features.npy", mmap_mode="r")

    @property
    def targets(self) -> np.ndarray:
        """(n,) int64."""
        return np.load(self.folder / "targets.npy")


@dataclass(frozen=True, eq=False)
class Fitted:
    """One head: `coef` (K, D) and `bias` (K,); `gap` and `lower` where they are certified."""

    fold: int
    C: float
    seconds: float
    iterations: int
    coef: np.ndarray
    bias: np.ndarray
    gap: float | None = None
    lower: float | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """What one side did.

    Attributes:
        count: fits that `seconds` were spent on.
        seconds: everything between features in memory and heads in the features' coordinates.
        fits: those that are judged.
        missed: fits that said they did not converge.
        gap: the worst certified gap of all fits, or None.
        turning: of `seconds`, those spent on making heads of solutions.
    """

    count: int
    seconds: float
    usage: Usage
    fits: list[Fitted]
    missed: int
    gap: float | None = None
    turning: float = 0.0

    @property
    def each(self) -> float:
        """Seconds a fit."""
        return self.seconds / self.count


def ours(
    data: Data,
    folds: np.ndarray,
    grid: np.ndarray,
    tolerance: float,
    judged: int,
    memory: int = 2 << 30,
    *,
    mapped: bool = False,
    device: str = "cpu",
) -> Run:
    """`solve_path` of all folds (F, n), each fit made a head; those of the first folds are kept.

    Every fit is as the head that a probe gives away, so that objectives can be compared.
    """
    from featcache.heads.solver import AS_FLAT, FitStatus, PathProblem, solve_path

    features, targets = data.mapped if mapped else data.features, data.targets
    kept, gaps, missed, turning = list[Fitted](), list[float](), 0, 0.0
    with Gauge() as gauge:
        problem = PathProblem(
            features,
            targets,
            data.classes,
            folds,
            grid,
            tolerance=tolerance,
            gradient_tolerance=AS_FLAT,
            memory=memory,
            device=device,
        )
        for fit in solve_path(problem):
            started = time.perf_counter()
            head = fit.head
            turning += time.perf_counter() - started
            gaps.append(fit.gap)
            missed += fit.status is not FitStatus.CONVERGED
            if fit.fold < judged:
                lower = fit.objective * (1 - fit.gap)
                kept.append(
                    Fitted(
                        fit.fold,
                        fit.C,
                        fit.seconds,
                        fit.iterations,
                        head.coef,
                        head.bias,
                        fit.gap,
                        lower,
                    )
                )
    return Run(len(gaps), gauge.seconds, gauge.usage, kept, missed, max(gaps), turning)


def theirs(data: Data, folds: np.ndarray, grid: np.ndarray, solver: Solver) -> Run:
    """`LogisticRegression(C, max_iter=1000)`, else at its defaults, for every fold and C."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    features, targets = data.features, data.targets
    fits = list[Fitted]()
    with Gauge() as gauge, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        for fold, train in enumerate(folds):
            rows, codes = features[train], targets[train]
            for strength in grid.tolist():
                model = LogisticRegression(C=strength, solver=solver, max_iter=MAX_ITERATIONS)
                started = time.perf_counter()
                model.fit(rows, codes)
                seconds = time.perf_counter() - started
                steps = int(model.n_iter_.max())
                fits.append(Fitted(fold, strength, seconds, steps, model.coef_, model.intercept_))
    spent = sum(fit.seconds for fit in fits)
    return Run(len(fits), spent, gauge.usage, fits, _missed(caught))


def theirs_cv(data: Data, folds: np.ndarray, grid: np.ndarray) -> Run:
    """`LogisticRegressionCV` over the same folds and grid, its refit among the fits."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegressionCV

    features, targets = data.features, data.targets
    model = LogisticRegressionCV(
        Cs=grid,
        cv=[(np.flatnonzero(train), np.flatnonzero(~train)) for train in folds],
        max_iter=MAX_ITERATIONS,
        scoring="neg_log_loss",
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )
    with Gauge() as gauge, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, targets)
    count = len(folds) * len(grid) + 1
    each = gauge.seconds / count
    fits = [
        Fitted(fold, C, each, int(steps), weights[:, :-1], weights[:, -1])
        for fold, path in enumerate(model.coefs_paths_[:, 0])  # (folds, C, K, D + 1)
        for C, steps, weights in zip(grid.tolist(), model.n_iter_[fold, 0], path, strict=True)
    ]
    return Run(count, gauge.seconds, gauge.usage, fits, _missed(caught))


def _missed(caught: list[warnings.WarningMessage]) -> int:
    """Convergence warnings; any other is shown."""
    from sklearn.exceptions import ConvergenceWarning

    others = [w for w in caught if not issubclass(w.category, ConvergenceWarning)]
    for other in others:
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return len(caught) - len(others)


@dataclass(frozen=True)
class Nested:
    """Calls of the default probe: seconds of each, and what it found."""

    seconds: tuple[float, ...]
    fits: int
    missed: int
    accuracy: float
    usage: Usage


def ours_nested(data: Data, calls: int) -> Nested:
    """`fit_probe` as `featcache probe` calls it: nested cross-validation, 25 C, and the refit."""
    from featcache.probing import LabelledRows, ProbeSpec, fit_probe

    targets = data.targets
    order = np.arange(len(targets))
    rows = LabelledRows(
        features=data.features,
        targets=targets,
        classes=tuple(str(code) for code in range(data.classes)),
        splits=np.full(len(targets), -1, np.int8),
        groups=order,
        rows=order,
        hashes=np.random.default_rng(0).integers(256, size=(len(targets), 32), dtype=np.uint8),
    )
    spent = list[float]()
    with Gauge() as gauge:
        for _ in range(calls):
            started = time.perf_counter()
            probed = fit_probe(rows, ProbeSpec())
            spent.append(time.perf_counter() - started)
    return Nested(tuple(spent), probed.fits, probed.missed, probed.scores.accuracy, gauge.usage)


@dataclass(frozen=True)
class Shots:
    """Paths of few-shot support sets: accuracy (shot counts, seeds) at each set's best C."""

    count: int
    seconds: float
    missed: int
    gap: float
    accuracy: np.ndarray
    usage: Usage


def ours_shots(
    data: Data,
    supports: np.ndarray,
    grid: np.ndarray,
    memory: int = 2 << 30,
    device: str = "cpu",
) -> Shots:
    """One problem a shot count: support sets (shot counts, seeds, n), all other rows scored.

    The C of a set is the best on the rows scored, as protocols without a validation set do.
    """
    from featcache.heads.solver import FitStatus, PathProblem, solve_path

    features, targets = data.features, data.targets
    accuracy = np.zeros((*supports.shape[:2], len(grid)))
    gaps, missed = list[float](), 0
    with Gauge() as gauge:
        for train, found in zip(supports, accuracy, strict=True):
            problem = PathProblem(
                features,
                targets,
                data.classes,
                train,
                grid,
                score=~train,
                memory=memory,
                device=device,
            )
            for fit in solve_path(problem):
                right = fit.probabilities.argmax(axis=1) == targets[~train[fit.fold]]
                found[fit.fold, fit.position] = right.mean()
                gaps.append(fit.gap)
                missed += fit.status is not FitStatus.CONVERGED
    best = accuracy.max(axis=2)
    return Shots(len(gaps), gauge.seconds, missed, max(gaps), best, gauge.usage)


def ours_ridge(data: Data, grid: np.ndarray, memory: int, device: str = "cpu") -> Usage:
    """`solve_ridge` on a memory map to one-hot targets, a head for every C."""
    from featcache.heads.ridge import RidgeProblem, solve_ridge

    one_hot = np.zeros((len(data.targets), data.classes), np.bool_)
    one_hot[np.arange(len(one_hot)), data.targets] = True
    with Gauge() as gauge:
        path = solve_ridge(RidgeProblem(data.mapped, one_hot, grid, memory=memory, device=device))
        for at in range(len(grid)):
            path.fit(at)
    return gauge.usage
