from functools import partial
from math import comb

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import multinomial, norm

from featcache.errors import ProbeError
from featcache.evaluation import paired
from featcache.evaluation.paired import (
    BOOTSTRAP,
    EFFECTIVE,
    EXACT,
    FEW,
    PairedDifference,
    compare,
    mcnemar,
    paired_bootstrap,
    score_interval,
)

Z = norm.ppf(0.975)
SEEDS = st.integers(0, 2**32 - 1)


def rows_of(both, only_a, only_b, neither):
    counts = [both, only_a, only_b, neither]
    return np.repeat([True, True, False, False], counts), np.repeat(
        [True, False, True, False], counts
    )


def drawn(seed, groups=40, most=6, differ=0.3):
    """Two probes on groups of 1 to `most` rows that go together."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(groups), rng.integers(1, most + 1, size=groups))
    own = rng.beta(1, 1 / differ - 1, size=groups)[ids]
    a = rng.random(len(ids)) < 0.8
    return a, a ^ (rng.random(len(ids)) < own), ids


@given(only_a=st.integers(0, 40), only_b=st.integers(0, 40), rest=st.integers(1, 9))
def test_mcnemar_counts_splits_at_least_as_uneven(only_a, only_b, rest):
    found = mcnemar(*rows_of(rest, only_a, only_b, 2))
    differ = only_a + only_b
    uneven = [k for k in range(differ + 1) if abs(2 * k - differ) >= abs(only_a - only_b)]
    expected = sum(comb(differ, k) for k in uneven) / 2**differ
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p_value == pytest.approx(expected)


def test_the_score_interval_of_a_published_table():
    """Cavo et al. 2012 as in Fagerland, Lydersen and Laake's R package contingencytables."""
    assert score_interval(6, 16, 161) == pytest.approx((-0.1240, -0.0054), abs=5e-5)


@settings(deadline=None)
@given(only_a=st.integers(0, 30), only_b=st.integers(0, 30), rest=st.integers(1, 100))
def test_ends_are_where_the_score_test_rejects(only_a, only_b, rest):
    """By a numerical search for the most likely share, in place of the quadratic's root."""
    n = only_a + only_b + rest
    for d in score_interval(only_a, only_b, n):

        def surprise(q, d=d):
            cells = np.array([q + d, q, 1 - 2 * q - d])
            return -np.sum([only_a, only_b, rest] * np.log(np.maximum(cells, 1e-300)))

        found = minimize_scalar(
            surprise, bounds=(max(0, -d), (1 - d) / 2), method="bounded", options={"xatol": 1e-12}
        )
        q = found.x
        score = (only_a - only_b - n * d) / np.sqrt(n * (2 * q + d * (1 - d)))
        assert abs(score) == pytest.approx(Z, rel=1e-3)


@given(only_a=st.integers(0, 60), only_b=st.integers(0, 60), rest=st.integers(0, 200))
def test_the_interval_agrees_with_the_score_test_of_no_difference(only_a, only_b, rest):
    n, differ = only_a + only_b + rest, only_a + only_b
    assume(n > 0)
    lo, hi = score_interval(only_a, only_b, n)
    rejected = differ > 0 and (only_a - only_b) ** 2 / differ > Z**2
    assert (lo > 0 or hi < 0) == rejected
    assert -1 <= lo <= (only_a - only_b) / n <= hi <= 1
    assert score_interval(only_b, only_a, n) == pytest.approx((-hi, -lo))


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_no_disagreement_leaves_room(n):
    half = Z**2 / (n + Z**2)  # as Wilson's interval of 0 of n
    assert score_interval(0, 0, n) == pytest.approx((-half, half))
    assert score_interval(n, 0, n) == pytest.approx(((n - Z**2) / (n + Z**2), 1.0))


@pytest.mark.parametrize("n", [20, 50])
def test_coverage_on_single_rows(n):
    """Exact, over all tables of n rows; at any one truth the coverage of counts jumps."""
    tables = np.array([(b, c) for b in range(n + 1) for c in range(n + 1 - b)])
    ends = np.array([score_interval(int(b), int(c), n) for b, c in tables])
    counts = np.column_stack([tables, n - tables.sum(axis=1)])
    rng, covered = np.random.default_rng(0), []
    for _ in range(60):
        differ, share = rng.uniform(0.02, 0.4), rng.random()
        b, c = differ * share, differ * (1 - share)
        held = (ends[:, 0] <= b - c) & (b - c <= ends[:, 1])
        covered.append(multinomial.pmf(counts, n, [b, c, 1 - b - c])[held].sum())
    assert 0.94 <= np.mean(covered) <= 0.98
    assert min(covered) > 0.9


