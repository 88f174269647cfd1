import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from featcache.errors import ProbeError
from featcache.evaluation.paired import FEW, compare, score_interval
from featcache.evaluation.pairwise import SEEDED, against_first, pairwise

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed, seeds=3, depths=3, groups=60, most=4):
    """(S, D, n) right, and groups of 1 to `most` rows that go together."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(groups), rng.integers(1, most + 1, size=groups))
    easy = rng.normal(size=groups)[ids]
    own = rng.normal(size=(depths, groups))[:, ids]
    return easy + 0.4 * own + 0.4 * rng.normal(size=(seeds, depths, len(ids))) > -0.8, ids


@given(seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_differences_are_those_of_accuracies(seed):
    right, ids = drawn(seed)
    found = pairwise(right, ids)
    for d in range(3):
        for j in range(3):
            apart = right[:, d].astype(int) - right[:, j]
            assert found.difference[d, j] == pytest.approx(apart.mean())
            assert found.differ[d, j] == pytest.approx(np.abs(apart).mean(), abs=1e-9)


def test_rows_have_the_variance_of_groups_drawn_again():
    """The referee is a bootstrap of groups, of the differences averaged over seeds."""
    right, ids = drawn(1, groups=300)
    found, rng = pairwise(right, ids), np.random.default_rng(2)
    apart = (right[:, 1].astype(float) - right[:, 0]).mean(axis=0)
    sums, sizes = np.bincount(ids, weights=apart), np.bincount(ids)
    picks = rng.integers(300, size=(8_000, 300))
    spread = (sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)).std()
    of_one = found.differ[1, 0] - found.difference[1, 0] ** 2
    assert np.sqrt(of_one / found.rows[1, 0]) == pytest.approx(spread, rel=0.05)


def test_seeds_vary_as_their_accuracies_do():
    right, ids = drawn(3, seeds=8, groups=2000)
    right[:, 1] = np.where(np.arange(8)[:, None] % 2, right[:, 1], right[:, 1] & (ids % 9 > 0))
    found, by_seed = pairwise(right, ids), right.mean(axis=2)
    own = (by_seed[:, 1] - by_seed[:, 0]).var(ddof=1) / 8
    assert found.seeds_variance[1, 0] == pytest.approx(own)
    average = by_seed.var(axis=0, ddof=1).mean() / 8
    assert found.seeds_variance[2, 0] == pytest.approx(2 * average)  # its own is smaller
    assert found.seeds_freedom == 3 * 7


def test_what_seeds_do_not_change_has_no_variance_of_seeds():
    right, ids = drawn(4)
    right[:, 0] = right[0, 0]
    found, by_seed = pairwise(right, ids), right.mean(axis=2)
    assert found.seeds_freedom == 2 * 2
    average = by_seed[:, 1:].var(axis=0, ddof=1).mean() / 3
    assert found.seeds_variance[1, 0] >= average
    assert found.seeds_variance[1, 0] < 2 * average
    right[:] = right[0]
    assert not pairwise(right, ids).seeds_variance.any()


def test_one_seed_of_single_rows_has_tangos_interval():
    right, _ = drawn(5, seeds=1)
    n = right.shape[2]
    found = pairwise(right, np.arange(n))
    lower = found.lower(found.quantile(0.975))
    only_a, only_b = (right[0, 2] & ~right[0, 1]).sum(), (right[0, 1] & ~right[0, 2]).sum()
    assert (lower[2, 1], -lower[1, 2]) == pytest.approx(score_interval(only_a, only_b, n))
    z = abs(only_a - only_b) / np.sqrt(only_a + only_b)
    assert found.score_test()[2, 1] == pytest.approx(2 * norm.sf(z), rel=1e-6)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_test_rejects_where_the_interval_leaves_nothing_out(seeds):
    right, ids = drawn(6, seeds=seeds)
    found = pairwise(right, ids)
    p = found.score_test()[1, 0]
    for level, holds in [(p * 1.01, False), (p * 0.99, True)]:
        lower = found.lower(found.quantile(1 - level / 2))
        assert (lower[1, 0] <= 0 <= -lower[0, 1]) == holds


def test_quantiles_lie_between_those_of_both_variances():
    right, ids = drawn(7)
    quantile = pairwise(right, ids).quantile(0.99)[1, 0]
    assert t.ppf(0.99, 59) < quantile < t.ppf(0.99, 3 * 2)
    assert pairwise(right[:1], ids).quantile(0.99)[1, 0] == pytest.approx(t.ppf(0.99, 59))
    rows = np.arange(len(ids))
    assert pairwise(right[:1], rows).quantile(0.99)[1, 0] == pytest.approx(norm.ppf(0.99))


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_names_and_order_of_rows_and_seeds_change_nothing(seed):
    right, ids = drawn(seed)
    rng = np.random.default_rng(seed)
    order, seeds = rng.permutation(len(ids)), rng.permutation(3)
    a, b = pairwise(right, ids), pairwise(right[seeds][:, :, order], 99 - 2 * ids[order])
    for name in ("accuracy", "differ", "rows", "seeds_variance"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-12)


def test_few_differing_groups_are_not_more_rows_than_there_are():
    right = np.ones((4, 2, 500), bool)
    right[0, 1, : FEW - 1] = False  # on each of these rows one seed of four differs
    assert pairwise(right, np.arange(500)).rows[1, 0] == 500
    right[0, 1, : 5 * FEW] = False
    assert pairwise(right, np.arange(500)).rows[1, 0] == pytest.approx(4 * 500, rel=0.1)


@pytest.mark.parametrize("differ", [False, True])
def test_pairs_that_are_all_alike_count_their_groups(differ):
    right = np.ones((2, 2, 24), bool)
    right[:, 1] = not differ
    found = pairwise(right, np.repeat(np.arange(8), 3))
    assert found.rows[1, 0] == pytest.approx(8)
    lower = found.lower(np.full((2, 2), 1.96))
    expected = score_interval(0, 8 * differ, 8, norm.cdf(1.96) * 2 - 1)
    assert (lower[1, 0], -lower[0, 1]) == pytest.approx(expected)


def test_one_seed_against_the_first_is_compared_as_two_probes_are():
    right, ids = drawn(8, seeds=1)
    assert against_first(right, ids) == tuple(
        compare(right[0, d], right[0, 0], ids) for d in (1, 2)
    )


def test_several_seeds_against_the_first():
    right, ids = drawn(9, groups=400)
    right[:, 2] = right[:, 0] | (ids % 5 == 0)
    alike, better = against_first(right, ids)
    assert alike.ci95[0] < 0 < alike.ci95[1]
    assert alike.p_value > 0.05
    assert better.difference == pytest.approx(right[:, 2].mean() - right[:, 0].mean())
    assert 0 < better.ci95[0] < better.difference < better.ci95[1]
    assert better.p_value < 0.01
    assert better.method == SEEDED
    one = compare(right[0, 2], right[0, 0], ids)
    assert np.diff(better.ci95) < 2 * np.diff(one.ci95)


def test_nonsense_is_refused():
    right, ids = drawn(0)
    for wrong in (right[0], right[:, :, 1:], right[:0]):
        with pytest.raises(ProbeError, match=r"give \(seeds, classifiers, rows\)"):
            pairwise(wrong, ids)
    with pytest.raises(ProbeError, match="in one group"):
        pairwise(right, np.zeros_like(ids))
