import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.special import expit, logsumexp
from sklearn.linear_model import LogisticRegression

from featcache.heads.objective import gradient, objective


def problem(seed, n, D, K):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D))
    Y = np.eye(K)[rng.integers(K, size=n)]
    return X, Y, rng.normal(size=(K, D)), rng.normal(size=K)


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
@pytest.mark.parametrize("K", [2, 3, 5])
def test_value_is_the_formula(loss, K):
    X, Y, W, b = problem(0, 30, 4, K)
    n, C = 30, 0.7
    Z = X @ W.T + b
    if loss == "softmax":
        expected = np.mean(logsumexp(Z, axis=1) - (Y * Z).sum(1))
        expected += (W**2).sum() / (2 * C * n) * (2 if K == 2 else 1)
    else:
        expected = -np.mean(np.log(np.where(Y == 1, expit(Z), expit(-Z))), axis=0).sum()
        expected += (W**2).sum() / (2 * C * n)
    assert objective(loss, X, Y, W, b, C) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    K=st.sampled_from([2, 3, 5]),
    loss=st.sampled_from(["softmax", "logistic"]),
    decade=st.integers(-4, 4),
)
def test_gradient_is_that_of_finite_differences(seed, K, loss, decade):
    X, Y, W, b = problem(seed, 12, 3, K)
    C = 10.0**decade

    def value(flat):
        theta = flat.reshape(K, 4)
        return objective(loss, X, Y, theta[:, :3], theta[:, 3], C)

    point = np.hstack([W, b[:, None]]).ravel()
    numeric = approx_fprime(point, value, 1e-7).reshape(K, 4)
    gW, gb = gradient(loss, X, Y, W, b, C)
    scale = 1 + np.abs(gW).max()
    np.testing.assert_allclose(gW, numeric[:, :3], atol=1e-5 * scale)
    np.testing.assert_allclose(gb, numeric[:, 3], atol=1e-5 * scale)


def test_gradient_takes_soft_targets():
    X, _, W, b = problem(1, 12, 3, 4)
    Y = np.random.default_rng(2).dirichlet(np.ones(4), size=12)
    gW, gb = gradient("softmax", X, Y, W, b, 2.0)
    move = 1e-6
    for k in range(4):
        up, down = b.copy(), b.copy()
        up[k] += move
        down[k] -= move
        slope = objective("softmax", X, Y, W, up, 2.0) - objective("softmax", X, Y, W, down, 2.0)
        assert gb[k] == pytest.approx(slope / (2 * move), abs=1e-7)
    assert gW.shape == W.shape


@pytest.mark.parametrize("K", [2, 3, 5])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_optimum_is_scikit_learns(K, C):
    """scikit-learn, run to convergence, is where this gradient vanishes: C means the same."""
    rng = np.random.default_rng(3)
    codes = np.arange(90) % K
    X = rng.normal(size=(90, 5)) + codes[:, None]
    model = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(X, codes)
    W, b = model.coef_, model.intercept_
    if K == 2:
        W, b = np.vstack([-W, W]) / 2, np.concatenate([-b, b]) / 2
    gW, gb = gradient("softmax", X, np.eye(K)[codes], W, b, C)
    assert max(np.abs(gW).max(), np.abs(gb).max()) < 1e-6


def test_two_classes_and_one_logistic_column_are_the_same_problem():
    X, Y, W, b = problem(4, 25, 3, 2)
    w, bias = W[1:], b[1:]
    pair = np.vstack([-w, w]) / 2, np.concatenate([-bias, bias]) / 2
    column = objective("logistic", X, Y[:, 1:], w, bias, 3.0)
    assert objective("softmax", X, Y, *pair, 3.0) == pytest.approx(column, rel=1e-13)


def test_logistic_is_the_sum_of_its_columns():
    X, Y, W, b = problem(5, 25, 3, 4)
    parts = [
        objective("logistic", X, Y[:, k : k + 1], W[k : k + 1], b[k : k + 1], 3.0) for k in range(4)
    ]
    assert objective("logistic", X, Y, W, b, 3.0) == pytest.approx(sum(parts), rel=1e-13)


def test_nearly_certain_rows_keep_their_accuracy():
    """At a margin of 60 the loss is e^-60, which 1 - p cannot hold."""
    X, Y = np.array([[1.0], [-1.0]]), np.eye(2)
    W, b = np.array([[30.0], [-30.0]]), np.zeros(2)
    penalty = 2 * 900 / 1e300
    assert objective("softmax", X, Y, W, b, 1e300) == pytest.approx(
        np.exp(-60) + penalty, rel=1e-12
    )
    gW, _ = gradient("softmax", X, Y, W, b, 1e300)
    np.testing.assert_allclose(gW, np.array([[-1.0], [1.0]]) * np.exp(-60), rtol=1e-12)
