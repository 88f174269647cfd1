"""The probe: paths over C on held-out rows, the choice, the refit, the estimate."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from featcache.evaluation.metrics import correct
from featcache.evaluation.nested import DesignEffect, LeftOut
from featcache.evaluation.splits import Folds
from featcache.heads.solver import AS_FLAT, Fit
from featcache.probing.judging import HeldOut, accuracy_on, judge, predict
from featcache.probing.roles import assign_roles, class_warnings
from featcache.probing.rows import Bools, LabelledRows, Probabilities
from featcache.probing.solving import Heads, Progress, Solving, Within
from featcache.probing.spec import PathScore, Probed, ProbeSpec

_PARTITIONS = 10
"""Of the rows, whose folds tell what training adds to an interval."""

_FEWEST_FOLDS = 3
"""That can tell: two of them are left out at once."""

_ROUGHLY = 1e-2
"""Tolerance of those heads, of which only right and wrong are counted."""


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
        left_out = self._left_out(outer.count)
        more = len(left_out) if left_out else 0
        solving.expected = len(grid) * sum(folds.count + 1 for folds in inner) + 1 + more
        probabilities = np.full((len(data), len(data.classes)), np.nan)
        held_out = HeldOut(data, len(grid))
        chosen, on_training = np.zeros(outer.count), np.zeros(outer.count)
        asked = [
            Within(rest, folds, score=outer.held_out == fold)
            for fold, rest, folds in zip(outer, rests, inner, strict=True)
        ]
        for fold, path in solving.cross_validate_each(asked):
            out = np.flatnonzero(outer.held_out == fold)
            for fit in path.whole:
                held_out.add(fit.position, out, fit.probabilities)
            best = path.whole[path.held_out.best]
            probabilities[out] = best.probabilities
            chosen[fold] = best.C
            on_training[fold] = accuracy_on(best.head, data, rests[fold])
        counts = sorted({folds.count for folds in inner})
        fit, effect = self._whole(float(grid[held_out.best]), left_out)
        judged = self._judged(
            fit,
            held_out.path(grid),
            held_out.best,
            outer,
            trained=train,
            judged=outer.held_out >= 0,
            probabilities=probabilities,
            method=f"nested cross-validation ({outer.count} outer, "
            f"{' to '.join(map(str, counts))} inner folds)",
            effect=effect,
            train_accuracy=float(on_training.mean()),
        )
        return replace(judged, chosen=tuple(chosen.tolist()))

    def _left_out(self, folds: int) -> LeftOut | None:
        """Other partitions of the same rows, for what training adds to the interval."""
        if folds < _FEWEST_FOLDS:
            return None
        seeds = ((self._spec.seed + 1 + number) % 2**32 for number in range(_PARTITIONS))
        return LeftOut([self._solving.folds(self._roles.train, folds, seed) for seed in seeds])

    def _whole(self, strength: float, left_out: LeftOut | None) -> tuple[Fit, DesignEffect | None]:
        """The head of all rows, and what training adds to the variance of the estimate.

        Solved at once: the many heads that tell the second (`evaluation.nested`) hardly notice one
        more, which alone would take as many steps.
        """
        data, train, solving = self._data, self._roles.train, self._solving
        if left_out is None:
            return solving.fit(train, strength), None
        many = len(left_out)
        heads = Heads(
            np.vstack([left_out.train & train, train]),
            np.vstack([left_out.held_out, np.zeros_like(train)]),
            np.array([strength]),
            np.append(np.full(many, max(self._spec.tolerance, _ROUGHLY)), self._spec.tolerance),
            np.append(np.full(many, np.inf), AS_FLAT),
        )
        right, whole = np.zeros(left_out.held_out.shape, np.bool_), list[Fit]()
        for fit in solving.solve(heads):
            if fit.fold == many:
                whole.append(fit)
            else:
                rows = left_out.held_out[fit.fold]
                right[fit.fold, rows] = correct(fit.probabilities, data.targets[rows])
        return whole[0], left_out.design_effect(right, data.groups)

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
        for fit in solving.solve(Heads(roles.train[None], roles.tuning[None], grid)):
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
        effect: DesignEffect | None = None,
        train_accuracy: float | None = None,
    ) -> Probed:
        """Predict the rows of a split that the head did not see, and judge.

        It is this head that is judged unless a training accuracy of others is given.
        """
        data = self._data
        unseen = judged & ~trained
        if unseen.any():
            probabilities[unseen] = predict(fit.head, data, unseen)
        if train_accuracy is None:
            train_accuracy = accuracy_on(fit.head, data, trained)
        scores, interval, counts = judge(data, judged, probabilities, effect)
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
            train_accuracy=train_accuracy,
            warnings=class_warnings(data, trained, folds, self._spec.folds),
        )
