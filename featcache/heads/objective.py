r"""The objective: loss, gradient, penalty and conventions, stated here and nowhere else.

Shapes: X (n, D) features, W (K, D), b (K,), Z = XW' + b (n, K), Y (n, K) targets, C > 0.
Everything is float64.

*Softmax*, K >= 3 classes, rows of Y are distributions (one-hot, or soft):

    F(W, b) = (1/n) sum_i [ logsumexp(z_i) - y_i . z_i ]  +  ||W||^2 / (2 C n)

which is scikit-learn's objective divided by Cn, so that C means the same. The bias is not
penalised. *Two classes*: scikit-learn fits one vector w. In two columns that is W = [-w/2, +w/2],
whose squared norm is ||w||^2 / 2, and the same objective needs the penalty of C/2:

    F(W, b) = (1/n) sum_i [ logsumexp(z_i) - y_i . z_i ]  +  ||W||^2 / (C n)          (K = 2)

*Logistic*, K columns, Y of 0 and 1 (one-vs-rest: one-hot; several labels: any). Each column is a
problem of its own and the objective is their *sum*:

    F(W, b) = sum_k { (1/n) sum_i [ log(1 + exp(z_ik)) - y_ik z_ik ]  +  ||w_k||^2 / (2 C n) }

Hence a logistic column is the two-class softmax of logits [-z/2, +z/2], and every problem here is
J *independent softmaxes of M classes*: softmax has (J, M) = (1, K), logistic (J, M) = (K, 2).
`grouped_logits` and `grouped_targets` give that form; the certificate needs no other.
"""

from __future__ import annotations

import numpy as np

from featcache.heads.linear import Loss, softmax


def softmax_strength(C: float, classes: int) -> float:
    """The C that a softmax in `classes` columns needs to mean `C`: C/2 for two, else C itself."""
    return C / 2 if classes == 2 else C


def penalty_factor(loss: Loss, n_columns: int, n_rows: int, C: float) -> float:
    """What multiplies ||W||^2 in the objective (see the top of this file)."""
    scale = softmax_strength(C, n_columns) if loss == "softmax" else C
    return 1.0 / (2.0 * scale * n_rows)


def grouped_logits(loss: Loss, Z: np.ndarray) -> np.ndarray:
    """(n, K) logits as (n, J, M): J independent softmaxes of M classes."""
    if loss == "softmax":
        return Z[:, np.newaxis, :]
    return np.stack([-Z / 2, Z / 2], axis=-1)


def grouped_targets(loss: Loss, Y: np.ndarray) -> np.ndarray:
    """(n, K) targets as (n, J, M) distributions, beside `grouped_logits`."""
    if loss == "softmax":
        return Y[:, np.newaxis, :]
    return np.stack([1 - Y, Y], axis=-1)


def balanced_difference(P: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """P - Y of distributions over the last axis, without the cancellation of 1 - 0.999...

    The entry of the largest probability is set to minus the sum of the others, which is the same
    number (both sum to 1) with full relative accuracy when the row is nearly certain.
    """
    R = P - Y
    largest = P.argmax(axis=-1, keepdims=True)
    np.put_along_axis(R, largest, 0.0, axis=-1)
    np.put_along_axis(R, largest, -R.sum(axis=-1, keepdims=True), axis=-1)
    return R


def cross_entropy(Z: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """logsumexp(z) - y . z over the last axis, every term non-negative.

    With m the largest logit and d = z - z_m: log(1 + sum_{k != m} e^{d_k}) - y . d.
    """
    D = Z - Z.max(axis=-1, keepdims=True)
    others = np.exp(D)
    np.put_along_axis(others, Z.argmax(axis=-1, keepdims=True), 0.0, axis=-1)
    return np.log1p(others.sum(axis=-1)) - (Y * D).sum(axis=-1)


def objective(
    loss: Loss, X: np.ndarray, Y: np.ndarray, W: np.ndarray, b: np.ndarray, C: float
) -> float:
    """Value of the objective at (W, b); shapes and conventions as above."""
    return objective_of_logits(loss, X @ W.T + b, Y, W, C)


def objective_of_logits(loss: Loss, Z: np.ndarray, Y: np.ndarray, W: np.ndarray, C: float) -> float:
    """Value of the objective where the logits Z (n, K) are known already."""
    losses = cross_entropy(grouped_logits(loss, Z), grouped_targets(loss, Y))  # (n, J)
    penalty = penalty_factor(loss, len(W), len(Z), C) * np.sum(np.square(W))
    return float(losses.mean(axis=0).sum() + penalty)


def gradient(
    loss: Loss, X: np.ndarray, Y: np.ndarray, W: np.ndarray, b: np.ndarray, C: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of the objective at (W, b): (K, D) for W and (K,) for b."""
    n = len(X)
    P = softmax(grouped_logits(loss, X @ W.T + b))
    R = balanced_difference(P, grouped_targets(loss, Y))  # (n, J, M)
    slope = R[:, 0, :] if loss == "softmax" else R[:, :, 1]  # (n, K): d loss / d z
    return slope.T @ X / n + 2 * penalty_factor(loss, len(W), n, C) * W, slope.mean(axis=0)
