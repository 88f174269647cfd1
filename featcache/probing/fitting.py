"""The probe: paths over C on held-out rows, the choice, the refit, the estimate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.intervals import accuracy_interval
from featcache.evaluation.metrics import Scores, confusion, correct, log_loss, score
from featcache.evaluation.splits import Folds, stratified_folds
from featcache.heads.grid import default_grid
from featcache.heads.solver import Fit, FitStatus, PathProblem, solve_path
from featcache.probing.roles import assign_roles, class_warnings
from featcache.probing.rows import Bools, LabelledRows, Probabilities
from featcache.probing.spec import Probed, ProbeSpec

Progress = Callable[[str, int, int], None]
"""Called with ("fit", done, total)."""


def fit_probe(data: LabelledRows, spec: ProbeSpec, progress: Progress | None = None) -> Probed:
    """Fit and judge a head.

    Args:
        data: see `labelled_rows`.
        spec: see `ProbeSpec`.
        progress: called with ("fit", done, total).

    Raises:
        ProbeError: the labels do not allow it; names the class and says what to do.
    """
    return _Probing(data, spec, progress).run()


@dataclass(frozen=True, eq=False)
class _Path:
    """Held-out predictions at every C.

    Attributes:
        grid: (G,) values of C, ascending.
        probabilities: (G, n, K), NaN where a row was not held out.
        measured: (n,) bool, the rows that were held out.
    """

    grid: npt.NDArray[np.float64]
    probabilities: Probabilities
    measured: Bools

    def best(self, targets: npt.NDArray[Any]) -> int:
        """Position of the C with the least held-out log-loss; the smaller C where equal."""
        rows = self.measured
        return int(np.argmin([log_loss(p[rows], targets[rows]) for p in self.probabilities]))

    def scores(self, targets: npt.NDArray[Any]) -> tuple[tuple[float, Scores], ...]:
        """(C, scores) at every C."""
        return tuple(
            (C, score(p[self.measured], targets[self.measured]))
            for C, p in zip(self.grid.tolist(), self.probabilities, strict=True)
        )


class _Probing:
    """One probe; the state is what its parts share."""

    def __init__(self, data: LabelledRows, spec: ProbeSpec, progress: Progress | None) -> None:
        self._data, self._spec, self._progress = data, spec, progress
        self._multi = data.targets.ndim == 2
        if self._multi and spec.loss != "logistic":
            several = int((data.targets.sum(axis=1) > 1).sum())
            raise ProbeError(
                f"{several} of {len(data)} pictures have several labels, which {spec.loss} cannot "
                "tell apart; give --head logistic"
            )
        self._roles = assign_roles(data)
        self._expected = self._done = self._missed = 0

    def run(self) -> Probed:
        started = time.perf_counter()
        if self._roles.tuning.any():
            probed = self._tuned_on_val()
        elif self._roles.judged.any():
            probed = self._tuned_within_train()
        else:
            probed = self._nested()
        return replace(
            probed,
            fits=self._done,
            missed=self._missed,
            seconds=time.perf_counter() - started,
            warnings=(*self._roles.warnings, *probed.warnings, *self._missed_warning()),
        )

    def _missed_warning(self) -> tuple[str, ...]:
        if not self._missed:
            return ()
        return (
            f"{self._missed} of {self._done} fits stopped over the tolerance of "
            f"{self._spec.tolerance:g}; their scores are those of the point reached",
        )

    # Three ways to hold out

    def _nested(self) -> Probed:
        spec, features, train = self._spec, self._data.features, self._roles.train
        outer = self._folds(train, spec.folds)
        rests = [train & outer.train(fold) for fold in outer]
        inner = [self._inner_folds(rest) for rest in rests]
        values = len(self._grid(train))
        self._expected = 1 + outer.count * (values + 1)
        self._expected += sum(folds.count for folds in inner) * values
        probabilities = _empty(len(self._data), len(self._data.classes))
        chosen: list[float] = []
        for fold, rest, folds in zip(outer, rests, inner, strict=True):
            fit = self._fit(rest, self._cross_validate(rest, folds))
            out = outer.held_out == fold
            probabilities[out] = fit.head.probabilities(features[out])
            chosen.append(fit.C)
        counts = sorted({folds.count for folds in inner})
        judged = self._judged(
            self._cross_validate(train, outer),
            outer,
            trained=train,
            judged=outer.held_out >= 0,
            probabilities=probabilities,
            method=f"nested cross-validation ({outer.count} outer, "
            f"{' to '.join(map(str, counts))} inner folds)",
        )
        return replace(judged, chosen=tuple(chosen))

    def _tuned_within_train(self) -> Probed:
        roles = self._roles
        folds = self._folds(roles.train, self._spec.folds)
        self._expected = folds.count * len(self._grid(roles.train)) + 1
        path = self._cross_validate(roles.train, folds)
        return self._judged(
            path,
            folds,
            trained=roles.train,
            judged=roles.judged,
            probabilities=path.probabilities[path.best(self._data.targets)],
            method=f"{roles.measured} split; C by {folds.count}-fold cross-validation within train",
        )

    def _tuned_on_val(self) -> Probed:
        roles = self._roles
        grid = self._grid(roles.train)
        self._expected = len(grid) + 1
        path = self._predict(roles.train[None, :], np.where(roles.tuning, 0, -1), grid)
        return self._judged(
            path,
            None,
            trained=roles.train | roles.tuning,
            judged=roles.judged,
            probabilities=path.probabilities[path.best(self._data.targets)],
            method="test split; C on the val split, refit on train and val",
        )

    def _judged(
        self,
        path: _Path,
        folds: Folds | None,
        *,
        trained: Bools,
        judged: Bools,
        probabilities: Probabilities,
        method: str,
    ) -> Probed:
        """Refit at the best C, predict the rows of a split it did not see, and judge."""
        data = self._data
        fit = self._fit(trained, path)
        unseen = judged & ~trained
        if unseen.any():
            probabilities[unseen] = fit.head.probabilities(data.features[unseen])
        given, targets = probabilities[judged], data.targets[judged]
        interval = accuracy_interval(correct(given, targets), data.groups[judged])
        return Probed(
            fit=fit,
            path=path.scores(data.targets),
            method=f"{method}; interval: {interval.method}",
            scores=score(given, targets),
            interval=interval,
            judged=judged,
            trained=trained,
            probabilities=probabilities,
            confusion=self._confusion(given, targets),
            warnings=class_warnings(data, trained, folds, self._spec.folds),
        )

    def _confusion(
        self, probabilities: Probabilities, targets: npt.NDArray[Any]
    ) -> npt.NDArray[np.int64]:
        if self._multi:
            return np.zeros((0, 0), np.int64)
        return confusion(probabilities.argmax(axis=1), targets, len(self._data.classes))

    # Folds and fits

    def _grid(self, rows: Bools) -> npt.NDArray[np.float64]:
        """(G,) values of C, placed by the features of `rows` alone unless they were given."""
        given = self._spec.grid
        return default_grid(self._data.features[rows]) if given is None else np.unique(given)

    def _folds(self, rows: Bools, count: int) -> Folds:
        """Folds of some rows; `held_out` is (n,) over all rows, -1 outside them."""
        data = self._data
        folds = stratified_folds(data.targets[rows], data.groups[rows], count, self._spec.seed)
        held_out = np.full(len(data), -1, np.int64)
        held_out[rows] = folds.held_out
        return replace(folds, held_out=held_out)

    def _inner_folds(self, rows: Bools) -> Folds:
        try:
            return self._folds(rows, self._spec.inner_folds)
        except ProbeError as error:
            raise ProbeError(
                "too few pictures to choose C without those of one fold; give every class at "
                f"least 3, or a val or test split ({error})"
            ) from error

    def _cross_validate(self, rows: Bools, folds: Folds) -> _Path:
        train = np.stack([rows & folds.train(fold) for fold in folds])
        return self._predict(train, folds.held_out, self._grid(rows))

    def _predict(
        self, train: Bools, held_out: npt.NDArray[np.int64], grid: npt.NDArray[np.float64]
    ) -> _Path:
        """Predict the held-out rows of each fold, fitted on that fold's rows of `train` (F, n)."""
        data = self._data
        probabilities = np.stack([_empty(len(data), len(data.classes))] * len(grid))
        position = {C: g for g, C in enumerate(grid.tolist())}
        for fit in self._solve(train, grid):
            out = held_out == fit.fold
            probabilities[position[fit.C], out] = fit.head.probabilities(data.features[out])
        return _Path(grid, probabilities, held_out >= 0)

    def _fit(self, rows: Bools, path: _Path) -> Fit:
        """One head, at the C that a path chooses."""
        best = path.best(self._data.targets)
        (fit,) = self._solve(rows[None, :], path.grid[best : best + 1])
        return fit

    def _solve(self, train: Bools, grid: npt.NDArray[np.float64]) -> list[Fit]:
        spec, data = self._spec, self._data
        for rows in train:
            self._refuse_one_class(rows)
        problem = PathProblem(
            features=data.features,
            targets=data.targets,
            n_classes=len(data.classes),
            train=train,
            grid=grid,
            loss=spec.loss,
            standardize=spec.standardize,
            tolerance=spec.tolerance,
        )
        fits: list[Fit] = []
        for fit in solve_path(problem):
            fits.append(fit)
            self._done += 1
            self._missed += fit.status is not FitStatus.CONVERGED
            if self._progress:
                self._progress("fit", self._done, self._expected)
        return fits

    def _refuse_one_class(self, train: Bools) -> None:
        data = self._data
        if not self._multi and len(present := np.unique(data.targets[train])) == 1:
            raise ProbeError(
                f"{data.classes[present[0]]!r} is the only class to train on where others are held "
                "out; add training pictures of another class, or use fewer folds"
            )


def _empty(n: int, classes: int) -> Probabilities:
    return np.full((n, classes), np.nan)
