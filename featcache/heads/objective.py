r"""The objective: loss, gradient, penalty and conventions, stated here and nowhere else.

For one problem: X (n, D) features, W (K, D), b (K,), Z = XW' + b (n, K), Y (n, K) targets, a (n,)
weights of the rows that sum to 1 (1/n where nothing weighs more), n their number or total weight
before that, C > 0. Everything is float64.

*Softmax*, K >= 3 classes, rows of Y are distributions (one-hot, or soft):

    F(W, b) = sum_i a_i [ logsumexp(z_i) - y_i . z_i ]  +  ||W||^2 / (2 C n)

which is scikit-learn's objective divided by Cn, so that C means the same. The bias is not
penalised. *Two classes*: scikit-learn fits one vector w. In two columns that is W = [-w/2, +w/2],
whose squared norm is ||w||^2 / 2, and the same objective needs the penalty of C/2:

    F(W, b) = sum_i a_i [ logsumexp(z_i) - y_i . z_i ]  +  ||W||^2 / (C n)            (K = 2)

*Logistic*, K columns, Y from 0 to 1 (one-vs-rest: one-hot; several labels: any). Each column is a
problem of its own and the objective is their *sum*:

    F(W, b) = sum_k { sum_i a_i [ log(1 + exp(z_ik)) - y_ik z_ik ]  +  ||w_k||^2 / (2 C n) }

*Gradient*, both: with R = P - Y, P the softmax or the sigmoid of Z,

    dF/dW = (a R)' X + lambda W,    dF/db = R' a,    lambda = 1/(Cn)    (2/(Cn) for two columns)

*Curvature* along a change D of the logits: sum_i a_i var_i, the variance of d_i under p_i.

Inside, B problems are solved together and the rows come last: Z is (B, K, n), so that the columns
of all problems are rows of one matrix product, and a sum over classes runs along memory. A
`Kernel` is one of the two losses in that layout. What is added is never a difference of nearly
equal numbers: the entry of R at a *pivot* (the given class, or the likeliest of a soft label) is
minus the sum of the others, its logarithm log1p of that sum. Near certainty, where 1 - p rounds
to nothing, losses and residuals so keep their relative accuracy.
"""

# torch ships few types: what it returns is known here by its shape, written beside it
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportConstantRedefinition=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from featcache.heads.linear import Loss


def penalty_factor(loss: Loss, n_columns: int, n_rows: float, C: float) -> float:
    """Lambda / 2: what multiplies ||W||^2 in the objective (see the top of this file)."""
    two = loss == "softmax" and n_columns == 2
    return (2.0 if two else 1.0) / (2.0 * C * n_rows)


@dataclass(frozen=True, eq=False)
class Targets:
    """What rows should be; G is 1 where all problems share it, else B.

    Attributes:
        codes: (G, n) int64 classes, or None.
        dense: (G, K, n) float64 or bool shares of classes (softmax) or labels (logistic), or None.
    """

    codes: Tensor | None
    dense: Tensor | None

    def at(self, rows: slice, dtype: torch.dtype = torch.float64) -> Targets:
        """Those of some rows."""
        return Targets(
            None if self.codes is None else self.codes[:, rows],
            None if self.dense is None else self.dense[..., rows].to(dtype),
        )

    def of(self, problems: Tensor) -> Targets:
        """Those of some problems (indices)."""
        return Targets(_chosen(self.codes, problems), _chosen(self.dense, problems))

    def pivot(self, P: Tensor) -> Tensor:
        """(B, 1, n) the entry of each row that is taken from the others."""
        if self.codes is None:
            return P.argmax(dim=1, keepdim=True)
        return self.codes[:, None, :].expand(len(P), 1, -1)

    def less(self, P: Tensor, pivot: Tensor) -> Tensor:
        """(B, K, n) P - Y, 0 at the pivot."""
        return (P if self.dense is None else P - self.dense).scatter(1, pivot, 0.0)

    def along(self, D: Tensor) -> Tensor:
        """(B, d, n) sums over classes of Y x D, D (B, d, K, n)."""
        if self.codes is not None:
            codes = self.codes[:, None, None, :].expand(*D.shape[:2], 1, -1)
            return D.gather(2, codes)[:, :, 0]
        return (self.dense[:, None] * D).sum(dim=2)  # pyright: ignore[reportOptionalSubscript]

    def one_hot(self, classes: int, problems: int) -> Tensor:
        """(B, K, n) float64."""
        if self.codes is None:
            dense = self.dense.to(torch.float64)  # pyright: ignore[reportOptionalMemberAccess]
            return dense.expand(problems, -1, -1)
        shape = (problems, classes, self.codes.shape[1])
        zeros = torch.zeros(shape, dtype=torch.float64, device=self.codes.device)
        return zeros.scatter_(1, self.codes[:, None, :].expand(problems, 1, -1), 1.0)


