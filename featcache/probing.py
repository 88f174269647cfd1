"""Store -> fitted heads: choose C on held-out rows, estimate honestly, refit.

What is held out depends on the data:

    no split            nested cross-validation: each outer fold is predicted by a head whose C was
                        chosen by inner folds of the other outer folds; refit on all rows
    train, test         C by cross-validation within train; refit on train; measured on test
    train, val, test    C on val; refit on train and val; measured on test
    train, val          C by cross-validation within train; refit on train; measured on val, which
                        therefore chooses nothing

Rows that share a content or a group are never on both sides. Nothing fitted sees a held-out row.
The head that is measured on test or val is the head that is returned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.intervals import Interval, accuracy_interval
from featcache.evaluation.metrics import Scores, confusion, correct, score
from featcache.evaluation.splits import join_groups, stratified_folds
from featcache.heads.grid import default_grid
from featcache.heads.linear import LinearHead, Loss
from featcache.heads.solver import Fit, FitStatus, PathProblem, solve_path
from featcache.recipe import PENULTIMATE
from featcache.store.cache import Cache
from featcache.store.index import SPLITS, Index

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

_VAL, _TEST = SPLITS.index("val"), SPLITS.index("test")
_NAMED = 5


@dataclass(frozen=True)
class ProbeSpec:
    """How heads are fitted and judged.

    Attributes:
        loss: "softmax" or "logistic".
        folds: outer folds of the cross-validation; inner_folds: those that choose C within them.
        seed: of the folds.
        standardize: scale columns to unit variance by the rows a fit trains on.
        tolerance: on the certified gap.
        grid: values of C; None places them by the features.
        cut: which activations.
    """

    loss: Loss = "softmax"
    folds: int = 5
    inner_folds: int = 3
    seed: int = 0
    standardize: bool = False
    tolerance: float = 1e-3
    grid: tuple[float, ...] | None = None
    cut: str = PENULTIMATE


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """The rows of a cache that have labels and activations.

    Attributes:
        features: (n, D) float32. targets: (n,) int codes, or (n, K) bool for several labels.
        classes: K names. splits: (n,) int8. groups: (n,) int64, one id for rows that belong
            together. rows: (n,) their rows in the index.
    """

    features: Floats
    targets: npt.NDArray[Any]
    classes: tuple[str, ...]
    splits: npt.NDArray[np.int8]
    groups: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, eq=False)
class Probed:
    """A fitted head and what is known of it.

    Attributes:
        fit: the refit. path: (C, scores on held-out rows of the training part).
        method: how the estimate came about. scores, interval: the estimate, on `judged` rows.
        probabilities: (n, K) of every held-out row, NaN for a row that was never held out.
        held_out: (n,) bool. confusion: (K, K) on the judged rows.
        missed: fits of the path whose certified gap is over the tolerance.
        warnings: what a person should know, by name.
    """

    fit: Fit
    path: tuple[tuple[float, Scores], ...]
    method: str
    scores: Scores
    interval: Interval
    judged: Bools
    trained: Bools
    probabilities: Floats
    confusion: npt.NDArray[np.int64]
    fits: int
    missed: int
    seconds: float
    warnings: tuple[str, ...] = field(default_factory=tuple)

    @property
    def head(self) -> LinearHead:
        """The refitted head."""
        return self.fit.head

    @property
    def converged(self) -> bool:
        """Whether the refit is certified to the tolerance."""
        return self.fit.status is FitStatus.CONVERGED


def labelled_rows(cache: Cache, cut: str = PENULTIMATE) -> LabelledRows:
    """Read what a probe needs.

    Raises:
        CacheIncompleteError: rows were never computed (an interrupted extraction).
        ProbeError: no labels, or fewer than two classes.
    """
    index, reader = cache.index, cache.stream(cut)
    labelled = index.label_counts > 0
    if not labelled.any():
        raise ProbeError(
            f"{cache.folder}: none of its {len(index)} samples has a label; extract class folders "
            "or a CSV with labels into the same cache, nothing is computed again"
        )
    keys = [content.tobytes() for content in index.hashes]
    usable = np.array([key not in reader.skips for key in keys]) & labelled
    rows = np.flatnonzero(usable)
    features = reader.read(reader.positions(index.hashes[rows])).astype(np.float32)
    targets, classes = _targets(index, rows)
    groups = index.groups[rows] if (index.groups[rows] >= 0).any() else None
    return LabelledRows(
        features=features.reshape(len(rows), -1),
        targets=targets,
        classes=classes,
        splits=index.splits[rows],
        groups=join_groups(groups, index.hashes[rows]),
        rows=rows,
    )


def _targets(index: Index, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Codes (one label each) or a 0/1 matrix (several), over the classes that rows have."""
    several = bool((index.label_counts[rows] > 1).any())
    matrix = np.zeros((len(index), len(index.label_names)), np.bool_)
    owners = np.repeat(np.arange(len(index)), index.label_counts)
    matrix[owners, index.label_codes] = True
    present = np.flatnonzero(matrix[rows].any(axis=0))
    classes = tuple(index.label_names[int(code)] for code in present)
    if len(classes) < 2 and not several:
        raise ProbeError(
            f"only one class has usable pictures ({classes[0] if classes else 'none'!r}); "
            "a probe needs at least two"
        )
    chosen = matrix[np.ix_(rows, present)]
    return (chosen if several else chosen.argmax(axis=1)), classes


