r"""A proven bound of how far a point is from the optimum, from any point, converged or not.

One softmax of M classes, with shapes: X (n, D), Z = XW' + b (n, M), Y (n, M), weights a (n,) that
sum to 1, written mean_i, and lambda as in `objective` (a logistic column is such a problem with
M = 2, logits [-z/2, z/2] and twice its lambda).

*The dual.* For any distribution q over M classes, logsumexp(z) >= q . z + H(q), with H the entropy.
Take one q_i a row, Q (n, M), and let R = Q - Y, G = mean_i r_i x_i' (M, D). Then for every W and b

    F(W, b) >= mean_i H(q_i) + <G, W> + (mean_i r_i) . b + (lambda/2) ||W||^2

The bias is free, so the right side is bounded below only where mean_i r_i = 0: *Q must have the
column means of Y*. Minimising over W gives the bound of the optimum

    F* >= D(Q) = mean_i H(q_i) - ||G||^2 / (2 lambda).

*A point that satisfies it.* P = softmax(Z) is optimal at the optimum, but its column means s
equal c, those of Y, only where the bias is solved exactly. With e = s - c (the gradient's bias
coordinate) and t = max(0, max_k e_k/s_k),

    Q = (1 - t) P + 1 r',    r = t s - e.

r >= 0 by the choice of t (which is below 1), sum(r) = t, hence rows of Q are distributions; and
its column means are (1 - t) s + t s - e = c. At the optimum t = 0, Q = P, G = -lambda W and
D(Q) = F.

*No product is needed.* With g = mean_i (p_i - y_i) x_i', which the solver has at every point,
XY = mean_i y_i x_i' and X1 = mean_i x_i, which never change,

    G = g - t (g + XY) + r X1'.

A certificate therefore costs one pass over the logits, and none over the features.

*An offset.* Logits may have a part o_i (M) that no weight changes (`solver`: a head drawn to given
weights). F then has q_i . o_i in its lower bound, and D(Q) the term mean_i r_i . o_i.

*Rounding.* gamma = m u bounds the relative error of m-term sums (Higham, Accuracy and Stability of
Numerical Algorithms, 3.1; u is twice the unit roundoff, which covers the quadratic term).
 - Off-largest entries of each q_i define an exact distribution; entropies are sums of positive
   terms, relative error gamma.
 - G: error at most gamma B, B = mean_i ||x_i|| (||r_i|| + ||p_i - y_i||) + t ||XY||, in the
   Frobenius norm.
 - Column means miss c by at most gamma m_k, m_k = mean_i |P - Y|_ik + mean_i |R_ik| + t s_k: the
   numbers that were added. The correction above, applied once more with tau = gamma max_k m_k/c_k,
   would make them exact; it leaves at least (1 - tau) of the entropy and moves G by at most
   2 tau mean_i ||x_i||.
 - F: errors of the logits, at most gamma (||x_i|| w + b), enter through ||p_i - y_i||_1. Here w and
   b are the lengths of the way that the largest row of W and of the bias went: logits are summed
   step by step, each step's product with its own error. Logits that are kept in float32 add its
   unit.
All of it is added to the gap's side: the bound stays a bound.
"""

# torch ships few types: what it returns is known here by its shape, written beside it
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportConstantRedefinition=false

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from featcache.heads import objective as ob
from featcache.heads.batch import Batch, Evaluation
from featcache.heads.linear import Loss
from featcache.heads.rows import DenseRows

_UNIT = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Certificate:
    """What is proven of a point.

    Attributes:
        objective: value at the point, at most rounding above the true one.
        lower: no point has an objective below this.
    """

    objective: float
    lower: float

    @property
    def relative_gap(self) -> float:
        """Upper bound of (objective - optimum) / objective, from 0 to 1 (and rounding)."""
        return (self.objective - self.lower) / self.objective if self.objective > 0 else 0.0

    @classmethod
    def of_sum(cls, parts: Iterable[Self]) -> Self:
        """The certificate of independent problems whose objectives are added."""
        listed = list(parts)
        return cls(sum(p.objective for p in listed), sum(p.lower for p in listed))


class Travel(NamedTuple):
    """How far the largest row of W, and the bias, went to a point: both (B,)."""

    weights: Tensor
    bias: Tensor

    def nowhere(self) -> Travel:
        """As many that went no way."""
        return Travel(*(torch.zeros_like(way) for way in self))

    def plus(self, step: Travel, rate: Tensor) -> Travel:
        """With a step of some rate (B,)."""
        return Travel(*(way + rate.abs() * more for way, more in zip(self, step, strict=True)))

    def of_problems(self, problems: Tensor) -> Travel:
        """That of some problems (indices)."""
        return Travel(self.weights[problems], self.bias[problems])

    @classmethod
    def of(cls, step: Tensor) -> Travel:
        """That of one step (B, K, R + 1) from the origin."""
        lengths = torch.linalg.vector_norm(step[..., :-1], dim=2, dtype=torch.float64)
        return cls(lengths.amax(dim=1), step[..., -1].abs().amax(dim=1).double())


