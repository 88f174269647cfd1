"""The probe: paths over C on held-out rows, the choice, the refit, the estimate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.intervals import accuracy_interval
from featcache.evaluation.metrics import confusion, correct, losses, score
from featcache.evaluation.splits import Folds, stratified_folds
from featcache.heads.grid import default_grid
from featcache.heads.solver import Fit, FitStatus, PathProblem, solve_path
from featcache.probing.roles import assign_roles, class_warnings
from featcache.probing.rows import Bools, LabelledRows, Probabilities
from featcache.probing.spec import PathScore, Probed, ProbeSpec

Progress = Callable[[str, int, int], None]
"""Called with ("fit", done, total)."""

_VALUES = 25
"""Of C on the default grid: four a decade."""


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


class _HeldOut:
    """What held-out rows say of every C, gathered fit by fit.

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

    def add(self, fit: Fit, rows: npt.NDArray[np.int64]) -> None:
        """Take the fit's probabilities of some rows."""
        targets = self._targets[rows]
        self.losses[fit.position, rows] = losses(fit.probabilities, targets)
        self.right[fit.position, rows] = correct(fit.probabilities, targets)
        if len(self.probabilities):
            self.probabilities[fit.position, rows] = fit.probabilities

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


@dataclass(frozen=True, eq=False)
class _Path:
    """A path over C on training rows: what held-out rows said, and the head of all of them.

    Attributes:
        held_out: of the cross-validation within the rows.
        whole: (G,) fits on all of the rows.
    """

    held_out: _HeldOut
    whole: list[Fit]


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
        """Each outer fold is predicted by a head of the others, at the C that they chose.

        The fits of the others at every C predict the fold too, which is the cross-validation that
        chooses the C of the final head: position by position of the grid, which each outer fold
        places by its own rows (C times the features' mean square is what the folds share).
        """
        spec, data, train = self._spec, self._data, self._roles.train
        outer = self._folds(train, spec.folds)
        rests = [train & outer.train(fold) for fold in outer]
        inner = [self._inner_folds(rest) for rest in rests]
        grid = self._grid(train)
        self._expected = len(grid) * sum(folds.count + 1 for folds in inner) + 1
        probabilities = np.full((len(data), len(data.classes)), np.nan)
        held_out = _HeldOut(data, len(grid))
        chosen: list[float] = []
        for fold, rest, folds in zip(outer, rests, inner, strict=True):
            out = np.flatnonzero(outer.held_out == fold)
            path = self._cross_validate(rest, folds, score=outer.held_out == fold)
            for fit in path.whole:
                held_out.add(fit, out)
            best = path.whole[path.held_out.best]
            probabilities[out] = best.probabilities
            chosen.append(best.C)
        counts = sorted({folds.count for folds in inner})
        judged = self._judged(
            self._fit(train, float(grid[held_out.best])),
            held_out.path(grid),
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
        grid = self._grid(roles.train)
        self._expected = (folds.count + 1) * len(grid)
        path = self._cross_validate(roles.train, folds)
        return self._judged(
            path.whole[path.held_out.best],
            path.held_out.path(grid),
            folds,
            trained=roles.train,
            judged=roles.judged,
            probabilities=path.held_out.probabilities[path.held_out.best],
            method=f"{roles.measured} split; C by {folds.count}-fold cross-validation within train",
        )

    def _tuned_on_val(self) -> Probed:
        roles = self._roles
        grid = self._grid(roles.train)
        self._expected = len(grid) + 1
        held_out = _HeldOut(self._data, len(grid), keep=True)
        tuning = np.flatnonzero(roles.tuning)
        for fit in self._solve(roles.train[None], roles.tuning[None], grid):
            held_out.add(fit, tuning)
        trained = roles.train | roles.tuning
        return self._judged(
            self._fit(trained, float(grid[held_out.best])),
            held_out.path(grid),
            None,
            trained=trained,
            judged=roles.judged,
            probabilities=held_out.probabilities[held_out.best],
            method="test split; C on the val split, refit on train and val",
        )

    def _judged(
        self,
        fit: Fit,
        path: tuple[PathScore, ...],
        folds: Folds | None,
        *,
        trained: Bools,
        judged: Bools,
        probabilities: Probabilities,
        method: str,
    ) -> Probed:
        """Predict the rows of a split that the head did not see, and judge."""
        data = self._data
        unseen = judged & ~trained
        if unseen.any():
            probabilities[unseen] = fit.head.probabilities(data.features[unseen])
        given, targets = probabilities[judged], data.targets[judged]
        interval = accuracy_interval(correct(given, targets), data.groups[judged])
        return Probed(
            fit=fit,
            path=path,
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
        if given is not None:
            return np.unique(given)
        return default_grid(self._data.features[rows], _VALUES)

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

    def _cross_validate(self, rows: Bools, folds: Folds, score: Bools | None = None) -> _Path:
        """The path of each fold of some rows, and that of all of them, which scores `score`."""
        grid = self._grid(rows)
        train = np.stack([*(rows & folds.train(fold) for fold in folds), rows])
        scored = np.stack([*(folds.held_out == fold for fold in folds), np.zeros_like(rows)])
        if score is not None:
            scored[-1] = score
        held_out = _HeldOut(self._data, len(grid), keep=score is None)
        whole: list[Fit] = []
        for fit in self._solve(train, scored, grid):
            if fit.fold == folds.count:
                whole.append(fit)
            else:
                held_out.add(fit, np.flatnonzero(scored[fit.fold]))
        return _Path(held_out, whole)

    def _fit(self, rows: Bools, C: float) -> Fit:  # noqa: N803 - the field's name
        (fit,) = self._solve(rows[None], None, np.array([C]))
        return fit

    def _solve(
        self, train: Bools, scored: Bools | None, grid: npt.NDArray[np.float64]
    ) -> Iterator[Fit]:
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
            score=scored,
            balanced=spec.balanced,
            smoothing=spec.smoothing,
            memory=spec.memory,
            device=spec.device,
        )
        for fit in solve_path(problem):
            self._done += 1
            self._missed += fit.status is not FitStatus.CONVERGED
            if self._progress:
                self._progress("fit", self._done, self._expected)
            yield fit

    def _refuse_one_class(self, train: Bools) -> None:
        data = self._data
        if not self._multi and len(present := np.unique(data.targets[train])) == 1:
            raise ProbeError(
                f"{data.classes[present[0]]!r} is the only class to train on where others are held "
                "out; add training pictures of another class, or use fewer folds"
            )