def fit_probe(
    data: LabelledRows, spec: ProbeSpec, progress: Callable[[str, int, int], None] | None = None
) -> Probed:
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
    """Held-out predictions of every C over some rows.

    Attributes:
        probabilities: (G, n, K), NaN where a row was not held out.
        held_out: (n,) fold that held the row out, -1 for none.
    """

    probabilities: Floats
    held_out: npt.NDArray[np.int64]
    only_train: tuple[int, ...]


class _Probing:
    """One probe; the state is what its parts share."""

    def __init__(
        self,
        data: LabelledRows,
        spec: ProbeSpec,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._data, self._spec, self._progress = data, spec, progress
        self._multi = data.targets.ndim == 2
        if self._multi and spec.loss != "logistic":
            raise ProbeError("pictures with several labels need --head logistic")
        self._train: Bools = (data.splits != _VAL) & (data.splits != _TEST)
        self._val: Bools = data.splits == _VAL
        self._test: Bools = data.splits == _TEST
        self._grid = np.array(spec.grid or default_grid(data.features[self._train]))
        self._fits = self._done = self._missed = 0
        self._warnings: list[str] = []

    def run(self) -> Probed:
        started = time.perf_counter()
        self._check_classes()
        if self._test.any() and self._val.any():
            probed = self._tuned_on_val()
        elif self._test.any() or self._val.any():
            probed = self._held_out(self._test if self._test.any() else self._val)
        else:
            probed = self._nested()
        if self._missed:
            self._warnings.append(
                f"{self._missed} of {self._done} fits stopped over the tolerance of "
                f"{self._spec.tolerance:g}; their scores are those of the point reached"
            )
        return replace(
            probed,
            fits=self._done,
            missed=self._missed,
            seconds=time.perf_counter() - started,
            warnings=tuple(self._warnings),
        )

    # Three ways to hold out

    def _nested(self) -> Probed:
        spec, everything = self._spec, self._train
        outer = self._folds(everything, spec.folds)
        folds = int(outer.max()) + 1
        self._expect((folds * spec.inner_folds + folds) * len(self._grid) + 1)
        chosen = [
            self._best(self._cross_validate(everything & (outer != fold), spec.inner_folds))
            for fold in range(folds)
        ]
        path = self._predict_folds(everything, outer)
        probabilities = _empty(len(self._data), len(self._data.classes))
        for fold, g in enumerate(chosen):
            probabilities[outer == fold] = path.probabilities[g, outer == fold]
        return self._probed(
            path,
            trained=everything,
            judged=outer >= 0,
            probabilities=probabilities,
            method=f"nested cross-validation ({folds} outer, {spec.inner_folds} inner folds)",
        )

    def _held_out(self, judged: Bools) -> Probed:
        self._expect(self._spec.folds * len(self._grid) + 1)
        path = self._cross_validate(self._train, self._spec.folds)
        folds = int(path.held_out.max()) + 1
        split = "test" if self._test.any() else "val"
        probabilities = path.probabilities[self._best(path)].copy()
        return self._probed(
            path,
            trained=self._train,
            judged=judged,
            probabilities=probabilities,
            method=f"{split} split; C by {folds}-fold cross-validation within train",
        )

    def _tuned_on_val(self) -> Probed:
        self._expect(len(self._grid) + 1)
        held_out = np.where(self._val, 0, -1)
        path = self._predict_folds(self._train | self._val, held_out)
        return self._probed(
            path,
            trained=self._train | self._val,
            judged=self._test,
            probabilities=path.probabilities[self._best(path)].copy(),
            method="test split; C on the val split, refit on train and val",
        )

    def _probed(
        self, path: _Path, *, trained: Bools, judged: Bools, probabilities: Floats, method: str
    ) -> Probed:
        """Refit at the best C, predict what the refit did not see, and judge."""
        data = self._data
        best = float(self._grid[self._best(path)])
        (fit,) = self._solve(trained[None, :], np.array([best]))
        unseen = judged & ~trained
        if unseen.any():
            probabilities[unseen] = fit.head.probabilities(data.features[unseen])
        right = correct(probabilities[judged], data.targets[judged])
        interval = accuracy_interval(right, data.groups[judged])
        measured = path.held_out >= 0
        return Probed(
            fit=fit,
            path=tuple(
                (float(C), score(path.probabilities[g, measured], data.targets[measured]))
                for g, C in enumerate(self._grid)
            ),
            method=f"{method}; {interval.method} interval",
            scores=score(probabilities[judged], data.targets[judged]),
            interval=interval,
            judged=judged,
            trained=trained,
            probabilities=probabilities,
            confusion=self._confusion(probabilities[judged], data.targets[judged]),
            fits=0,
            missed=0,
            seconds=0.0,
        )

    # Folds and fits

    def _folds(self, rows: Bools, count: int) -> npt.NDArray[np.int64]:
        """(n,) fold that holds a row out, -1 for rows outside `rows` or that only train."""
        data = self._data
        folds = stratified_folds(data.targets[rows], data.groups[rows], count, self._spec.seed)
        held_out = np.full(len(data), -1, np.int64)
        held_out[rows] = folds.held_out
        return held_out

    def _cross_validate(self, rows: Bools, count: int) -> _Path:
        return self._predict_folds(rows, self._folds(rows, count))

    def _predict_folds(self, rows: Bools, held_out: npt.NDArray[np.int64]) -> _Path:
        """Predict each fold's held-out rows by heads fitted on the other `rows`, at every C."""
        data = self._data
        train = np.stack([rows & (held_out != fold) for fold in range(int(held_out.max()) + 1)])
        probabilities = np.stack([_empty(len(data), len(data.classes))] * len(self._grid))
        where = {float(C): g for g, C in enumerate(self._grid)}
        for fit in self._solve(train, self._grid):
            out = held_out == fit.fold
            probabilities[where[fit.C], out] = fit.head.probabilities(data.features[out])
        return _Path(probabilities, held_out, ())

    def _solve(self, train: Bools, grid: npt.NDArray[np.float64]) -> list[Fit]:
        spec, data = self._spec, self._data
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
                self._progress("fit", min(self._done, self._fits), self._fits)
        return fits

    def _expect(self, fits: int) -> None:
        self._fits = fits

    def _best(self, path: _Path) -> int:
        """Position of the C with the least held-out log-loss; the smaller C where equal."""
        rows = path.held_out >= 0
        losses = [score(p[rows], self._data.targets[rows]).log_loss for p in path.probabilities]
        return int(np.argmin(losses))

    def _confusion(self, probabilities: Floats, targets: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        if self._multi:
            return np.zeros((0, 0), np.int64)
        return confusion(probabilities.argmax(axis=1), targets, len(self._data.classes))

    # What a person should know

    def _check_classes(self) -> None:
        data = self._data
        if self._multi:
            counts = data.targets[self._train].sum(axis=0)
        else:
            counts = np.bincount(data.targets[self._train], minlength=len(data.classes))
        names = np.array(data.classes, dtype=object)
        absent = names[counts == 0].tolist()
        single = names[counts == 1].tolist()
        if absent:
            self._warnings.append(
                f"no training picture of {_listed(absent)}: their pictures cannot be recognised"
            )
        if single:
            self._warnings.append(
                f"one picture only of {_listed(single)}: it trains and is never held out"
            )


def _empty(n: int, classes: int) -> Floats:
    return np.full((n, classes), np.nan, np.float32)


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(map(repr, names[:_NAMED])) + (f" and {more} more" if more > 0 else "")