def bounds(
    batch: Batch, W: Tensor, Z: Tensor, at: Evaluation, strength: Tensor, travel: Travel
) -> tuple[Tensor, Tensor]:
    """Objective and lower bound of the optimum of each problem, rounding included.

    Args:
        batch: the problems.
        W: (B, K, R + 1) where they are.
        Z: (B, K, n) its logits.
        at: losses and gradient there.
        strength: (B,) lambda.
        travel: how they came there.
    """
    gamma = _UNIT * _terms(batch)
    value = at.loss + strength / 2 * W[..., :-1].square().sum(dim=(1, 2))
    rounding = gamma + (0.0 if Z.dtype == torch.float64 else torch.finfo(Z.dtype).eps)
    error = travel.weights * at.long_residuals + travel.bias * at.residuals
    error = gamma * value + rounding * error
    return value + error, _dual_bound(batch, Z, at, strength, gamma)


def addition_share(batch: Batch) -> float:
    """How much of the straight way to its sum an addition in float64 adds to it, by rounding."""
    return 1 / (2 * _terms(batch))


def _terms(batch: Batch) -> int:
    """M of gamma."""
    return len(batch.rows) + batch.rows.width + 8 * batch.classes


def _dual_bound(batch: Batch, Z: Tensor, at: Evaluation, strength: Tensor, gamma: float) -> Tensor:
    """(B,) max(0, D(Q)), less the rounding."""
    excess, share = at.gradient[..., -1], batch.targets_sum[..., -1]
    t, r = batch.kernel.correction(excess, share)
    entropy, long_rows, added, leaning, leaned = _dual_sums(batch, Z, t, r)
    G = at.gradient - t[..., None] * (at.gradient + batch.targets_sum)
    G += r[..., None] * batch.rows_sum[:, None, :]
    B = (
        long_rows
        + at.long_residuals
        + t[:, 0] * torch.hypot(batch.targets_length, share.norm(dim=1))
    )
    m = added + at.column_residuals + t * (share + excess)
    tau = gamma * torch.where(share > 0, m / share, 0.0).amax(dim=1)
    slope = G[..., :-1].flatten(1).norm(dim=1) + gamma * B + 2 * tau * batch.mean_norm
    bound = (1 - tau) * (1 - gamma) * entropy - (1 + gamma) * slope.square() / (2 * strength)
    bound += leaning - (gamma + 2 * tau) * leaned - gamma * batch.reach * long_rows
    return bound.clamp(min=0)


def _dual_sums(
    batch: Batch, Z: Tensor, t: Tensor, r: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means over the rows.

    Returns:
        Entropy of Q (B,), |x| |q - y| (B,), |q - y| by column (B, K), (q - y) . o (B,) and the sum
        of what that adds up, |o|_max beside it (B,).
    """
    entropy, long_rows, leaning, leaned = r.new_zeros(4, len(Z))
    added = torch.zeros_like(r)
    for rows in batch.blocks():
        a = batch.weights[:, rows]
        H, R = batch.kernel.dual(Z[..., rows].double(), batch.targets.at(rows), t, r)
        entropy += (a * H).sum(dim=1)
        if batch.offset is not None:
            o = batch.offset[..., rows]
            leaning += (a * (R * o).sum(dim=1)).sum(dim=1)
            leaned += (a * o.abs().amax(dim=1) * (R.abs().sum(dim=1) + 1)).sum(dim=1)
        R.abs_()
        long_rows += (a * batch.rows.norms[:, rows] * R.sum(dim=1)).sum(dim=1)
        added += (R @ a[..., None])[..., 0]
    return entropy, long_rows, added, leaning, leaned


def certify(
    loss: Loss, X: np.ndarray, Y: np.ndarray, W: np.ndarray, b: np.ndarray, C: float
) -> Certificate:
    """Certificate of the point (W, b), for rows that weigh the same.

    Args:
        loss: how the K columns are read.
        X: (n, D) float64; centred features give the least rounding allowance.
        Y: (n, K) float64 targets; each class (softmax), each label and its absence (logistic) has
            at least one row.
        W: (K, D) float64.
        b: (K,) float64.
        C: inverse strength of the penalty, as in `objective`.

    Returns:
        The objective with its rounding error added, and the lower bound with its own taken off;
        for logistic, of the sum over columns.
    """
    kernel, features, targets = ob.single(loss, X, Y)
    n, problems = len(X), 1 if loss == "softmax" else len(W)
    weights = features.new_full((problems, n), 1 / n)
    batch = Batch.of(DenseRows.of(features[None], weights[:1]), kernel, targets, weights, len(W))
    point = torch.from_numpy(np.hstack([W, b[:, None]])).view(problems, -1, X.shape[1] + 1)
    Z = ob.logits(loss, features, W, b)
    strength = weights.new_full((problems,), 2 * ob.penalty_factor(loss, len(W), n, C))
    value, lower = bounds(batch, point, Z, batch.evaluate(Z), strength, Travel.of(point))
    return Certificate(float(value.sum()), float(lower.sum()))
