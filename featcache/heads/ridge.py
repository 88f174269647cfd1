r"""Ridge regression to targets: the whole grid from one eigendecomposition, exact leave-one-out.

Shapes: X (m, D) training rows, Y (m, K) targets, s (m,) weights, W (K, D), b (K,), alpha = 1/C.

    F(W, b) = (1/2n) sum_i s_i ||W x_i + b - y_i||^2  +  ||W||^2 / (2 C n)

Times 2n that is scikit-learn's Ridge at alpha = 1/C, whatever n is. The bias is not penalised.

*The fit.* The bias absorbs the weighted means x0 = X's/sigma and y0 = Y's/sigma, sigma = sum(s).
With A = S^1/2 (X - 1 x0') (m, D) and T = S^1/2 (Y - 1 y0') (m, K), roots of weights on every row,

    W' = (A'A + alpha I)^-1 A'T = A' (AA' + alpha I)^-1 T,      b = y0 - W x0.

m > D + 1: A'A = V diag(l) V' and W' = V diag(1/(l + alpha)) V'A'T. Otherwise AA' = U diag(l) U' and
W' = A' U diag(1/(l + alpha)) U'T. Either way one decomposition of order min(m, D) for every C.

*Leaving out.* On weighted rows the fitted values are H S^1/2 Y, with the bias's share in H:

    H = u u' + A (A'A + alpha I)^-1 A',      u = (s/sigma)^1/2,  u'u = 1,  A'u = 0.

Let z be Y with the rows of a group g replaced by what the fit without g predicts for them. Those
rows then cost nothing, so the fit to z is the fit without g, its bias included. Both fits have the
same H, and z differs from Y in g alone: with t = S^1/2 (y - z) and e = T - AW' = S^1/2 (Y - Yhat),
on the rows of g

    H_gg t = S^1/2 (yhat - z) = t - e_g,      hence      (I - H_gg) t = e_g,

and for one row y_i - yhat_i without i = (y_i - yhat_i)/(1 - h_ii) (Allen, Technometrics 1974,
PRESS; Golub, Heath, Wahba, Technometrics 1979). Nothing is fitted again.

 - m > D + 1: B = [Z, u_g] diag(d), Z = A_g V (p, R), d = (l + alpha)^-1/2 and 1, H_gg = BB'. For a
   group of p > D + 1 rows t = e_g + B (I - B'B)^-1 B'e_g (Woodbury) is the smaller system.
 - m <= D + 1: U is taken orthogonal to u, and I - H = U diag(alpha/(l + alpha)) U', e = (I - H) T
   are sums without cancellation, however near h_ii is to 1.
 - I - H_gg is singular only where g holds every row, but where C is so large that a row is
   interpolated, 1 - h_ii may be of the size of rounding. Where a pivot says so (`_FLOOR`), that
   group, and only it, is left out by fitting the other rows.
"""

# torch's types are partial: what its functions return is named where it is used
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from featcache.errors import ProbeError

_EPS = float(np.finfo(np.float64).eps)

_FLOOR = 1e-6
"""A pivot of I - H_gg below this, relative to what it was computed from, has lost six digits."""

_COPIES = 32
"""Bytes that one number of a row block takes: as read, in float64, rotated, and scaled."""


