"""Problems of known kinds, and a float64 Newton solver as the referee of optima."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit

from featcache.heads.linear import softmax
from featcache.heads.objective import gradient, objective


def draw_problem(seed: int, n: int, D: int, K: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, D) float64 and codes (n,), every class with a row."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)) * rng.uniform(0.1, 3, size=D)
    codes = np.concatenate([np.arange(K), rng.integers(K, size=n - K)])
    if kind == "imbalanced":
        codes[K:] = 0
    if kind == "separable":
        X[:, 0] += 20 * codes
    if kind == "duplicate":
        X[:, D // 2 :] = X[:, : D - D // 2]
    if kind == "constant":
        X[:, 0] = 7.0
    if kind == "offset":
        X += 50.0
    return X, codes


def newton(
    loss: str, X: np.ndarray, Y: np.ndarray, C: float, steps: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Damped Newton on all coefficients and biases at once; dense, for small problems."""
    n, D = X.shape
    K = Y.shape[1]
    A = np.hstack([X, np.ones((n, 1))])  # (n, D + 1)
    theta = np.zeros((K, D + 1))
    scale = C / 2 if loss == "softmax" and K == 2 else C
    ridge = np.kron(np.eye(K), np.diag([1 / (scale * n)] * D + [0.0]))

    def value(at: np.ndarray) -> float:
        return objective(loss, X, Y, at[:, :D], at[:, D], C)

    for _ in range(steps):
        gW, gb = gradient(loss, X, Y, theta[:, :D], theta[:, D], C)
        g = np.hstack([gW, gb[:, None]]).ravel()
        Z = A @ theta.T
        if loss == "softmax":
            P = softmax(Z)
            curvature = np.einsum("nk,kl->nkl", P, np.eye(K)) - np.einsum("nk,nl->nkl", P, P)
        else:
            curvature = np.einsum("nk,kl->nkl", expit(Z) * expit(-Z), np.eye(K))
        H = np.einsum("nkl,ni,nj->kilj", curvature, A, A, optimize=True) / n
        H = H.reshape(K * (D + 1), -1) + ridge
        step = -np.linalg.lstsq(H, g, rcond=1e-15)[0]
        now, rate = value(theta), 1.0
        while rate > 1e-12 and value(theta + rate * step.reshape(K, -1)) > now:
            rate /= 2
        if rate <= 1e-12:
            break
        theta = theta + rate * step.reshape(K, -1)
        if -(g @ step) < 1e-14 * now:
            break
    return theta[:, :D], theta[:, D]


@pytest.fixture(scope="session")
def problem_of() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return draw_problem


@pytest.fixture(scope="session")
def referee() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return newton


@pytest.fixture(scope="session")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """120 overlapping rows of 4 classes, 20 correlated non-negative features, float32."""
    rng = np.random.default_rng(5)
    codes = np.arange(120) % 4
    hidden = rng.normal(size=(120, 6)) + 1.5 * rng.normal(size=(4, 6))[codes]
    X = np.maximum(hidden @ rng.normal(size=(6, 20)) + 0.3 * rng.normal(size=(120, 20)), 0)
    return X.astype(np.float32), codes
