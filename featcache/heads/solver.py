"""`solve_path`: every fold and every C of a problem, each fit with its certificate.

`solve_paths` does it for several problems. Small ones are walked side by side (`abreast`), as are
small folds that have designs of their own; no bit of one's fits depends on another's rows.
"""

# torch ships few types: what it returns is known here by its shape, written beside it
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportConstantRedefinition=false

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from featcache.errors import ProbeError
from featcache.heads.abreast import narrowed, side_by_side
from featcache.heads.batch import Batch
from featcache.heads.columns import Columns
from featcache.heads.design import Design
from featcache.heads.linear import CERTAIN_LOGIT, LinearHead, Loss, probabilities_of
from featcache.heads.objective import Targets, kernel_of
from featcache.heads.quasi_newton import pairs_for
from featcache.heads.rows import DenseRows, Rows, StreamedRows, blocks
from featcache.heads.walk import MANY_CLASSES, Goals, Solved, walk

AS_FLAT = 6e-5
"""Gradient tolerance of a head that is given away.

scikit-learn's default stops where no entry of the gradient is above 1e-4: on features of usual
lengths, and where C is small, that is nearer to the optimum than a gap of 1e-3, and no nearer than
this.
"""

_SHARED_FROM = 0.5
"""Folds share one product where on average each trains on this share of the rows."""

_READ = 16384
"""Rows checked at a time."""

_LOOSE, _APART = 1e-4, 0.5
"""Steps are in float32, and certificates alone in float64, where rows are not small, the tolerance
is no tighter and values of C are so many decades apart: a certificate then costs products of its
own, which a few steps at each C must save."""

_FLOAT32_RANGE = 1e15
"""Larger numbers could overflow in float32 sums."""

_SMALL = 1 << 18
"""Rows of no more numbers are walked beside others: what a step costs is not due to their size.
Where their logits are no more either, float32 would gain nothing."""

_ARRAYS, _VECTORS = 8, 16
"""Arrays of the size of the logits, and of the size of the weights beside the remembered pairs (of
which each counts as one), that a walk holds at its fullest."""

