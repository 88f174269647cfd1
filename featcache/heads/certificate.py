r"""A proven bound of how far a point is from the optimum, from any point, converged or not.

One softmax of M classes, with shapes: X (n, D), Z = XW' + b (n, M), Y (n, M), lambda = 1/(Cn)
(at the C of `objective.softmax_strength`; logistic columns are such problems with M = 2).

*The dual.* For any distribution q over M classes, logsumexp(z) >= q . z + H(q), with H the entropy.
Take one q_i a row, Q (n, M), and let R = Q - Y, G = X'R/n (D, M). Then for every W and b

    F(W, b) >= mean_i H(q_i) + <G, W'> + (1'R/n) . b + (lambda/2) ||W||^2

The bias is free, so the right side is bounded below only where 1'R = 0: *Q must have the column
sums of Y*. Minimising over W gives the bound of the optimum

    F* >= D(Q) = mean_i H(q_i) - ||G||^2 / (2 lambda).

*A point that satisfies it.* P = softmax(Z) is optimal at the optimum, but its column sums s = 1'P
equal c = 1'Y only where the bias is solved exactly. With e = s - c and t = max(0, max_k e_k/s_k),

    Q = (1 - t) P + 1 r',    r = (t s - e) / n.

r >= 0 by the choice of t (which is below 1), sum(r) = t, hence rows of Q are distributions; and
1'Q = (1 - t) s + t s - e = c. At the optimum t = 0, Q = P, G = -lambda W' and D(Q) = F.

*Rounding.* gamma = m u bounds the relative error of m-term sums (Higham, Accuracy and Stability of
Numerical Algorithms, 3.1; u is twice the unit roundoff, which covers the quadratic term).
 - Off-largest entries of each q_i define an exact distribution; entropies are sums of positive
   terms, relative error gamma.
 - G: error at most gamma B, B = mean_i ||x_i|| ||r_i||, in the Frobenius norm.
 - Column sums miss c by at most gamma m_k, m_k = sum_i |P - Y|_ik + sum_i |R_ik| + t s_k: the
   numbers that were added. The correction above, applied once more with tau = gamma max_k m_k/c_k,
   would make them exact; it leaves at least (1 - tau) of the entropy and moves G by at most
   2 tau mean_i ||x_i||.
 - F: errors of the logits, at most gamma (||x_i|| ||w_k|| + |b_k|), enter through ||r_i||_1.
All of it is added to the gap's side: the bound stays a bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from featcache.heads import objective as ob
from featcache.heads.linear import Loss, softmax

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


def certify(
    loss: Loss, X: np.ndarray, Y: np.ndarray, W: np.ndarray, b: np.ndarray, C: float
) -> Certificate:
    """Certificate of the point (W, b).

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
    n, D = X.shape
    Z = X @ W.T + b  # (n, K)
    T = ob.grouped_targets(loss, Y)  # (n, J, M)
    P = softmax(ob.grouped_logits(loss, Z))
    gamma = _UNIT * (n + D + 8 * T.shape[-1])
    norms = np.linalg.norm(X, axis=1)  # (n,)
    lower = _dual_bound(X, T, P, norms, ob.softmax_strength(C, T.shape[-1]), gamma)

    value = ob.objective_of_logits(loss, Z, Y, W, C)
    logit_error = norms * np.linalg.norm(W, axis=1).max() + np.abs(b).max()  # (n,)
    slopes = np.abs(ob.balanced_difference(P, T)).sum(axis=(1, 2))  # (n,)
    error = gamma * (value + float(logit_error @ slopes) / n)
    return Certificate(value + error, lower)


def _dual_bound(
    X: np.ndarray, Y: np.ndarray, P: np.ndarray, norms: np.ndarray, C: float, gamma: float
) -> float:
    """Sum over J of max(0, D(Q)), less the rounding; Y and P (n, J, M), norms (n,) of the rows."""
    n, D = X.shape
    Q, R, added = _dual_point(P, Y)
    entropy = _entropy(Q).mean(axis=0)  # (J,)
    G = (X.T @ R.reshape(n, -1)).reshape(D, *R.shape[1:]) / n  # (D, J, M)
    B = norms @ np.linalg.norm(R, axis=2) / n  # (J,)
    tau = gamma * (added / Y.sum(axis=0)).max(axis=1)  # (J,)
    slope = np.linalg.norm(G, axis=(0, 2)) + gamma * B + 2 * tau * norms.mean()  # (J,)
    bound = (1 - tau) * (1 - gamma) * entropy - (1 + gamma) * 0.5 * C * n * slope**2
    return float(np.maximum(bound, 0.0).sum())


def _dual_point(P: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q with the column sums of Y, R = Q - Y (both n, J, M), and m (J, M): see *Rounding*."""
    residual = ob.balanced_difference(P, Y)
    excess = residual.sum(axis=0)  # (J, M): s - c without cancellation
    s = P.sum(axis=0)
    t = np.divide(excess, s, out=np.zeros_like(s), where=excess > 0).max(axis=1, keepdims=True)
    r = np.maximum(t * s - excess, 0.0) / len(P)  # (J, M)
    Q = (1 - t) * P + r
    R = ob.balanced_difference(Q, Y)
    return Q, R, np.abs(residual).sum(axis=0) + np.abs(R).sum(axis=0) + t * s


def _entropy(Q: np.ndarray) -> np.ndarray:
    """Entropy over the last axis; the largest entry is read as 1 minus the others."""
    others = Q.copy()
    np.put_along_axis(others, Q.argmax(axis=-1, keepdims=True), 0.0, axis=-1)
    logs = np.log(others, out=np.zeros_like(others), where=others > 0)
    rest = others.sum(axis=-1)  # below 1
    return -(others * logs).sum(axis=-1) - (1 - rest) * np.log1p(-rest)
