from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featcache.heads.certificate import Certificate, certify
from featcache.heads.objective import gradient, objective

KINDS = ["plain", "imbalanced", "separable", "duplicate", "constant", "offset"]
PROBLEMS = {
    "seed": st.integers(0, 2**32 - 1),
    "n": st.integers(6, 40),
    "D": st.integers(2, 16),
    "K": st.sampled_from([2, 3, 5]),
    "kind": st.sampled_from(KINDS),
    "loss": st.sampled_from(["softmax", "logistic"]),
    "decade": st.floats(-6, 6),
}


def unconverged_points(rng, loss, X, Y, C, best):
    """Zeros, noise, the optimum disturbed a little and a lot, and a few steps of descent."""
    W, b = best
    yield np.zeros_like(W), np.zeros_like(b)
    yield rng.normal(size=W.shape), rng.normal(size=b.shape)
    for size in (1e-8, 1e-5, 1e-3, 0.1, 1.0):
        yield W + size * rng.normal(size=W.shape), b + size * rng.normal(size=b.shape)
    yield W, b + 0.5  # the bias alone is off: no gradient bound would notice
    W, b = np.zeros_like(W), np.zeros_like(b)
    for _ in range(5):
        gW, gb = gradient(loss, X, Y, W, b, C)
        rate = 1 / (np.square(X).sum(axis=1).max() + 1 + 2 / C)
        W, b = W - rate * gW, b - rate * gb
        yield W, b


@settings(max_examples=120, deadline=None)
@given(**PROBLEMS)
@example(seed=0, n=6, D=16, K=5, kind="plain", loss="softmax", decade=6.0)  # n < D
@example(seed=0, n=40, D=3, K=5, kind="imbalanced", loss="softmax", decade=-6.0)
@example(seed=0, n=40, D=3, K=2, kind="separable", loss="logistic", decade=6.0)
def test_bound_is_never_below_the_true_gap(problem_of, referee, seed, n, D, K, kind, loss, decade):
    X, codes = problem_of(seed, n, D, K, kind)
    Y, C = np.eye(K)[codes], 10.0**decade
    best = referee(loss, X, Y, C)
    optimum = objective(loss, X, Y, *best, C)
    for W, b in unconverged_points(np.random.default_rng(seed), loss, X, Y, C, best):
        proven = certify(loss, X, Y, W, b, C)
        value = objective(loss, X, Y, W, b, C)
        assert proven.objective >= value
        assert proven.relative_gap >= (value - optimum) / value
        assert proven.lower <= optimum
        assert 0 <= proven.relative_gap <= 1


@settings(max_examples=60, deadline=None)
@given(**PROBLEMS)
def test_bound_vanishes_at_the_optimum(problem_of, referee, seed, n, D, K, kind, loss, decade):
    X, codes = problem_of(seed, n, D, K, kind)
    X = X - X.mean(axis=0)
    Y, C = np.eye(K)[codes], 10.0**decade
    proven = certify(loss, X, Y, *referee(loss, X, Y, C), C)
    assert 0 <= proven.relative_gap < 1e-6


def test_bound_shrinks_with_the_distance(problem_of, referee):
    X, codes = problem_of(1, 60, 8, 3, "plain")
    Y = np.eye(3)[codes]
    W, b = referee("softmax", X, Y, 1.0)
    rng = np.random.default_rng(0)
    dW, db = rng.normal(size=W.shape), rng.normal(size=b.shape)
    gaps = [
        certify("softmax", X, Y, W + h * dW, b + h * db, 1.0).relative_gap
        for h in (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
    ]
    assert all(after < before for before, after in pairwise(gaps))
    assert gaps[-1] < 1e-6


@pytest.mark.parametrize("C", [1e-6, 1.0, 1e6])
def test_an_unsolved_bias_is_seen(problem_of, referee, C):
    """Where W is optimal and only the bias is off, ||gradient||^2 / 2 lambda is no bound."""
    X, codes = problem_of(2, 60, 4, 3, "imbalanced")
    X, Y = X - X.mean(axis=0), np.eye(3)[codes]
    W, b = referee("softmax", X, Y, C)
    at = certify("softmax", X, Y, W, b, C)
    off = certify("softmax", X, Y, W, b + np.array([0.2, 0.0, 0.0]), C)
    true_gap = (off.objective - at.objective) / off.objective
    assert off.relative_gap >= true_gap > 1e-3 * at.relative_gap


def test_columns_add_up(problem_of):
    X, codes = problem_of(3, 50, 6, 4, "plain")
    Y = np.eye(4)[codes]
    rng = np.random.default_rng(1)
    W, b = 0.1 * rng.normal(size=(4, 6)), rng.normal(size=4)
    together = certify("logistic", X, Y, W, b, 0.3)
    parts = [certify("logistic", X, Y[:, [k]], W[[k]], b[[k]], 0.3) for k in range(4)]
    added = Certificate.of_sum(parts)
    assert together.objective == pytest.approx(added.objective, rel=1e-10)
    assert together.lower == pytest.approx(added.lower, rel=1e-9)


def test_a_logistic_column_is_a_two_class_softmax(problem_of):
    X, codes = problem_of(4, 50, 6, 2, "plain")
    rng = np.random.default_rng(1)
    w, b = 0.1 * rng.normal(size=(1, 6)), rng.normal(size=1)
    column = certify("logistic", X, np.eye(2)[codes][:, 1:], w, b, 0.3)
    pair = certify(
        "softmax", X, np.eye(2)[codes], np.vstack([-w, w]) / 2, np.concatenate([-b, b]) / 2, 0.3
    )
    assert column.relative_gap == pytest.approx(pair.relative_gap, rel=1e-9)


def test_soft_labels_are_bounded_too():
    rng = np.random.default_rng(7)
    X, Y = rng.normal(size=(40, 3)), rng.dirichlet(np.ones(3), size=40)
    W, b = np.zeros((3, 3)), np.log(Y.mean(axis=0))
    proven = certify("softmax", X, Y, W, b, 1e-9)
    assert 0 <= proven.relative_gap < 1e-6  # at so strong a penalty the class shares are optimal