_TOGETHER = 16 << 20
"""Bytes of weights, at most, that are walked together on a processor: passes over more are slower
than the narrower products are."""


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

    Rows that no fold trains on have no influence on any bit of any fit. Where folds share one
    product (they do unless `standardize` is set or they train on small shares of the rows), a row
    that another fold trains on takes part in the choice of the shared basis: it then moves a fit
    within its certified tolerance, as rounding does, and nothing else.

    Attributes:
        features: (n, D) float16, float32 or float64; a memory map is read block by block where
            the rows in float64 would take more than half of `memory`.
        targets: (n,) int codes in 0..K-1; (n, K) bool, several labels a row; or (n, K) float
            shares: rows that are distributions (softmax), labels from 0 to 1 (logistic).
        n_classes: K.
        train: (F, n) bool: the rows that each fold's fits train on.
        grid: (G,) values of C.
        loss: "softmax", or "logistic" (one-vs-rest, or one column a label).
        standardize: divide by the standard deviation over each fold's training rows; it is folded
            into the returned head, which takes features as they are.
        tolerance: the certified relative gap at which a fit counts as converged; of all folds, or
            of each (F,).
        gradient_tolerance: the length of the gradient, as a share of the rows' root mean squared
            length, above which a fit is not left either, though it is certified: where C is small,
            a gap of 1e-3 is left long before scikit-learn's rule is met. Likewise of all or each.
        score: (F, n) bool: rows whose probabilities are wanted with each fit, or None.
        sample_weight: (n,) weights of the rows, or None for 1.
        balanced: give every class of a fold the same weight in all (see `Columns.weights`).
        smoothing: share of every target given to all classes alike (label smoothing), below 1.
        prior: (K, D) weights that a softmax's are drawn to, in the place of 0: the penalty is that
            of ||W - prior||^2, so that a small C gives the prior, but for its bias.
        memory: bytes to stay within, about; more problems at once are quicker.
        device: of the products, as torch names it.
    """

    features: np.ndarray
    targets: np.ndarray
    n_classes: int
    train: np.ndarray
    grid: np.ndarray
    loss: Loss = "softmax"
    standardize: bool = False
    tolerance: float | np.ndarray = 1e-3
    gradient_tolerance: float | np.ndarray = np.inf
    score: np.ndarray | None = None
    sample_weight: np.ndarray | None = None
    balanced: bool = False
    smoothing: float = 0.0
    prior: np.ndarray | None = None
    memory: int = 2 << 30
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Fit:
    """One fitted head and what is known of it.

    Attributes:
        fold: row of `PathProblem.train`.
        C: inverse strength of the penalty.
        position: of C in the sorted grid.
        objective: `objective.py`'s at the float64 solution, in the coordinates of the fit; for
            "logistic" the sum over the columns solved (one, where there are two classes).
        gap: proven upper bound of (objective - optimum) / objective.
        status: whether the gap is within the tolerance.
        iterations: steps of the solver, over all columns.
        seconds: spent on this fit: its share of what was solved together (abreast, problems that
            are through have shares until the last one is).
        absent: classes with no training row; their probability is 0.
        probabilities: (s, K) float64 of the rows of `PathProblem.score`, in their order; (0, K)
            where none were asked for.
    """

    fold: int
    C: float
    position: int
    objective: float
    gap: float
    status: FitStatus
    iterations: int
    seconds: float
    absent: tuple[int, ...]
    probabilities: np.ndarray
    _solution: _Solution

    @cached_property
    def head(self) -> LinearHead:
        """For features as they were given (centring and scaling folded in, float32)."""
        return self._solution.head()


@dataclass(frozen=True, eq=False)
class _Solution:
    """W (S, R + 1) of the solved columns, and what makes a head of it."""

    W: Tensor
    design: Design
    columns: Columns
    loss: Loss
    multi_label: bool
    prior: np.ndarray | None

    def head(self) -> LinearHead:
        coef, bias = self.design.original(self.W)
        if self.prior is not None:
            prior = torch.from_numpy(self.prior).to(coef.device)
            coef, bias = coef + prior, bias - prior @ self.design.mean
        return LinearHead(
            self.loss,
            self._spread(coef).astype(np.float32),
            (self._spread(bias[:, None])[:, 0] + self.columns.certain).astype(np.float32),
            multi_label=self.multi_label,
        )

    def _spread(self, solved: Tensor) -> np.ndarray:
        """(K, m) of the classes, from (S, m) of the columns.

        By torch: numpy's threads would wait, busily, beside the solver's.
        """
        return (torch.from_numpy(self.columns.spread) @ solved.cpu()).numpy()

    def probabilities(self, logits: Tensor) -> np.ndarray:
        """(s, K) of solved logits (S, s)."""
        if self.columns.are_classes:
            return probabilities_of(logits.T.cpu().numpy(), self.loss)
        finite = logits.clamp(min=-CERTAIN_LOGIT)  # those of classes a softmax lacks are -inf
        scores = self._spread(finite).T + self.columns.certain
        return probabilities_of(scores, self.loss, multi_label=self.multi_label)


def solve_path(problem: PathProblem) -> Iterator[Fit]:
    """Fit every fold at every C, from the smallest to the largest, all folds at once.

    Returns:
        An iterator over F x G fits: of one fold in ascending order of C, folds in no promised
        order; it solves while it is read. Decades between distant values are solved on the way.

    Raises:
        ProbeError: the problem's arrays disagree, or a fold's training rows hold a single class
            (at once, before the first fit).
    """
    return (fit for _, fit in solve_paths([problem]))


def solve_paths(problems: Sequence[PathProblem]) -> Iterator[tuple[int, Fit]]:
    """Solve several problems, small ones at the same time.

    Returns:
        An iterator over (position among the problems, fit), as `solve_path` gives the fits of each;
        problems in no promised order, those that are not small one after the other. Features of one
        have no influence on any bit of another's fits, and labels none unless they leave its folds
        two classes of more: what is walked together then changes, and rounding with it.

    Raises:
        ProbeError: as `solve_path`.
    """
    for problem in problems:
        _check(problem)
        _columns_of(problem)
    return _solve(problems)


def _columns_of(problem: PathProblem) -> list[Columns]:
    return [_columns(problem, fold) for fold in range(len(problem.train))]


@dataclass(frozen=True, eq=False)
class _Folds:
    """Folds of the problem at a place that share a design, and the columns of all its folds."""

    at: int
    problem: PathProblem
    columns: list[Columns]
    folds: list[int]

    @property
    def is_small(self) -> bool:
        """Whether they are walked beside others; it follows from sizes and the loss alone.

        How many columns one-vs-rest has depends on the labels, so its folds are not.
        """
        problem = self.problem
        rows, D = problem.train[self.folds].any(axis=0).sum(), problem.features.shape[1]
        fits = rows * (min(rows, D) + 1) <= min(_SMALL, problem.memory // 64)
        one = problem.loss == "softmax" or (problem.n_classes == 2 and problem.targets.ndim == 1)
        few = problem.n_classes <= MANY_CLASSES
        return bool(fits and one and few and problem.prior is None)


def _solve(problems: Sequence[PathProblem]) -> Iterator[tuple[int, Fit]]:
    waiting: dict[tuple[object, ...], list[_Seat]] = {}
    for at, problem in enumerate(problems):
        columns = _columns_of(problem)
        for folds in _groups(problem):
            group = _Folds(at, problem, columns, folds)
            for seat in _Group(group).seats():
                if group.is_small:
                    held = sum(other.held for seats in waiting.values() for other in seats)
                    if held + seat.held > problem.memory // 2:
                        yield from _abreast_by_kind(waiting)
                    waiting.setdefault(seat.kind, []).append(seat)
                else:
                    yield from _alone(seat)
                del seat  # or its rows would be held beside the next ones
    yield from _abreast_by_kind(waiting)


def _abreast_by_kind(waiting: dict[tuple[object, ...], list[_Seat]]) -> Iterator[tuple[int, Fit]]:
    """Walk all that wait, and let go of each kind after it."""
    while waiting:
        yield from _abreast(waiting.popitem()[1])


def _alone(seat: _Seat) -> Iterator[tuple[int, Fit]]:
    for solved in walk(seat.batch, seat.start, seat.strengths, seat.asked, seat.goals):
        fit = seat.take(solved)
        del solved  # or its logits, of all rows, would outlive the next ones
        if fit is not None:
            yield seat.at, fit


def _abreast(seats: Sequence[_Seat]) -> Iterator[tuple[int, Fit]]:
    if len(seats) == 1:
        yield from _alone(seats[0])
        return
    batch = side_by_side([seat.batch for seat in seats])
    start = torch.cat([seat.start for seat in seats])
    counts = [seat.strengths.shape[1] for seat in seats]
    strengths, asked = (
        torch.cat([pad(part, (0, max(counts) - n)) for part, n in zip(parts, counts, strict=True)])
        for parts in ([seat.strengths for seat in seats], [seat.asked for seat in seats])
    )
    each = len(seats[0].batch)
    steps = torch.tensor(counts, device=start.device).repeat_interleave(each)
    goals = Goals(
        torch.cat([seat.goals.tolerance for seat in seats]),
        torch.cat([seat.goals.slope for seat in seats]),
    )
    for solved in walk(batch, start, strengths, asked, goals, steps=steps):
        seat = seats[solved.problem // each]
        rows = seat.batch.rows
        own = replace(
            solved,
            problem=solved.problem % each,
            W=narrowed(solved.W, rows.width),
            logits=solved.logits[:, : len(rows)],
        )
        fit = seat.take(own)
        del solved, own
        if fit is not None:
            yield seat.at, fit


def _groups(problem: PathProblem) -> list[list[int]]:
    """Folds that share a design: all of them, or each its own."""
    folds = list(range(len(problem.train)))
    if problem.prior is not None:  # two classes of a fold are other columns than two of the next
        return [[fold] for fold in folds]
    share = problem.train.sum() / (max(problem.train.any(axis=0).sum(), 1) * len(folds))
    own = problem.standardize or share < _SHARED_FROM
    if own:
        return [[fold] for fold in folds]
    loose = _of_each(problem, problem.tolerance) >= _LOOSE
    kinds = (np.flatnonzero(loose).tolist(), np.flatnonzero(~loose).tolist())
    return [kind for kind in kinds if kind]


def _of_each(problem: PathProblem, number: float | np.ndarray) -> np.ndarray:
    """(F,) a number of every fold."""
    return np.broadcast_to(np.asarray(number, np.float64), len(problem.train))


class _Group:
    """Folds with one design: their rows in its coordinates, and what they score besides."""

    def __init__(self, group: _Folds) -> None:
        problem, folds = group.problem, group.folds
        self._group, self._problem, self._columns = group, problem, group.columns
        self._grid = np.sort(problem.grid)
        self._tolerance = _of_each(problem, problem.tolerance)
        self._trained = np.flatnonzero(problem.train[folds].any(axis=0))
        self._design = Design.of(
            problem.features, self._trained, problem.standardize, problem.device
        )
        few_certificates = self._tolerance[folds].min() >= _LOOSE and _is_coarse(self._grid)
        self._rows = self._read(self._trained, problem.memory // 2, rounded=few_certificates)
        self._others = np.setdiff1d(np.flatnonzero(self._scored(folds)), self._trained)
        self._places: dict[int, _Places] = {}
        self._more = self._read(self._others, problem.memory // 8, rounded=False).exactly()

    def _read(self, kept: np.ndarray, memory: int, *, rounded: bool) -> Rows:
        """Some rows, in memory if they take no more than may be taken.

        Args:
            kept: which ones.
            memory: bytes that they may take.
            rounded: keep them in float32 too, where they are large enough to pay for it.
        """
        problem = self._problem
        size = len(kept) * (self._design.width + 1)
        if 8 * size > memory:
            return StreamedRows.of(problem.features, kept, self._design)
        X = self._design.turned(problem.features[kept])
        weights = X.new_full((1, len(X)), 1 / max(len(X), 1))
        columns = sum(self._columns[fold].columns for fold in self._group.folds)
        rounded = rounded and size <= memory / 12
        rounded = rounded and max(size, len(kept) * columns) > _SMALL
        rounded = rounded and bool(X.abs().max() < _FLOAT32_RANGE)
        return DenseRows.of(X[None], weights, rounded=rounded)

    @property
    def held(self) -> int:
        """Bytes of rows in memory, and of what turns them."""
        basis = 0 if self._design.basis is None else self._design.basis.nbytes
        return self._rows.held + self._more.held + basis

    def _scored(self, folds: list[int]) -> np.ndarray:
        score = self._problem.score
        return np.zeros(0, np.bool_) if score is None else np.any(score[folds], axis=0)

    def seats(self) -> Iterator[_Seat]:
        """Folds to be solved together within the memory asked for."""
        for loss in ("softmax", "logistic"):
            folds = [fold for fold in self._group.folds if self._columns[fold].loss == loss]
            for part in self._parts(folds):
                yield self._seat(part)

    def _parts(self, folds: list[int]) -> Iterator[list[int]]:
        if not folds:
            return
        width, n = self._rows.width, len(self._rows)
        columns = max(len(self._columns[fold].spread) for fold in folds)
        vectors = _VECTORS + pairs_for(float(self._tolerance[folds].min()))
        dtype = torch.float64 if self._rows.in_memory else self._rows.logit_dtype  # at the latest
        each = columns * (dtype.itemsize * n * _ARRAYS + 8 * width * vectors)
        free = self._problem.memory - self._rows.held
        count = int(free // each)
        if self._rows.in_memory and self._problem.device == "cpu":
            count = min(count, _TOGETHER // (8 * width * columns))
        count = max(1, count)
        for first in range(0, len(folds), count):
            yield folds[first : first + count]

    def _seat(self, folds: list[int]) -> _Seat:
        batch, total = self._batch(folds)
        C, asked = _with_rungs(self._grid, self._easy)
        return _Seat(
            self._group.at,
            self,
            tuple((fold, j) for fold in folds for j in range(self._columns[fold].problems)),
            batch,
            _priors(batch),
            1 / (total[:, None] * torch.from_numpy(C).to(total.device)),
            torch.from_numpy(asked).to(total.device).expand(len(total), -1),
            self._goals(folds),
        )

    def _goals(self, folds: list[int]) -> Goals:
        """Of the problems of some folds."""
        problem = self._problem
        counts = [self._columns[fold].problems for fold in folds]
        length = float(self._rows.scale[:, :-1].sum()) ** 0.5
        slope = _of_each(problem, problem.gradient_tolerance)
        tolerance, slope = (
            torch.from_numpy(np.repeat(each[folds], counts)).to(problem.device)
            for each in (self._tolerance, slope)
        )
        return Goals(tolerance, torch.where(slope.isinf(), slope, length * slope))

    def _batch(self, folds: list[int]) -> tuple[Batch, Tensor]:
        """Their problems, and the total weight of the rows of each."""
        problem, kept = self._problem, self._trained
        weights = np.concatenate(
            [
                self._columns[fold].weights(
                    problem.targets,
                    problem.train[fold],
                    kept,
                    problem.sample_weight,
                    problem.balanced,
                )
                for fold in folds
            ]
        )
        a = torch.from_numpy(weights.astype(np.float64)).to(problem.device)
        total = a.sum(dim=1)
        loss = self._columns[folds[0]].loss
        targets = self._targets(folds)
        columns = len(a) * (problem.n_classes if loss == "softmax" else 1)
        a = a / total[:, None]
        batch = Batch.of(self._rows, kernel_of(loss), targets, a, columns)
        if problem.prior is not None:
            prior = self._columns[folds[0]].solved(problem.prior)
            reach = float(np.linalg.norm(prior, axis=1).max())
            batch = replace(batch, offset=self._offset(kept, prior)[None], reach=reach)
        return batch, total

    def _offset(self, rows: np.ndarray, prior: np.ndarray) -> Tensor:
        """(K, m) logits that the prior gives some rows, centred features as they came."""
        W = torch.from_numpy(prior).to(self._problem.device)
        parts = [
            W @ self._design.centred(self._problem.features[rows[block]], torch.float64).T
            for block in blocks(len(rows), len(prior))
        ]
        return torch.cat([W.new_zeros(len(W), 0), *parts], dim=1)

    def _targets(self, folds: list[int]) -> Targets:
        problem, kept, device = self._problem, self._trained, self._problem.device
        labels = [self._columns[fold].labels for fold in folds]
        if labels[0] is None:
            codes = torch.from_numpy(problem.targets[kept].astype(np.int64))
            return Targets(codes[None].to(device), None)
        parts = [label[kept].T for label in labels if label is not None]  # (K or J, n)
        if self._columns[folds[0]].loss == "softmax":
            dense = np.stack(parts)
        else:
            dense = np.concatenate(parts)[:, None]
        return Targets(None, torch.from_numpy(np.ascontiguousarray(dense)).to(device))

    @property
    def _easy(self) -> float:
        """A C a decade below the first rung: times the mean squared norm of the rows it is 0.1.

        A rung takes two steps or three, as two secants lead to it, where a far C takes dozens from
        nothing. Rows that are not held have no secants, and are solved from nothing up to 100.
        """
        lowest = 0.1 if self._rows.in_memory else 10.0
        return lowest / float(self._rows.scale[0, :-1].sum().clamp(min=1e-300))

    def part(self, fold: int, solved: Solved) -> _Part:
        """What is kept of a solved problem: no logits but those that are scored."""
        freed = replace(solved, logits=solved.logits.new_empty(0))
        return _Part(freed, self._wanted(fold, solved))

    def _wanted(self, fold: int, solved: Solved) -> Tensor:
        """(K, s) logits of the rows that a fold scores."""
        if fold not in self._places:
            self._places[fold] = _Places.of(self._scored([fold]), self._trained, self._others)
        at = self._places[fold]
        known = solved.logits[:, at.among_trained].double()
        if not len(at.unknown):
            return known
        others = self._others_logits(solved.W)
        if self._problem.prior is not None:
            prior = self._columns[fold].solved(self._problem.prior)
            others += self._offset(self._others, prior)
        logits = known.new_empty(len(known), at.count)
        logits[:, at.known], logits[:, at.unknown] = known, others[:, at.among_others]
        return logits

    def _others_logits(self, W: Tensor) -> Tensor:
        """(K, m) of the rows that no fold of the group trains on."""
        rows, lifted = self._more, self._more.lift(W[None])
        parts = [rows.forward(lifted, block)[0] for block in blocks(len(rows), len(W))]
        return torch.cat(parts, dim=1)

    def columns_of(self, fold: int) -> int:
        """How many problems a fold is."""
        return self._columns[fold].problems

    def fit(self, fold: int, parts: list[_Part]) -> Fit:
        """The fit that a fold's problems make."""
        problem, columns = self._problem, self._columns[fold]
        solved = [part.solved for part in parts]
        objective = sum(part.objective for part in solved)
        gap = (objective - sum(part.lower for part in solved)) / objective if objective else 0.0
        solution = _Solution(
            _joined([part.W for part in solved]),
            self._design,
            columns,
            problem.loss,
            multi_label=problem.targets.ndim == 2 and problem.loss == "logistic",
            prior=None if problem.prior is None else columns.solved(problem.prior),
        )
        return Fit(
            fold=fold,
            C=float(self._grid[solved[0].position]),
            position=solved[0].position,
            objective=objective,
            gap=gap,
            status=FitStatus.CONVERGED
            if gap <= self._tolerance[fold]
            else FitStatus.TOLERANCE_MISSED,
            iterations=sum(part.ticks for part in solved),
            seconds=sum(part.seconds for part in solved),
            absent=columns.absent,
            probabilities=solution.probabilities(_joined([part.logits for part in parts])),
            _solution=solution,
        )


