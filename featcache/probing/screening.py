"""Ridge and neighbours: heads in closed form, for screening; what is held out costs no fit.

Both say of every training row what the other rows say of it (by picture, or by group),
so that choosing needs no inner folds: C of ridge by the least squared error (PRESS), the number of
neighbours by accuracy. What is measured on is held out as `probing` says, by outer folds or by the
data's own splits.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.metrics import correct, losses
from featcache.heads.knn import NEIGHBOURS, NeighbourProblem, knn_votes
from featcache.heads.ridge import RidgePath, RidgeProblem, solve_ridge
from featcache.probing.judging import judge
from featcache.probing.roles import assign_roles, class_warnings
from featcache.probing.rows import Bools, LabelledRows, Probabilities
from featcache.probing.solving import Progress, grid_of, split_folds
from featcache.probing.spec import PathScore, Probed, ProbeSpec

ScreenHead = Literal["ridge", "knn"]


class _Scores(Protocol):
    """What training rows say of all rows, by candidate; of a training row, the others' word."""

    def path(self, rows: Bools) -> tuple[PathScore, ...]:
        """Each candidate on some rows."""
        ...

    def scores(self, at: int) -> Probabilities:
        """(n, K) of one candidate."""
        ...


class _Ridge:
    """Ridge to one-hot targets (several labels: 0 and 1) over the grid of C, on all views."""

    def __init__(self, data: LabelledRows, spec: ProbeSpec, train: Bools) -> None:
        self._targets = _one_hot(data)
        self._data, self._grid = data, grid_of(data, spec, train)
        views = data.views
        own = np.arange(len(data)) if views is None else views.owners
        weights = _balanced(data.targets, train)[own] if spec.balanced else None
        if views is not None:  # one group, so all are left out together
            weights = views.weights * (1 if weights is None else weights)
        self._path: RidgePath = solve_ridge(
            RidgeProblem(
                data.features if views is None else views.features,
                self._targets[own],
                self._grid,
                train=train[own],
                groups=data.groups[own],
                weights=weights,
                memory=spec.memory,
                device=spec.device,
            )
        )

    def path(self, rows: Bools) -> tuple[PathScore, ...]:
        """Each C on some rows."""
        found: list[PathScore] = []
        for at, strength in enumerate(self._grid.tolist()):
            given = self.scores(at)[rows]
            right = correct(given, self._data.targets[rows]).mean()
            error = np.square(given - self._targets[rows]).mean()
            found.append(PathScore(strength, float(right), squared_error=float(error)))
        return tuple(found)

    def scores(self, at: int) -> Probabilities:
        """(n, K) of one C, of the plain views."""
        return self._path.held_out(at)[: len(self._data)]


class _Neighbours:
    """Votes of the nearest rows, by cosine, for every number of them; of plain views alone."""

    def __init__(self, data: LabelledRows, spec: ProbeSpec, train: Bools) -> None:
        self._data = data
        self._votes = knn_votes(
            NeighbourProblem(
                data.features,
                data.targets,
                len(data.classes),
                train=train,
                groups=data.groups,
                memory=spec.memory,
                device=spec.device,
            )
        )

    def path(self, rows: Bools) -> tuple[PathScore, ...]:
        """Each number of neighbours on some rows."""
        targets = self._data.targets[rows]
        found: list[PathScore] = []
        for number, votes in zip(NEIGHBOURS, self._votes, strict=True):
            lost = losses(votes[rows], targets)
            found.append(
                PathScore(
                    None,
                    float(correct(votes[rows], targets).mean()),
                    float(lost.mean()),
                    float(lost.std(ddof=1) / np.sqrt(len(lost))),
                    neighbours=number,
                )
            )
        return tuple(found)

    def scores(self, at: int) -> Probabilities:
        """(n, K) of one number of neighbours."""
        return self._votes[at]


_HEADS: dict[str, type[_Ridge | _Neighbours]] = {"ridge": _Ridge, "knn": _Neighbours}


def fit_screen(
    head: ScreenHead, data: LabelledRows, spec: ProbeSpec, progress: Progress | None = None
) -> Probed:
    """Judge ridge or neighbours.

    Args:
        head: "ridge" (C by leave-one-out squared error) or "knn" (k by leave-one-out accuracy).
        data: see `labelled_rows`.
        spec: folds, seed, memory, device and grid; `balanced` for ridge.
        progress: called with ("fit", done, total).

    Raises:
        ProbeError: the labels do not allow it, or the spec asks for what such a head has not.
    """
    if head not in get_args(ScreenHead):
        raise ProbeError(f"head {head!r}: unknown; give ridge or knn")
    _refuse(head, data, spec)
    return _Screening(head, data, spec, progress).run()


def _refuse(head: ScreenHead, data: LabelledRows, spec: ProbeSpec) -> None:
    options = [
        ("--standardize", spec.standardize),
        ("--label-smoothing", spec.smoothing > 0),
        ("--init-from-source", spec.prior is not None),
        ("--class-weight", spec.balanced and (head == "knn" or data.targets.ndim == 2)),
    ]
    for name, given in options:
        if given:
            raise ProbeError(f"head {head!r} does not know {name}; leave it out, or use softmax")


