"""Folds, grids and fits of one probe: what every way to hold rows out is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.splits import Folds, stratified_folds
from featcache.heads.grid import default_grid
from featcache.heads.solver import AS_FLAT, Fit, FitStatus, PathProblem, solve_paths
from featcache.probing.judging import HeldOut
from featcache.probing.rows import Bools, LabelledRows
from featcache.probing.spec import ProbeSpec

Progress = Callable[[str, int, int], None]
"""Called with ("fit", done, total)."""

_VALUES = 25
"""Of C on the default grid: four a decade."""


def grid_of(data: LabelledRows, spec: ProbeSpec, rows: Bools) -> npt.NDArray[np.float64]:
    """(G,) values of C, placed by the features of `rows` alone unless they were given."""
    if spec.grid is not None:
        return np.unique(spec.grid)
    return default_grid(data.features, _VALUES, rows)


def split_folds(data: LabelledRows, rows: Bools, count: int, seed: int) -> Folds:
    """Folds of some rows; `held_out` is (n,) over all rows, -1 outside them."""
    folds = stratified_folds(data.targets[rows], data.groups[rows], count, seed)
    held_out = np.full(len(data), -1, np.int64)
    held_out[rows] = folds.held_out
    return replace(folds, held_out=held_out)


@dataclass(frozen=True, eq=False)
class Heads:
    """Heads to be solved: of each set of training rows (F, n) at every C, scoring rows (F, n).

    The tolerances are those of a `PathProblem`; None stands for the spec's.
    """

    train: Bools
    scored: Bools | None
    grid: npt.NDArray[np.float64]
    tolerance: npt.NDArray[np.float64] | None = None
    gradient_tolerance: float | npt.NDArray[np.float64] = np.inf


@dataclass(frozen=True, eq=False)
class Within:
    """A cross-validation within some rows (n,), and what the head of all of them scores (n,)."""

    rows: Bools
    folds: Folds
    score: Bools | None = None


@dataclass(frozen=True, eq=False)
class FittedPath:
    """A path over C on training rows: what held-out rows said, and the head of all of them.

    Attributes:
        held_out: of the cross-validation within the rows.
        whole: (G,) fits on all of the rows.
    """

    held_out: HeldOut
    whole: list[Fit]


class Solving:
    """Fits on the rows of one probe, counted.

    Attributes:
        expected: fits in all, for `progress`; to be set before the first one.
        done: fits so far. missed: those over the tolerance. worst: the largest certified gap.
    """

    def __init__(self, data: LabelledRows, spec: ProbeSpec, progress: Progress | None) -> None:
        self._data, self._spec, self._progress = data, spec, progress
        self._multi = data.targets.ndim == 2
        if self._multi and spec.loss != "logistic":
            several = int((data.targets.sum(axis=1) > 1).sum())
            raise ProbeError(
                f"{several} of {len(data)} pictures have several labels, which {spec.loss} cannot "
                "tell apart; give --head logistic"
            )
        self.expected = self.done = self.missed = 0
        self.worst = 0.0

    def warnings(self) -> tuple[str, ...]:
        """That fits missed the tolerance, if some did."""
        if not self.missed:
            return ()
        return (
            f"{self.missed} of {self.done} fits stopped over the tolerance of "
            f"{self._spec.tolerance:g}; their scores are those of the point reached",
        )

    def grid(self, rows: Bools) -> npt.NDArray[np.float64]:
        """See `grid_of`."""
        return grid_of(self._data, self._spec, rows)

    def folds(self, rows: Bools, count: int, seed: int | None = None) -> Folds:
        """See `split_folds`; the seed is the spec's unless another is given."""
        return split_folds(self._data, rows, count, self._spec.seed if seed is None else seed)

    def inner_folds(self, rows: Bools) -> Folds:
        """The folds that choose C within some rows.

        Raises:
            ProbeError: the rows are too few for any.
        """
        try:
            return self.folds(rows, self._spec.inner_folds)
        except ProbeError as error:
            raise ProbeError(
                "too few pictures to choose C without those of one fold; give every class at "
                f"least 3, or a val or test split ({error})"
            ) from error

    def cross_validate(self, rows: Bools, folds: Folds, score: Bools | None = None) -> FittedPath:
        """The path of each fold of some rows, and that of all of them, which scores `score`."""
        ((_, path),) = self.cross_validate_each([Within(rows, folds, score)])
        return path

    def cross_validate_each(self, asked: Sequence[Within]) -> Iterator[tuple[int, FittedPath]]:
        """`cross_validate` of each, with its position, as soon as it is there."""
        heads = [self._heads(within) for within in asked]
        left = [len(job.grid) * len(job.train) for job in heads]
        found: dict[int, FittedPath] = {}
        for at, fit in self.solve_each(heads):
            job = heads[at]
            if at not in found:
                keep = asked[at].score is None
                found[at] = FittedPath(HeldOut(self._data, len(job.grid), keep=keep), [])
            if fit.fold == len(job.train) - 1:
                found[at].whole.append(fit)
            elif job.scored is not None:
                rows = np.flatnonzero(job.scored[fit.fold])
                found[at].held_out.add(fit.position, rows, fit.probabilities)
            left[at] -= 1
            if not left[at]:
                yield at, found.pop(at)

    def _heads(self, within: Within) -> Heads:
        rows, folds = within.rows, within.folds
        train = np.stack([*(rows & folds.train(fold) for fold in folds), rows])
        scored = np.stack([*(folds.held_out == fold for fold in folds), np.zeros_like(rows)])
        if within.score is not None:
            scored[-1] = within.score
        return Heads(train, scored, self.grid(rows))

    def fit(self, rows: Bools, C: float) -> Fit:  # noqa: N803 - the field's name
        """The head of some rows at one C."""
        (fit,) = self.solve(Heads(rows[None], None, np.array([C]), gradient_tolerance=AS_FLAT))
        return fit

    def solve(self, heads: Heads) -> Iterator[Fit]:
        """All of them."""
        return (fit for _, fit in self.solve_each([heads]))

    def solve_each(self, asked: Sequence[Heads]) -> Iterator[tuple[int, Fit]]:
        """All of them, and at which position of `asked` each fit was asked for.

        A picture trains by all its views and is scored by the plain one.
        """
        for at, fit in solve_paths([self._problem(heads) for heads in asked]):
            self.done += 1
            self.missed += fit.status is not FitStatus.CONVERGED
            self.worst = max(self.worst, fit.gap)
            if self._progress:
                self._progress("fit", self.done, self.expected)
            yield at, fit

    def _problem(self, heads: Heads) -> PathProblem:
        spec, data, views = self._spec, self._data, self._data.views
        train, scored = heads.train, heads.scored
        for rows in train:
            self._refuse_one_class(rows)
        if views is not None:
            train = train[:, views.owners]
            scored = None if scored is None else views.plain_only(scored)
        return PathProblem(
            features=data.features if views is None else views.features,
            targets=data.targets if views is None else data.targets[views.owners],
            n_classes=len(data.classes),
            train=train,
            grid=heads.grid,
            loss=spec.loss,
            standardize=spec.standardize,
            tolerance=spec.tolerance if heads.tolerance is None else heads.tolerance,
            gradient_tolerance=heads.gradient_tolerance,
            score=scored,
            sample_weight=None if views is None else views.weights,
            balanced=spec.balanced,
            smoothing=spec.smoothing,
            prior=spec.prior,
            memory=spec.memory,
            device=spec.device,
        )

    def _refuse_one_class(self, train: Bools) -> None:
        data = self._data
        if not self._multi and len(present := np.unique(data.targets[train])) == 1:
            raise ProbeError(
                f"{data.classes[present[0]]!r} is the only class to train on where others are held "
                "out; add training pictures of another class, or use fewer folds"
            )