@dataclass(frozen=True, eq=False)
class _Seat:
    """Folds of a group that are walked together, along the grid.

    Attributes:
        at: place of their problem among those asked for.
        group: theirs.
        owners: (fold, column of it) of each problem of the batch.
        batch, start, strengths, asked, goals: see `walk`.
    """

    at: int
    group: _Group
    owners: tuple[tuple[int, int], ...]
    batch: Batch
    start: Tensor
    strengths: Tensor
    asked: Tensor
    goals: Goals
    _partial: dict[tuple[int, int], dict[int, _Part]] = field(default_factory=dict)

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for seats that can be walked abreast, and are of about as many rows."""
        batch, about = self.batch, len(self.batch.rows).bit_length()
        coded, device = batch.targets.codes is not None, batch.weights.device
        tolerance = tuple(self.goals.tolerance.tolist())
        return batch.kernel.loss, len(batch), batch.classes, about, tolerance, coded, device

    @property
    def held(self) -> int:
        """Bytes that walking it abreast takes, at most: beside it rows can be twice as many."""
        rows, vectors = self.batch.rows, _VECTORS + self.goals.pairs
        each = 2 * (len(rows) * _ARRAYS + rows.width * vectors)
        return self.group.held + 4 * rows.held + 8 * self.start.numel() * each

    def take(self, solved: Solved) -> Fit | None:
        """Something solved; the fit that it completes, if it does."""
        fold, j = self.owners[solved.problem]
        parts = self._partial.setdefault((fold, solved.position), {})
        parts[j] = self.group.part(fold, solved)
        if len(parts) < self.group.columns_of(fold):
            return None
        del self._partial[fold, solved.position]
        return self.group.fit(fold, [parts[j] for j in sorted(parts)])


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the rows that a fold scores lie: among those that train, or among the others.

    Attributes:
        count: how many there are.
        known, among_trained: positions of those that some fold trains on, and theirs there.
        unknown, among_others: of the others.
    """

    count: int
    known: Tensor
    among_trained: Tensor
    unknown: Tensor
    among_others: Tensor

    @classmethod
    def of(cls, scored: np.ndarray, trained: np.ndarray, others: np.ndarray) -> _Places:
        """Of rows marked (n,); both other arrays are sorted positions."""
        rows = np.flatnonzero(scored)
        known = np.isin(rows, trained)
        return cls(
            len(rows),
            _index(np.flatnonzero(known)),
            _index(np.searchsorted(trained, rows[known])),
            _index(np.flatnonzero(~known)),
            _index(np.searchsorted(others, rows[~known])),
        )


