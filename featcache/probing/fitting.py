"""The probe: paths over C on held-out rows, the choice, the refit, the estimate."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from featcache.evaluation.splits import Folds
from featcache.heads.solver import Fit
from featcache.probing.judging import HeldOut, judge, predict
from featcache.probing.roles import assign_roles, class_warnings
from featcache.probing.rows import Bools, LabelledRows, Probabilities
from featcache.probing.solving import Progress, Solving
from featcache.probing.spec import PathScore, Probed, ProbeSpec


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


class _Probing:
    """One probe; the state is what its parts share."""

    def __init__(self, data: LabelledRows, spec: ProbeSpec, progress: Progress | None) -> None:
        self._data, self._spec = data, spec
        self._solving = Solving(data, spec, progress)
        self._roles = assign_roles(data)

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
            fits=self._solving.done,
            missed=self._solving.missed,
            seconds=time.perf_counter() - started,
            warnings=(*self._roles.warnings, *probed.warnings, *self._solving.warnings()),
        )

    # Three ways to hold out

    def _nested(self) -> Probed:
        """Each outer fold is predicted by a head of the others, at the C that they chose.

        The fits of the others at every C predict the fold too, which is the cross-validation that
        chooses the C of the final head: position by position of the grid, which each outer fold
        places by its own rows (C times the features' mean square is what the folds share).
        """
        data, train, solving = self._data, self._roles.train, self._solving
        outer = solving.folds(train, self._spec.folds)
        rests = [train & outer.train(fold) for fold in outer]
        inner = [solving.inner_folds(rest) for rest in rests]
        grid = solving.grid(train)
        solving.expected = len(grid) * sum(folds.count + 1 for folds in inner) + 1
        probabilities = np.full((len(data), len(data.classes)), np.nan)
        held_out = HeldOut(data, len(grid))
        chosen: list[float] = []
        for fold, rest, folds in zip(outer, rests, inner, strict=True):
            out = np.flatnonzero(outer.held_out == fold)
            path = solving.cross_validate(rest, folds, score=outer.held_out == fold)
            for fit in path.whole:
                held_out.add(fit.position, out, fit.probabilities)
            best = path.whole[path.held_out.best]
            probabilities[out] = best.probabilities
            chosen.append(best.C)
        counts = sorted({folds.count for folds in inner})
        judged = self._judged(
            solving.fit(train, float(grid[held_out.best])),
            held_out.path(grid),
            held_out.best,
            outer,
            trained=train,
            judged=outer.held_out >= 0,
            probabilities=probabilities,
            method=f"nested cross-validation ({outer.count} outer, "
            f"{' to '.join(map(str, counts))} inner folds)",
        )
        return replace(judged, chosen=tuple(chosen))

    def _tuned_within_train(self) -> Probed:
        roles, solving = self._roles, self._solving
        folds = solving.folds(roles.train, self._spec.folds)
        grid = solving.grid(roles.train)
        solving.expected = (folds.count + 1) * len(grid)
        path = solving.cross_validate(roles.train, folds)
        return self._judged(
            path.whole[path.held_out.best],
            path.held_out.path(grid),
            path.held_out.best,
            folds,
            trained=roles.train,
            judged=roles.judged,
            probabilities=path.held_out.probabilities[path.held_out.best],
            method=f"{roles.measured} split; C by {folds.count}-fold cross-validation within train",
        )

    def _tuned_on_val(self) -> Probed:
        roles, solving = self._roles, self._solving
        grid = solving.grid(roles.train)
        solving.expected = len(grid) + 1
        held_out = HeldOut(self._data, len(grid), keep=True)
        tuning = np.flatnonzero(roles.tuning)
        for fit in solving.solve(roles.train[None], roles.tuning[None], grid):
            held_out.add(fit.position, tuning, fit.probabilities)
        trained = roles.train | roles.tuning
        return self._judged(
            solving.fit(trained, float(grid[held_out.best])),
            held_out.path(grid),
            held_out.best,
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
        best: int,
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
            probabilities[unseen] = predict(fit.head, data, unseen)
        scores, interval, counts = judge(data, judged, probabilities)
        return Probed(
            fit=fit,
            path=path,
            best=best,
            method=method,
            scores=scores,
            interval=interval,
            judged=judged,
            trained=trained,
            probabilities=probabilities,
            confusion=counts,
            warnings=class_warnings(data, trained, folds, self._spec.folds),
        )
