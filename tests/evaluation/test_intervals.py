import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from featcache.errors import ProbeError
from featcache.evaluation.intervals import (
    WILSON,
    WILSON_BY_GROUP,
    accuracy_interval,
    effective_rows,
)


@given(
    n=st.integers(1, 2000),
    share=st.floats(0, 1),
    confidence=st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_independent_rows_are_wilsons(n, share, confidence):
    right = round(share * n)
    found = accuracy_interval(np.arange(n) < right, confidence=confidence)
    expected = binomtest(right, n).proportion_ci(confidence, method="wilson")
    assert found.lo == pytest.approx(expected.low, abs=1e-12)
    assert found.hi == pytest.approx(expected.high, abs=1e-12)
    assert (found.confidence, found.method) == (confidence, WILSON)


def test_groups_of_one_row_are_independent_rows():
    correct = np.arange(50) < 40
    assert accuracy_interval(correct, np.arange(50)[::-1]) == accuracy_interval(correct)


@pytest.mark.parametrize("right", [True, False])
def test_all_alike_counts_groups(right):
    found = accuracy_interval(np.full(60, right), np.repeat(np.arange(12), 5))
    expected = binomtest(12 * right, 12).proportion_ci(method="wilson")
    assert (found.lo, found.hi) == pytest.approx((expected.low, expected.high))
    assert found.method == WILSON_BY_GROUP


def test_rows_that_always_agree_count_as_their_groups():
    by_group = np.random.default_rng(0).random(40) < 0.8
    correct, groups = np.repeat(by_group, 5), np.repeat(np.arange(40), 5)
    assert effective_rows(correct, groups, 0.95) == pytest.approx(40)
    found = accuracy_interval(correct, groups)
    alone = accuracy_interval(by_group)
    assert (found.lo, found.hi) == pytest.approx((alone.lo, alone.hi))


def test_many_independent_pairs_keep_nearly_all_their_rows():
    correct = np.random.default_rng(1).random(4000) < 0.8
    rows = effective_rows(correct, np.repeat(np.arange(2000), 2), 0.95)
    assert 3600 < rows <= 4000


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60), m=st.integers(1, 20))
def test_effective_rows_stay_between_groups_and_rows(seed, n, m):
    rng = np.random.default_rng(seed)
    correct, groups = rng.random(n) < 0.7, rng.integers(m, size=n)
    sizes = np.bincount(groups)
    found = accuracy_interval(correct, groups)
    assert n**2 / np.square(sizes).sum() - 1e-9 <= effective_rows(correct, groups, 0.95) <= n + 1e-9
    assert 0 <= found.lo <= correct.mean() <= found.hi <= 1


def coverage(draw, low, high, sets=1000):
    """Share of intervals that hold the truth, which differs by set.

    At any one truth and n, the coverage of an interval of counts jumps.
    """
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(sets):
        truth = rng.uniform(low, high)
        found = accuracy_interval(*draw(rng, truth))
        held += found.lo <= truth <= found.hi
    return held / sets


@pytest.mark.parametrize("n", [50, 100, 1000])
def test_coverage_of_independent_rows(n):
    assert 0.93 <= coverage(lambda rng, truth: (rng.random(n) < truth,), 0.5, 0.98) <= 0.97


@pytest.mark.parametrize("agreement", [0.05, 0.3, 0.8])
def test_coverage_of_clustered_rows(agreement):
    """Groups of 1 to 9 rows whose own accuracies are beta-distributed around the truth."""
    spread = (1 - agreement) / agreement

    def draw(rng, truth):
        groups = np.repeat(np.arange(60), rng.integers(1, 10, size=60))
        own = rng.beta(truth * spread, (1 - truth) * spread, size=60)
        return rng.random(len(groups)) < own[groups], groups

    assert 0.93 <= coverage(draw, 0.6, 0.95) <= 0.98


def test_ignoring_the_groups_would_not_cover():
    def draw(rng, truth):
        own = rng.beta(0.25 * truth, 0.25 * (1 - truth), size=60)
        return (rng.random(300) < np.repeat(own, 5),)

    assert coverage(draw, 0.6, 0.95, sets=500) < 0.8


def test_nonsense_is_refused():
    with pytest.raises(ProbeError, match="an interval of no rows; hold some rows out"):
        accuracy_interval(np.zeros(0, bool))
    with pytest.raises(ProbeError, match="confidence 95; give a number between 0 and 1, such"):
        accuracy_interval(np.ones(3, bool), confidence=95)