@dataclass(frozen=True, eq=False)
class _Part:
    """One problem of a fold at one C, and the logits (K, s) of the rows the fold scores."""

    solved: Solved
    logits: Tensor


def _with_rungs(grid: np.ndarray, easy: float) -> tuple[np.ndarray, np.ndarray]:
    """The grid and decades from `easy` on where its values are further apart.

    On separable classes the solution at a large C is near that of a smaller one and nothing else.

    Returns:
        The values to walk along, ascending, and which of them are the grid's (bool).
    """
    values, asked, last = list[float](), list[bool](), easy
    for value in grid.tolist():
        while value > 10.001 * last:
            last *= 10
            values.append(last)
            asked.append(False)
        values.append(value)
        asked.append(True)
        last = max(last, value)
    return np.array(values), np.array(asked)


def _is_coarse(grid: np.ndarray) -> bool:
    """Whether most values are far from the next, so that a fit takes more than a step or two."""
    return len(grid) < 2 or bool(np.median(np.diff(np.log10(grid))) >= _APART)


def _joined(parts: list[Tensor]) -> Tensor:
    """Their rows, without a copy where there is one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _index(places: np.ndarray) -> Tensor:
    return torch.from_numpy(places)


def _columns(problem: PathProblem, fold: int) -> Columns:
    rows = problem.train[fold]
    try:
        return Columns.of(problem.targets, rows, problem.n_classes, problem.loss, problem.smoothing)
    except ProbeError as error:
        raise ProbeError(f"fold {fold}: {error}") from error


def _priors(batch: Batch) -> Tensor:
    """(B, K) biases of W = 0: logarithms of the classes' shares."""
    share = batch.targets_sum[..., -1]
    if batch.kernel.loss == "softmax":
        return torch.log(share)
    return torch.log(share) - torch.log1p(-share)