@dataclass(frozen=True, eq=False)
class RidgeProblem:
    """What to regress on what.

    Attributes:
        features: (n, D) float16, float32 or float64; may be a memory map larger than memory.
        targets: (n, K) numbers or bool: one-hot, +-1, several labels, soft rows.
        grid: (G,) values of C; scikit-learn's alpha is 1/C.
        train: (n,) bool, the rows that are fitted; None: all. The others have no influence at all.
        groups: (n,) ids; training rows of one group are left out together. None: each row alone.
        weights: (n,) weights >= 0 in the loss; None: 1. A row of weight 0 is no training row.
        memory: bytes that row blocks may take, and as many again for what is kept of them from
            one C to the next. A few square matrices of order min(n, D) come on top, and held-out
            scores (n, K) where they are asked for; nothing else grows with n x D or n x K.
        device: where the products are made: "cpu" or "cuda" (float64, which "mps" does not have).
    """

    features: np.ndarray
    targets: np.ndarray
    grid: np.ndarray
    train: np.ndarray | None = None
    groups: np.ndarray | None = None
    weights: np.ndarray | None = None
    memory: int = 2 << 30
    device: str = "cpu"

    @property
    def rows(self) -> np.ndarray:
        """(m,) positions of the rows that are fitted."""
        used = np.ones(len(self.features), np.bool_) if self.train is None else self.train
        return np.flatnonzero(used if self.weights is None else used & (self.weights != 0))

    @property
    def block(self) -> int:
        """How many rows are read at a time."""
        return max(1, self.memory // (_COPIES * max(self.features.shape[1], self.targets.shape[1])))


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """The solution at one C.

    Its scores estimate the targets: neither logits nor probabilities, hence no `LinearHead`. With
    a column a class, argmax classifies: scores of one-hot or +-1 targets have the targets' row
    sum, so that a class without a training row is never the largest.

    Attributes:
        C: inverse strength of the penalty.
        coef: (K, D) float64.
        bias: (K,) float64.
    """

    C: float
    coef: np.ndarray
    bias: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Rows (n, D) of any float dtype as scores (n, K) float64."""
        return np.asarray(features, np.float64) @ self.coef.T + self.bias


def solve_ridge(problem: RidgeProblem) -> RidgePath:
    """Decompose once; the path gives each C's fit and held-out scores when they are asked for.

    Raises:
        ProbeError: the arrays disagree, numbers of training rows are not finite, or leaving out
            one group would leave no row.
    """
    _check(problem)
    return RidgePath(problem)


class RidgePath:
    """Fits and held-out scores along the grid; made one at a time, so memory does not grow with G.

    Attributes:
        problem: as it was given.
    """

    def __init__(self, problem: RidgeProblem) -> None:
        """Take a checked problem; `solve_ridge` does."""
        self.problem = problem
        self._rows = _Rows(problem)
        self._batches = _batches(problem)
        m, D = len(self._rows.index), problem.features.shape[1]
        self._form = (_Dual if m - 1 <= D else _Primal)(self._rows, self._batches)

    def fit(self, at: int) -> RidgeFit:
        """The fit of all training rows at `grid[at]`."""
        C = float(self.problem.grid[at])
        coef = self._form.coef(1 / C)
        bias = self._rows.target_mean - coef @ self._form.mean
        return RidgeFit(C, coef.cpu().numpy(), bias.cpu().numpy())

    def held_out(self, at: int) -> np.ndarray:
        """Scores of every row by a fit at `grid[at]` that has not seen it.

        Returns:
            (n, K) float64. Training rows: by the fit on the training rows of other groups (without
            groups: on the other rows), exactly, means and bias included. Rows outside `train`: by
            `fit(at)`.
        """
        rows, problem = self._rows, self.problem
        scores = np.empty(problem.targets.shape)
        others = np.setdiff1d(np.arange(len(scores)), rows.index)
        if len(others):
            self._score(others, self.fit(at), scores)
        residuals = self._form.residuals(1 / float(problem.grid[at]))
        unsound = list[np.ndarray]()
        for number, batch in enumerate(self._batches):
            e = residuals(batch.ravel()).view(*batch.shape, -1)
            t, sound = self._form.leave_out(at, number, e)
            left_out, index = (t / rows.root[batch]).cpu().numpy(), rows.index[batch.numpy()]
            scores[index] = problem.targets[index] - left_out
            unsound += list(batch[~sound.cpu()].numpy())
        for positions in unsound:
            group = rows.index[positions]
            self._score(group, self._without(group, at), scores)
        return scores

    def _score(self, index: np.ndarray, fit: RidgeFit, scores: np.ndarray) -> None:
        for block in _slices(len(index), self.problem.block):
            scores[index[block]] = fit.scores(self.problem.features[index[block]])

    def _without(self, group: np.ndarray, at: int) -> RidgeFit:
        train = np.zeros(len(self.problem.features), np.bool_)
        train[np.setdiff1d(self._rows.index, group)] = True
        grid = self.problem.grid[at : at + 1]
        return RidgePath(replace(self.problem, train=train, grid=grid, groups=None)).fit(0)


class _Rows:
    """The training rows: what of them fits in memory, and blocks of their features.

    Attributes:
        index: (m,) positions among all rows.
        every: (m,) 0 to m - 1; other positions are among these.
        root: (m, 1) roots of the weights.
        share: (m, 1) u.
        target_mean: (K,) y0.
        alphas: (G,) 1/C.
    """

    def __init__(self, problem: RidgeProblem) -> None:
        self.problem, self.index = problem, problem.rows
        self.every = torch.arange(len(self.index))
        every = np.ones(len(problem.features)) if problem.weights is None else problem.weights
        weights = self._tensor(every[self.index])
        self.root = weights.sqrt()[:, None]
        self.share = (weights / weights.sum()).sqrt()[:, None]
        self.target_mean = weights.new_zeros(problem.targets.shape[1])
        for block in self.every.split(problem.block):
            self.target_mean += weights[block] @ self._given(block)
        self.target_mean /= weights.sum()
        self.alphas = 1 / self._tensor(problem.grid)

    def targets(self, positions: Tensor) -> Tensor:
        """Rows of T: (p, K)."""
        return self._given(positions).sub_(self.target_mean).mul_(self.root[positions])

    def _given(self, positions: Tensor) -> Tensor:
        """Rows of Y: (p, K)."""
        return self._tensor(self.problem.targets[self.index[positions.numpy()]])

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.float64)).to(self.problem.device)

    def read(self, positions: Tensor) -> Tensor:
        """Features of training rows: (p, D) float64 on the device."""
        return self._moved(self.problem.features[self.index[positions.numpy()]])

    def read_columns(self, columns: slice) -> Tensor:
        """Some features of all training rows: (m, d) float64 on the device."""
        return self._moved(self.problem.features[:, columns][self.index])

    def _moved(self, block: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(block)).to(self.problem.device).double()

    def column_blocks(self) -> list[slice]:
        width = self.problem.memory // (_COPIES * len(self.index))
        return _slices(self.problem.features.shape[1], max(1, width))


class _Primal:
    """m > D + 1: works with A'A (D, D); see the top of the file.

    Attributes:
        mean: (D,) x0.
    """

    def __init__(self, rows: _Rows, batches: list[Tensor]) -> None:
        self._rows, self._batches, self._room = rows, batches, rows.problem.memory
        self._hats, self._inners = dict[int, Tensor](), dict[int, Tensor]()
        self.mean = rows.root.new_zeros(rows.problem.features.shape[1])
        blocks = rows.every.split(rows.problem.block)
        for block in blocks:
            self.mean += rows.share[block].square()[:, 0] @ rows.read(block)
        _check_finite(self.mean)
        gram = self.mean.new_zeros(len(self.mean), len(self.mean))
        for block in blocks:
            A = self._weighted(block)
            gram.addmm_(A.T, A)
        values, vectors = torch.linalg.eigh(gram)
        kept = _resolved(values)
        self._values, self._basis = values[kept], vectors[:, kept]  # (R,), (D, R)
        moment = self._gather(rows.every, map(rows.targets, blocks))
        self._moment = self._basis.T @ moment  # (R, K)

    def coef(self, alpha: float) -> Tensor:
        """W (K, D)."""
        return (self._basis @ (self._moment / (self._values + alpha)[:, None])).T

    def residuals(self, alpha: float) -> Callable[[Tensor], Tensor]:
        """What gives the residuals e (p, K) of p training rows."""
        W = self.coef(alpha).T
        return lambda positions: self._rows.targets(positions) - self._spread(positions, W)

    def leave_out(self, at: int, number: int, e: Tensor) -> tuple[Tensor, Tensor]:
        """Of a batch of N groups of p rows: t (N, p, K), and (N,) bool, which of them are sound."""
        if e.shape[1] > len(self.mean) + 1:
            return self._leave_out_large(at, number, e)
        hats = self._hats_of(number, at)
        return _solve(torch.eye(e.shape[1]).to(hats) - hats, e, torch.ones_like(hats[..., 0]))

    def _leave_out_large(self, at: int, number: int, e: Tensor) -> tuple[Tensor, Tensor]:
        """The same for one group of more rows than a head has coefficients; e (1, p, K)."""
        positions, inner = self._batches[number][0], self._inner_of(number)
        u = self._rows.share[positions]
        root = torch.rsqrt(self._values + self._rows.alphas[at])
        d = torch.cat([root, root.new_ones(1)])[:, None]
        gathered = self._gather(positions, e[0].split(self._rows.problem.block))
        Be = d * torch.cat([self._basis.T @ gathered, u.T @ e[0]])
        system = torch.eye(len(d)).to(inner) - d * inner * d.T  # (R + 1, R + 1): I - B'B
        solved, sound = _solve(system[None], Be[None], torch.ones_like(d.T))
        c = d * solved[0]  # (R + 1, K)
        return e + self._spread(positions, self._basis @ c[:-1]) + u * c[-1], sound

    def _hats_of(self, number: int, at: int) -> Tensor:
        """H_gg (N, p, p) of a batch; made for all C at once where there is room to keep that."""
        if number not in self._hats:
            batch, alphas = self._batches[number], self._rows.alphas
            if not self._reserve(batch.numel() * batch.shape[1] * len(alphas)):
                return self._make_hats(batch, alphas[at : at + 1])[0]
            self._hats[number] = self._make_hats(batch, alphas)
        return self._hats[number][at]

    def _make_hats(self, batch: Tensor, alphas: Tensor) -> Tensor:
        """H_gg (len(alphas), N, p, p)."""
        Z = (self._weighted(batch.ravel()) @ self._basis).reshape(*batch.shape, -1)  # (N, p, R)
        u = self._rows.share[batch]  # (N, p, 1)
        hats = Z.new_empty(len(alphas), *batch.shape, batch.shape[1])
        for hat, alpha in zip(hats, alphas, strict=True):
            hat[:] = (Z / (self._values + alpha)) @ Z.mT + u @ u.mT
        return hats

    def _inner_of(self, number: int) -> Tensor:
        """[Z, u]'[Z, u] of a large group, (R + 1, R + 1)."""
        if number in self._inners:
            return self._inners[number]
        inner = torch.zeros(len(self._values) + 1, len(self._values) + 1).to(self.mean)
        for block in self._batches[number][0].split(self._rows.problem.block):
            Zu = torch.cat([self._weighted(block) @ self._basis, self._rows.share[block]], dim=1)
            inner.addmm_(Zu.T, Zu)
        if self._reserve(inner.numel()):
            self._inners[number] = inner
        return inner

    def _reserve(self, numbers: int) -> bool:
        fits = 8 * numbers <= self._room
        self._room -= 8 * numbers if fits else 0
        return fits

    def _weighted(self, positions: Tensor) -> Tensor:
        """Rows of A, (p, D)."""
        return self._rows.read(positions).sub_(self.mean).mul_(self._rows.root[positions])

    def _gather(self, positions: Tensor, parts: Iterable[Tensor]) -> Tensor:
        """A_p'F (D, K), F (p, K) given block by block."""
        total = self.mean.new_zeros(len(self.mean), len(self._rows.target_mean))
        blocks = positions.split(self._rows.problem.block)
        for block, part in zip(blocks, parts, strict=True):
            total.addmm_(self._weighted(block).T, part)
        return total

    def _spread(self, positions: Tensor, M: Tensor) -> Tensor:
        """A_p M (p, K)."""
        blocks = positions.split(self._rows.problem.block)
        return torch.cat([self._weighted(block) @ M for block in blocks])


class _Dual:
    """m <= D + 1: works with AA' (m, m); see the top of the file.

    Attributes:
        mean: (D,) x0.
    """

    def __init__(self, rows: _Rows, batches: list[Tensor]) -> None:
        self._rows, self._batches = rows, batches
        u = rows.share
        self.mean = u.new_empty(rows.problem.features.shape[1])
        gram = u.new_zeros(len(u), len(u))
        for columns in rows.column_blocks():
            self.mean[columns] = u.square()[:, 0] @ rows.read_columns(columns)
            A = self._weighted(columns)
            gram.addmm_(A, A.T)
        _check_finite(self.mean)
        lift = 2 * float(gram.trace()) or 1.0  # the eigenvalue of u, 0, is lifted over all others
        values, vectors = torch.linalg.eigh(gram.addmm_(u, u.T, alpha=lift))
        self._values = (values * _resolved(values))[:-1]  # (R,) with R = m - 1
        self._vectors = vectors[:, :-1]  # (m, R)
        self._moment = self._vectors.T @ rows.targets(rows.every)  # (R, K)

    def coef(self, alpha: float) -> Tensor:
        """W (K, D)."""
        inverse = (self._values > 0) / (self._values + alpha)  # A'U is 0 where a value is
        duals = self._vectors @ (inverse[:, None] * self._moment)  # (m, K)
        blocks = self._rows.column_blocks()
        return torch.cat([duals.T @ self._weighted(columns) for columns in blocks], dim=1)

    def residuals(self, alpha: float) -> Callable[[Tensor], Tensor]:
        """What gives the residuals e (p, K) of p training rows."""
        M = self._shrunk(alpha)[:, None] * self._moment

        def of(positions: Tensor) -> Tensor:
            return self._vectors[positions] @ M

        return of

    def leave_out(self, at: int, number: int, e: Tensor) -> tuple[Tensor, Tensor]:
        """Of a batch of N groups of p rows: t (N, p, K), and (N,) bool, which of them are sound."""
        U = self._vectors[self._batches[number]]  # (N, p, R)
        remainder = (U * self._shrunk(self._rows.alphas[at])) @ U.mT  # (N, p, p)
        return _solve(remainder, e, remainder.diagonal(dim1=1, dim2=2))

    def _shrunk(self, alpha: float | Tensor) -> Tensor:
        return alpha / (self._values + alpha)

    def _weighted(self, columns: slice) -> Tensor:
        """Columns of A, (m, d)."""
        return self._rows.read_columns(columns).sub_(self.mean[columns]).mul_(self._rows.root)


def _solve(systems: Tensor, e: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Solve N systems (N, p, p) for e (N, p, K); (N,) is False where a pivot is rounding."""
    factor, failed = torch.linalg.cholesky_ex(systems)
    pivots = factor.diagonal(dim1=1, dim2=2).square()  # (N, p)
    sound = (failed == 0) & (pivots > _FLOOR * size).all(dim=1)
    return torch.cholesky_solve(e, factor), sound


def _resolved(values: Tensor) -> Tensor:
    """Which of ascending eigenvalues are more than the rounding of the largest."""
    return values > _EPS * len(values) * values[-1]


def _batches(problem: RidgeProblem) -> list[Tensor]:
    """Positions (N, p) among the training rows: N groups of p rows each, as many as fit a block."""
    rows = problem.rows
    groups = rows if problem.groups is None else problem.groups[rows]
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order, ends = np.argsort(inverse, kind="stable"), np.cumsum(counts)
    batches: list[Tensor] = []
    for p in np.unique(counts).tolist():
        starts = (ends - counts)[counts == p]
        positions = torch.from_numpy(order[starts[:, np.newaxis] + np.arange(p)])
        large = p > problem.features.shape[1] + 1
        batches += positions.split(1 if large else max(1, problem.block // p))
    return batches


def _slices(total: int, width: int) -> list[slice]:
    return [slice(start, start + width) for start in range(0, total, width)]


def _check_finite(mean: Tensor) -> None:
    if not bool(mean.isfinite().all()):
        raise ProbeError(
            "ridge: features of training rows are not finite; check the pictures and the "
            "backbone's weights and precision (`featcache verify`)"
        )


def _check(problem: RidgeProblem) -> None:
    """Raise where the arrays disagree; each line says which and what was expected."""
    X, Y, grid, n = problem.features, problem.targets, problem.grid, len(problem.features)
    problems = [
        (X.ndim != 2 or not X.size, f"features of shape {X.shape}; give (n, D)"),
        (Y.ndim != 2 or len(Y) != n, f"targets of shape {Y.shape} for {n} rows; give (n, K)"),
        (
            grid.ndim != 1 or not len(grid) or not bool(np.all(np.isfinite(grid) & (grid > 0))),
            f"grid {grid}; give positive values of C",
        ),
        (problem.memory <= 0, f"memory of {problem.memory} bytes; give a positive number"),
        *(
            (array is not None and array.shape != (n,), f"{name} for {n} rows must be ({n},)")
            for name, array in _by_row(problem).items()
        ),
    ]
    for wrong, message in problems:
        if wrong:
            raise ProbeError(f"ridge: {message}")
    _check_rows(problem)


def _by_row(problem: RidgeProblem) -> dict[str, np.ndarray | None]:
    return {"train": problem.train, "groups": problem.groups, "weights": problem.weights}


def _check_rows(problem: RidgeProblem) -> None:
    """Raise where the training rows cannot be fitted, or not be left out."""
    if problem.train is not None and problem.train.dtype != np.bool_:
        raise ProbeError(f"ridge: train of dtype {problem.train.dtype}; give bool")
    rows = problem.rows
    if not np.isfinite(problem.targets[rows]).all():
        raise ProbeError("ridge: targets of training rows are not finite; give numbers")
    weights = None if problem.weights is None else problem.weights[rows]
    if weights is not None and not bool(np.all(np.isfinite(weights) & (weights > 0))):
        raise ProbeError("ridge: weights of training rows must be finite and not negative")
    groups = rows if problem.groups is None else problem.groups[rows]
    if len(np.unique(groups)) < 2:
        raise ProbeError(
            f"ridge: the {len(rows)} training rows are one group, and no row is left to fit "
            "without it; add rows of another group"
        )