class _Screening:
    """One screen; the state is what its parts share."""

    def __init__(
        self, head: ScreenHead, data: LabelledRows, spec: ProbeSpec, progress: Progress | None
    ) -> None:
        self._head, self._data, self._spec, self._progress = head, data, spec, progress
        self._roles = assign_roles(data)
        self._done = self._expected = 0

    def run(self) -> Probed:
        started = time.perf_counter()
        if self._roles.tuning.any():
            probed = self._tuned_on_val()
        elif self._roles.judged.any():
            probed = self._tuned_within_train()
        else:
            probed = self._nested()
        warnings = (*self._roles.warnings, *probed.warnings)
        return replace(
            probed, fits=self._done, seconds=time.perf_counter() - started, warnings=warnings
        )

    def _nested(self) -> Probed:
        """Each outer fold is scored by the others, at the candidate that they chose."""
        train = self._roles.train
        outer = split_folds(self._data, train, self._spec.folds, self._spec.seed)
        self._expected = outer.count + 1
        scores = np.full((len(self._data), len(self._data.classes)), np.nan)
        for fold in outer:
            rest = train & outer.train(fold)
            found = self._fit(rest)
            out = outer.held_out == fold
            scores[out] = found.scores(_best(found.path(rest)))[out]
        path = self._fit(train).path(train)
        method = f"{outer.count}-fold cross-validation, {self._chosen_by} within each"
        warnings = class_warnings(self._data, train, outer, self._spec.folds)
        judged = outer.held_out >= 0
        return replace(self._judged(path, train, judged, scores, method), warnings=warnings)

    def _tuned_within_train(self) -> Probed:
        roles = self._roles
        self._expected = 1
        found = self._fit(roles.train)
        path = found.path(roles.train)
        scores = _only(found.scores(_best(path)), roles.train | roles.judged)
        method = f"{roles.measured} split; {self._chosen_by} within train"
        return self._judged(path, roles.train, roles.judged, scores, method)

    def _tuned_on_val(self) -> Probed:
        roles = self._roles
        self._expected = 2
        tuning = self._fit(roles.train)
        path = tuning.path(roles.tuning)
        best = _best(path)
        trained = roles.train | roles.tuning
        scores = _only(tuning.scores(best), roles.tuning)
        strength = path[best].C
        refit = self._fit(trained, None if strength is None else (strength,))
        measured = refit.scores(best if strength is None else 0)
        scores[roles.judged] = measured[roles.judged]
        method = f"test split; {self._what} on the val split, refit on train and val"
        return self._judged(path, trained, roles.judged, scores, method)

    def _fit(self, rows: Bools, grid: tuple[float, ...] | None = None) -> _Scores:
        spec = replace(self._spec, grid=grid) if grid else self._spec
        found = _HEADS[self._head](self._data, spec, rows)
        self._done += 1
        if self._progress:
            self._progress("fit", self._done, self._expected)
        return found

    @property
    def _what(self) -> str:
        return "C" if self._head == "ridge" else "k"

    @property
    def _chosen_by(self) -> str:
        by = "squared error" if self._head == "ridge" else "accuracy"
        return f"{self._what} by exact leave-one-out {by}"

    def _judged(
        self,
        path: tuple[PathScore, ...],
        trained: Bools,
        judged: Bools,
        scores: Probabilities,
        method: str,
    ) -> Probed:
        shares = self._head == "knn"
        scored, interval, counts = judge(self._data, judged, scores)
        return Probed(
            fit=None,
            path=path,
            best=_best(path),
            method=method,
            scores=scored if shares else replace(scored, log_loss=None),
            interval=interval,
            judged=judged,
            trained=trained,
            probabilities=scores if shares else np.full_like(scores, np.nan),
            confusion=counts,
            warnings=class_warnings(self._data, trained, None, self._spec.folds),
        )


def _best(path: tuple[PathScore, ...]) -> int:
    """The least squared error, else the best accuracy; the first of equals."""

    def worse(at: int) -> float:
        error = path[at].squared_error
        return -path[at].accuracy if error is None else error

    return min(range(len(path)), key=worse)


def _only(scores: Probabilities, rows: Bools) -> Probabilities:
    kept = np.full_like(scores, np.nan)
    kept[rows] = scores[rows]
    return kept


def _one_hot(data: LabelledRows) -> npt.NDArray[np.bool_]:
    if data.targets.ndim == 2:
        return data.targets
    return np.arange(len(data.classes)) == data.targets[:, None]


def _balanced(targets: npt.NDArray[Any], train: Bools) -> npt.NDArray[np.float64]:
    """(n,) weights that give every class of the training rows the same weight in all."""
    rows = np.bincount(targets[train], minlength=int(targets.max()) + 1)
    present = (rows > 0).sum()
    return train.sum() / (present * np.maximum(rows, 1))[targets]