def _check(problem: PathProblem) -> None:
    """Raise where the arrays disagree; each line says which and what was expected."""
    for wrong, message in (*_wrong_arrays(problem), *_wrong_numbers(problem)):
        if wrong:
            raise ProbeError(f"probe: {message}")
    if not all(_finite_parts(problem)):
        raise ProbeError(
            "probe: features of training rows are not finite; check the pictures and the "
            "backbone's weights and precision (`featcache verify`)"
        )


def _finite_parts(problem: PathProblem) -> Iterator[bool]:
    kept = np.flatnonzero(problem.train.any(axis=0))
    for start in range(0, len(kept), _READ):
        yield bool(np.isfinite(problem.features[kept[start : start + _READ]]).all())


def _wrong_arrays(problem: PathProblem) -> Iterator[tuple[bool, str]]:
    X, y, K, train = problem.features, problem.targets, problem.n_classes, problem.train
    n = len(X)
    yield (
        X.ndim != 2 or X.dtype.kind != "f",
        f"features of shape {X.shape} and dtype {X.dtype}; give (n, D) floats",
    )
    yield (
        y.shape not in ((n,), (n, K)),
        f"targets of shape {y.shape} for {n} rows and {K} classes; give (n,) or (n, K)",
    )
    yield (
        y.dtype.kind not in ("bf" if y.ndim == 2 else "i"),
        f"targets of dtype {y.dtype}; give int codes (n,), bool labels or float shares (n, K)",
    )
    yield (
        y.dtype.kind == "b" and problem.loss != "logistic",
        f"several labels a row with the loss {problem.loss!r}; use 'logistic'",
    )
    yield (
        y.dtype.kind == "i" and n > 0 and not (y.min() >= 0 and y.max() < K),
        f"codes outside 0..{K - 1}",
    )
    yield (
        y.ndim == 2 and y.dtype.kind == "f" and not _are_shares(y, problem.loss),
        ("soft targets outside 0 to 1, or rows of a softmax that do not sum to 1"),
    )
    yield (
        train.shape[1:] != (n,) or train.dtype != np.bool_ or not len(train),
        f"train of shape {train.shape} and dtype {train.dtype}; give (folds, {n}) bool",
    )
    score, weight = problem.score, problem.sample_weight
    yield (
        score is not None and (score.shape != train.shape or score.dtype != np.bool_),
        f"score; give bool of train's shape {train.shape}",
    )
    yield (
        weight is not None and (weight.shape != (n,) or not _are_weights(weight)),
        f"sample_weight; give ({n},) positive and finite numbers",
    )