def _chosen(held: Tensor | None, problems: Tensor) -> Tensor | None:
    return held if held is None or len(held) == 1 else held[problems]


@dataclass(frozen=True, eq=False)
class Residuals:
    """At some logits: R = P - Y and P (1 - P), both (B, K, n), and losses (B, n)."""

    R: Tensor
    spread: Tensor
    losses: Tensor


class Kernel(Protocol):
    """One of the two losses, on logits Z (B, K, n)."""

    loss: Loss

    def residuals(self, Z: Tensor, targets: Targets) -> Residuals:
        """Losses, and what gradient and curvature are made of."""
        ...

    def moments(self, Z: Tensor, D: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Means (B, d, n) under P of d changes D (B, d, K, n), and the covariances (B, d, d).

        Covariances are summed over the rows, with weights a (B, n).
        """
        ...

    def shares(self, Z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """What `bending` takes, and the means (B, K) of P, for weights a (B, n).

        The gradient of the mean loss in the bias is the means less those of Y.
        """
        ...

    def bending(self, P: Tensor, a: Tensor) -> Tensor:
        """The Hessian (B, K, K) of the mean loss in the bias; P may be overwritten."""
        ...

    def correction(self, excess: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """T (B, 1) and r (B, K) of the dual point, from s - c and c (see `certificate`)."""
        ...

    def dual(self, Z: Tensor, targets: Targets, t: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy (B, n) of Q = (1 - t) P + r, and Q - Y (B, K, n)."""
        ...


class Softmax:
    """Classes exclude each other; a class that a problem lacks has the logit -inf."""

    loss: Loss = "softmax"

    def residuals(self, Z: Tensor, targets: Targets) -> Residuals:
        """Losses, and what gradient and curvature are made of."""
        logs = torch.log_softmax(Z, dim=1)
        P = logs.exp()
        pivot = targets.pivot(P)
        R = targets.less(P, pivot)
        rest = (R if targets.dense is None else P.scatter(1, pivot, 0.0)).sum(dim=1)
        R.scatter_(1, pivot, -R.sum(dim=1, keepdim=True))
        certain = torch.where(rest < 0.5, -torch.log1p(-rest), -logs.gather(1, pivot)[:, 0])
        if targets.dense is None:
            return Residuals(R, P * (1 - P), certain)
        others = torch.where(targets.dense > 0, targets.dense * (Z - Z.gather(1, pivot)), 0.0)
        return Residuals(R, P * (1 - P), certain - others.sum(dim=1))

    def moments(self, Z: Tensor, D: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Means (B, d, n) under P of d changes D (B, d, K, n), and the covariances (B, d, d)."""
        weighted = torch.softmax(Z, dim=1)[:, None] * D
        means = weighted.sum(dim=2)
        weighted *= a[:, None, None]
        squares = _products(weighted.flatten(2), D.flatten(2))
        return means, squares - _products(means * a[:, None], means)

    def shares(self, Z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """P (B, K, n), and its means (B, K) for weights a (B, n)."""
        P = torch.softmax(Z, dim=1)
        return P, (P @ a[..., None])[..., 0]

    def bending(self, P: Tensor, a: Tensor) -> Tensor:
        """Sum_i a_i (diag(p_i) - p_i p_i'), its diagonal minus the others' sum.

        It is by float32 products: a Newton step need not know it better.
        """
        P = P.float()
        H = -((P * a[:, None].float()) @ P.mT).double()
        H.diagonal(dim1=1, dim2=2).zero_()
        H.diagonal(dim1=1, dim2=2).sub_(H.sum(dim=2))
        return H

    def correction(self, excess: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """T (B, 1) and r (B, K) of the dual point, from s - c and c (see `certificate`)."""
        s = share + excess
        t = torch.where(excess > 0, excess / s, 0.0).amax(dim=1, keepdim=True)
        return t, (t * s - excess).clamp_(min=0)

    def dual(self, Z: Tensor, targets: Targets, t: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy (B, n) of Q = (1 - t) P + r, and Q - Y (B, K, n)."""
        Q = torch.softmax(Z, dim=1).mul_((1 - t)[..., None]).add_(r[..., None])
        pivot = targets.pivot(Q)
        chosen = Q.gather(1, pivot)[:, 0]
        R = targets.less(Q, pivot)
        others = R if targets.dense is None else Q.scatter(1, pivot, 0.0)
        rest = others.sum(dim=1)
        entropy = torch.where(rest < 0.5, -(1 - rest) * torch.log1p(-rest), -_plogp(chosen))
        entropy -= _plogp(others).sum(dim=1)
        return entropy, R.scatter_(1, pivot, -R.sum(dim=1, keepdim=True))


class Logistic:
    """One column a problem (K = 1): the two-class softmax of logits [-z/2, z/2]."""

    loss: Loss = "logistic"

    def residuals(self, Z: Tensor, targets: Targets) -> Residuals:
        """Losses, and what gradient and curvature are made of."""
        Y = _dense(targets)
        p, q = torch.sigmoid(Z), torch.sigmoid(-Z)
        losses = Y * torch.nn.functional.softplus(-Z) + (1 - Y) * torch.nn.functional.softplus(Z)
        return Residuals((1 - Y) * p - Y * q, p * q, losses[:, 0])

    def moments(self, Z: Tensor, D: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Means (B, d, n) under P of d changes D (B, d, 1, n), and the covariances (B, d, d)."""
        p, q, d = torch.sigmoid(Z), torch.sigmoid(-Z), D[:, :, 0]
        return p * d, _products(a[:, None] * p * q * d, d)

    def shares(self, Z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Both probabilities (B, 2, n), and the means (B, 1) of the first for weights a (B, n)."""
        P = torch.sigmoid(torch.cat([Z, -Z], dim=1))
        return P, (P[:, :1] @ a[..., None])[..., 0]

    def bending(self, P: Tensor, a: Tensor) -> Tensor:
        """(B, 1, 1) sum_i a_i p_i (1 - p_i)."""
        return (P[:, :1] * P[:, 1:]) @ a[..., None]

    def correction(self, excess: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """T (B, 1) and r (B, K) of the dual point, from s - c and c (see `certificate`)."""
        s = share + excess
        t = torch.where(excess > 0, excess / s, -excess / (1 - s))
        return t, (t * s - excess).clamp_(min=0)

    def dual(self, Z: Tensor, targets: Targets, t: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy (B, n) of Q = (1 - t) P + r, and Q - Y (B, K, n)."""
        Y = _dense(targets)
        keep, label, none = (1 - t)[..., None], r[..., None], (t - r).clamp(min=0)[..., None]
        q, other = keep * torch.sigmoid(Z) + label, keep * torch.sigmoid(-Z) + none
        less = torch.minimum(q, other)
        entropy = -_plogp(less) - (1 - less) * torch.log1p(-less)
        return entropy[:, 0], (1 - Y) * q - Y * other


def _products(A: Tensor, B: Tensor) -> Tensor:
    """(B, d, d) of vectors A and B (B, d, N); a product of single ones is slow in torch."""
    if A.shape[1] == 1:
        return torch.linalg.vecdot(A, B)[..., None]
    return A @ B.mT


def _plogp(P: Tensor) -> Tensor:
    """P log P, 0 at 0: torch's own `xlogy` is not vectorised, and takes ten times as long."""
    return P.clamp(min=torch.finfo(P.dtype).tiny).log_().mul_(P)


def _dense(targets: Targets) -> Tensor:
    if targets.dense is None:
        raise TypeError("logistic targets are columns of 0 to 1")
    return targets.dense


def kernel_of(loss: Loss) -> Kernel:
    """The kernel of a loss."""
    return Softmax() if loss == "softmax" else Logistic()


def single(loss: Loss, X: np.ndarray, Y: np.ndarray) -> tuple[Kernel, Tensor, Targets]:
    """One softmax, or K logistic columns, in the layout of kernels: X (n, D) and the targets."""
    columns = torch.from_numpy(np.ascontiguousarray(Y.T, np.float64))
    dense = columns[None] if loss == "softmax" else columns[:, None]
    return kernel_of(loss), torch.from_numpy(np.asarray(X, np.float64)), Targets(None, dense)


def logits(loss: Loss, X: Tensor, W: np.ndarray, b: np.ndarray) -> Tensor:
    """(1, K, n) for softmax, (K, 1, n) for logistic."""
    Z = torch.from_numpy(np.asarray(W, np.float64)) @ X.T + torch.from_numpy(b)[:, None]
    return Z[None] if loss == "softmax" else Z[:, None]


def objective(
    loss: Loss, X: np.ndarray, Y: np.ndarray, W: np.ndarray, b: np.ndarray, C: float
) -> float:
    """Value of the objective at (W, b), rows weighing the same; shapes as at the top."""
    kernel, features, targets = single(loss, X, Y)
    losses = kernel.residuals(logits(loss, features, W, b), targets).losses
    penalty = penalty_factor(loss, len(W), len(X), C) * np.sum(np.square(W))
    return float(losses.mean(dim=1).sum()) + float(penalty)


def gradient(
    loss: Loss, X: np.ndarray, Y: np.ndarray, W: np.ndarray, b: np.ndarray, C: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of the objective at (W, b): (K, D) for W and (K,) for b."""
    kernel, features, targets = single(loss, X, Y)
    R = kernel.residuals(logits(loss, features, W, b), targets).R
    R = R.reshape(len(W), -1) / len(X)
    data = (R @ features).numpy()
    return data + 2 * penalty_factor(loss, len(W), len(X), C) * W, R.sum(dim=1).numpy()
