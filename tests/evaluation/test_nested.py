"""The design effect is the mean squared error of a cross-validation, over many sets drawn."""

import numpy as np
import pytest

from featcache.evaluation.intervals import (
    WILSON_NESTED,
    WILSON_NESTED_BY_GROUP,
    accuracy_interval,
)
from featcache.evaluation.nested import DesignEffect, LeftOut
from featcache.evaluation.splits import Folds

K = 5


def partitions(n: int, count: int, seed: int = 0, groups: np.ndarray | None = None) -> list[Folds]:
    """Folds of as many groups each, dealt at random."""
    rng, ids = np.random.default_rng(seed), np.arange(n) if groups is None else groups
    dealt = [rng.permutation(np.arange(ids.max() + 1) % K) for _ in range(count)]
    return [Folds(fold[ids], K, ()) for fold in dealt]


def test_every_set_that_leaves_one_or_two_folds_out_is_there_once() -> None:
    (folds,) = partitions(40, 1)
    left = LeftOut([folds])
    assert len(left) == len(left.train) == K + K * (K - 1) // 2
    assert (left.train == ~left.held_out).all()
    sizes = left.held_out.sum(axis=1)
    assert sorted(sizes.tolist()) == [8] * K + [16] * (K * (K - 1) // 2)
    assert len(np.unique(left.held_out, axis=0)) == len(left)


def test_rows_that_no_fold_holds_out_always_train() -> None:
    folds = Folds(np.array([-1, 0, 1, 2, 0, 1, 2]), 3, ())
    assert LeftOut([folds]).train[:, 0].all()


def test_heads_that_training_does_not_move_have_an_effect_of_one() -> None:
    rng = np.random.default_rng(0)
    effects = []
    for seed in range(250):
        left = LeftOut(partitions(50, 2, seed))
        right = np.tile(rng.random(50) < 0.7, (len(left), 1))
        effects.append(left.design_effect(right, np.arange(50)).value)
    assert np.mean(effects) == pytest.approx(1, abs=4 * np.std(effects) / 250**0.5 + 0.05)


def test_groups_of_copies_count_as_one_row() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 5)
    effects = []
    for seed in range(300):
        left = LeftOut(partitions(200, 1, seed, groups))
        right = np.tile((rng.random(40) < 0.7)[groups], (len(left), 1))
        effects.append(left.design_effect(right, groups).value)
    assert np.mean(effects) == pytest.approx(5, abs=4 * np.std(effects) / 300**0.5 + 0.2)


def nearest_mean(X: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(n,) codes of all rows by the means of the training rows."""
    means = np.stack([X[train & (y == k)].mean(axis=0) for k in (0, 1)])
    return (X @ (means[1] - means[0]) > (means[1] + means[0]) @ (means[1] - means[0]) / 2) * 1


def test_the_effect_is_that_of_the_mean_squared_error() -> None:
    """Simulated truth: cross-validations of n (K-1)/K rows, against the accuracy of their heads."""
    rng, n, D, shift = np.random.default_rng(2), 40, 60, 0.25
    effects, errors, shares = [], [], []
    for seed in range(300):
        y = np.arange(n) % 2
        X = rng.normal(size=(n, D)) + shift * (2 * y[:, None] - 1)
        left = LeftOut(partitions(n, 1, seed))
        right = np.stack([nearest_mean(X, y, train) == y for train in left.train])
        effects.append(left.design_effect(right, np.arange(n)).value)
        m = n * (K - 1) // K
        (folds,) = partitions(m, 1, seed)
        found = [nearest_mean(X[:m], y[:m], folds.train(k))[folds.held_out == k] for k in folds]
        out = [y[:m][folds.held_out == k] for k in folds]
        estimate = np.mean(np.concatenate(found) == np.concatenate(out))
        errors.append(estimate - true_accuracy(X[:m], y[:m], folds, shift))
        shares.append(estimate)
    share = np.mean(shares)
    truth = np.mean(np.square(errors)) / (share * (1 - share) / m)
    assert truth > 1.2  # training matters here, or nothing is tested
    assert np.mean(effects) == pytest.approx(truth, rel=0.25)


def true_accuracy(X: np.ndarray, y: np.ndarray, folds: Folds, shift: float) -> float:
    """Of the heads of all folds, on the population: a Gaussian along each head's direction."""
    from scipy.stats import norm

    found = []
    for k in folds:
        train = folds.train(k)
        low, high = (X[train & (y == c)].mean(axis=0) for c in (0, 1))
        w, b = high - low, (high + low) @ (high - low) / 2
        centre, length = shift * w.sum(), np.linalg.norm(w)
        found.append((norm.cdf((centre - b) / length) + norm.cdf((centre + b) / length)) / 2)
    return float(np.mean(found))


def test_the_interval_counts_rows_by_the_effect_between_one_and_the_folds() -> None:
    right = np.arange(100) < 80
    alone = accuracy_interval(right)

    def found(value: float) -> tuple[float, float]:
        interval = accuracy_interval(right, effect=DesignEffect(value, K))
        assert interval.method == WILSON_NESTED
        return interval.lo, interval.hi

    assert found(0.3) == (alone.lo, alone.hi)
    fewer = accuracy_interval(np.arange(50) < 40)
    assert found(2.0) == pytest.approx((fewer.lo, fewer.hi))
    least = accuracy_interval(np.arange(20) < 16)
    assert found(99.0) == pytest.approx((least.lo, least.hi))


def test_the_effect_never_narrows_what_groups_widened() -> None:
    groups = np.repeat(np.arange(20), 5)
    right = (np.random.default_rng(0).random(20) < 0.7)[groups]
    by_group = accuracy_interval(right, groups)
    found = accuracy_interval(right, groups, effect=DesignEffect(1.5, K))
    assert (found.lo, found.hi) == (by_group.lo, by_group.hi)
    assert found.method == WILSON_NESTED_BY_GROUP


@pytest.mark.parametrize("right", [True, False])
def test_scores_that_are_all_alike_have_no_effect(right: bool) -> None:
    left = LeftOut(partitions(30, 1))
    scores = np.full(left.held_out.shape, right)
    assert left.design_effect(scores, np.arange(30)) == DesignEffect(1.0, K)