def _wrong_numbers(problem: PathProblem) -> Iterator[tuple[bool, str]]:
    grid = problem.grid
    good = grid.ndim == 1 and len(grid) and bool(np.all(np.isfinite(grid) & (grid > 0)))
    yield not good, f"grid {grid}; give positive values of C"
    folds = len(problem.train)
    for name, numbers in (
        ("tolerance", problem.tolerance),
        ("gradient_tolerance", problem.gradient_tolerance),
    ):
        yield (
            np.shape(numbers) not in ((), (folds,)) or not np.all(np.asarray(numbers) > 0),
            f"{name} {numbers}; give a positive number, or one for each of {folds} folds",
        )
    yield not 0 <= problem.smoothing < 1, f"smoothing {problem.smoothing}; give 0 to below 1"
    yield (
        problem.prior is not None and (problem.standardize or problem.loss != "softmax"),
        "a prior with standardised features or another loss than softmax; leave one of them out",
    )
    yield (
        problem.prior is not None
        and problem.prior.shape != (problem.n_classes, *problem.features.shape[1:]),
        f"prior; give weights of shape {(problem.n_classes, *problem.features.shape[1:])}",
    )
    yield not problem.memory > 0, f"memory {problem.memory}; give bytes"
    yield (
        not _is_usable(problem.device),
        f"device {problem.device!r}: not on this machine; use 'cpu'",
    )


def _is_usable(device: str) -> bool:
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError):
        return False
    return True


def _are_shares(y: np.ndarray, loss: Loss) -> bool:
    if not (np.isfinite(y).all() and y.min() >= 0 and y.max() <= 1):
        return False
    return loss == "logistic" or bool(np.allclose(y.sum(axis=1), 1, atol=1e-6))


def _are_weights(weight: np.ndarray) -> bool:
    return bool(np.isfinite(weight).all() and (weight > 0).all())