def test_resampling_kinds_is_resampling_groups():
    a, b, ids = drawn(0)
    found = paired_bootstrap(a, b, ids)
    sums, sizes = np.bincount(ids, weights=a * 1.0 - b), np.bincount(ids)
    picks = np.random.default_rng(1).integers(40, size=(20_000, 40))
    plain = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    # widened from 0.025 by Phi(-sqrt(40/39) t_39(0.025)) = 0.0203
    assert found.ci95 == pytest.approx(tuple(np.quantile(plain, [0.0203, 0.9797])), abs=0.006)
    flips = np.random.default_rng(2).choice([-1, 1], size=(20_000, 40)) @ sums
    assert found.p_value == pytest.approx(np.mean(abs(flips) >= abs(sums.sum())), abs=0.015)


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_swapping_groups_counts_all_swaps(seed):
    a, b, ids = drawn(seed, groups=7)
    sums = np.bincount(ids, weights=a * 1.0 - b)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1).T
    exact = np.mean(abs(signs @ sums) >= abs(sums.sum()))
    assert paired_bootstrap(a, b, ids).p_value == pytest.approx(exact, abs=0.025)


@pytest.mark.parametrize("split", [(9, 3), (30, 30), (12, 1), (0, 0)])
def test_swapping_single_rows_is_mcnemars_test(split):
    a, b = rows_of(50, *split, 5)
    found = paired_bootstrap(a, b)
    assert found.p_value == pytest.approx(mcnemar(a, b).p_value, abs=0.02)


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_names_order_and_repetition_change_nothing(seed):
    a, b, ids = drawn(seed)
    found = paired_bootstrap(a, b, ids, resamples=500)
    order = np.random.default_rng(seed).permutation(len(ids))
    assert paired_bootstrap(a[order], b[order], 99 - 2 * ids[order], resamples=500) == found
    repeated = paired_bootstrap(*(np.repeat(x, 3) for x in (a, b, ids)), resamples=500)
    assert repeated.ci95 == pytest.approx(found.ci95)
    assert repeated.p_value == found.p_value
    assert paired_bootstrap(a, b, ids, resamples=500, seed=1) != found


def test_little_memory_gives_the_same_numbers(monkeypatch):
    a, b, ids = drawn(3)
    at_once = paired_bootstrap(a, b, ids, resamples=300)
    monkeypatch.setattr(paired, "_CELLS", 50)
    assert paired_bootstrap(a, b, ids, resamples=300) == at_once


def test_single_rows_are_compared_exactly():
    a, b = rows_of(80, 12, 3, 5)
    expected = PairedDifference(0.09, score_interval(12, 3, 100), mcnemar(a, b).p_value, EXACT)
    assert compare(a, b) == compare(a, b, np.arange(100)[::-1]) == expected


def test_groups_are_compared_by_the_bootstrap_where_many_differ():
    a, b, ids = drawn(0)
    assert np.count_nonzero(np.bincount(ids, weights=a * 1.0 - b)) >= FEW
    assert compare(a, b, ids) == paired_bootstrap(a, b, ids)
    assert compare(a, b, ids).method == BOOTSTRAP


def test_rows_that_always_agree_count_as_their_groups():
    a, b = rows_of(40, 6, 2, 2)
    found = compare(*(np.repeat(x, 5) for x in (a, b)), np.repeat(np.arange(50), 5))
    assert found.method == EFFECTIVE
    assert found.difference == pytest.approx(0.08)
    assert found.ci95 == pytest.approx(score_interval(6, 2, 50), abs=0.01)


@pytest.mark.parametrize("differ", [0.0, 1.0])
def test_groups_that_are_all_alike_leave_room(differ):
    ids, a = np.repeat(np.arange(8), 3), np.ones(24, bool)
    found = compare(a, a ^ (differ > 0), ids)
    assert found.method == EFFECTIVE
    assert found.ci95 == pytest.approx(score_interval(8 * differ, 0, 8))
    assert found.p_value == pytest.approx(2 / 2**8 if differ else 1.0, abs=0.003)


def coverage(compared, groups, differ, sets=100):
    """Share of intervals that hold the truth, on groups of 1 to 7 rows that go together."""
    rng, held = np.random.default_rng(7), 0
    for _ in range(sets):
        share = rng.uniform(-0.8, 0.8)  # of the rows that differ, how much more often a is right
        ids = np.repeat(np.arange(groups), rng.integers(1, 8, size=groups))
        differing = rng.random(len(ids)) < rng.beta(differ, 1 - differ, size=groups)[ids]
        for_a = rng.random(len(ids)) < (1 + share) / 2
        lo, hi = compared(differing & for_a, differing & ~for_a, ids).ci95
        held += lo <= differ * share <= hi
    return held / sets


@pytest.mark.parametrize(("groups", "differ"), [(15, 0.1), (40, 0.04), (40, 0.3)])
def test_coverage_on_groups(groups, differ):
    assert coverage(compare, groups, differ) >= 0.88


def test_the_bootstrap_would_not_cover_where_few_groups_differ():
    assert coverage(partial(paired_bootstrap, resamples=500), 15, 0.03) < 0.8


@pytest.mark.parametrize(
    ("a", "b", "groups", "says"),
    [
        (np.ones(3, bool), np.ones(4, bool), None, "same rows of both"),
        (np.ones(0, bool), np.ones(0, bool), None, "at least one"),
        (np.ones((3, 2), bool), np.ones((3, 2), bool), None, "same rows of both"),
        (np.ones(4, bool), np.ones(4, bool), np.zeros(4, int), "all 4 rows are in one group"),
    ],
)
def test_nonsense_is_refused(a, b, groups, says):
    with pytest.raises(ProbeError, match=says):
        compare(a, b, groups)
