import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from featcache.errors import ProbeError
from featcache.evaluation.pairwise import against_first, pairwise
from featcache.evaluation.recommendation import holm, recommend


def sweep(rng, accuracy, n, *, seeds=1, group=1, seed_sd=0.0, apart=0.06):
    """(S, D, n) right and (n,) groups, of depths whose true accuracies are given.

    Whether a row is easy is common to all depths; a part of what is not is each depth's own, and
    half of that each seed's. Rows of a group are alike but for the seeds' part.
    """
    depths, groups = len(accuracy), n // group
    ids = np.repeat(np.arange(groups), group)
    common = rng.normal(size=groups)[ids]
    own = rng.normal(size=(depths, groups))[:, ids]
    of_seed = rng.normal(size=(seeds, depths, n))
    hard = np.sqrt(1 - apart) * common + np.sqrt(apart / 2) * (own + of_seed)
    deviates = norm.ppf(np.asarray(accuracy) + seed_sd * rng.normal(size=(seeds, depths)))
    return hard < deviates[:, :, None], ids


def sweeps(accuracy, n, count, **options):
    rng = np.random.default_rng(11)
    return [recommend(*sweep(rng, accuracy, n, **options)) for _ in range(count)]


def at_most(share, count):
    """What a count of that share or less exceeds once in a thousand times."""
    return binom.ppf(0.999, count, share)


def better(found):
    return bool(
        ((found.better_than_first <= 0.05) & (found.difference > found.difference[0])).any()
    )


def covers(found, accuracy):
    truth = np.asarray(accuracy) - max(accuracy)
    return bool((truth >= found.lower).all())


SEEDS_THAT_DIFFER = {"seeds": 3, "seed_sd": 0.01}
IN_GROUPS = {"group": 4, "apart": 0.2}


@pytest.mark.parametrize("options", [{}, IN_GROUPS, SEEDS_THAT_DIFFER])
def test_equal_depths_are_rarely_claimed_better(options):
    found = sweeps([0.9] * 4, 400, 40, **options)
    assert sum(map(better, found)) <= at_most(0.05, 40)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("n", [300, 5000])
def test_equal_depths_are_rarely_claimed_better_whatever_the_seeds(seeds, n):
    found = sweeps([0.9] * 4, n, 300, seeds=seeds, seed_sd=0.01)
    assert sum(map(better, found)) <= at_most(0.05, 300)


def test_one_seed_does_not_know_the_variance_of_training():
    """What the sentence warns of: of one seed each, depths that are equal are found different."""
    found = sweeps([0.9] * 4, 5000, 40, seed_sd=0.01)
    assert sum(map(better, found)) > at_most(0.05, 40)
    assert all("not included (one seed)" in f.reason for f in found)


def test_a_probe_that_is_as_good_is_enough():
    found = sweeps([0.9] * 4, 5000, 40)
    assert all(f.depth is not None for f in found)
    assert sum(f.depth == 0 for f in found) > 20
    assert all(f.lower[f.depth] > -0.01 and f.rows_needed is None for f in found)


def test_small_sets_are_undecided_and_know_about_what_it_takes():
    found = sweeps([0.9] * 4, 150, 30)
    undecided = [f for f in found if f.depth is None]
    assert len(undecided) > 25
    needed = int(np.median([f.rows_needed for f in undecided]))
    decided = np.mean([f.depth is not None for f in sweeps([0.9] * 4, needed, 30)])
    assert decided > 0.5
    decided = np.mean([f.depth is not None for f in sweeps([0.9] * 4, needed // 3, 30)])
    assert decided < 0.5


def test_depth_that_pays_is_recommended_no_deeper_than_needed():
    found = sweeps([0.9, 0.95, 0.95, 0.95], 2000, 40)
    picked = np.bincount([f.depth for f in found], minlength=4)
    assert picked[0] == 0
    assert picked[1] == picked.max()
    assert all(better(f) for f in found)


@pytest.mark.parametrize(
    ("accuracy", "n", "options"),
    [
        ([0.95, 0.9, 0.9, 0.9], 400, {}),
        ([0.9, 0.905, 0.91, 0.93], 300, {}),
        ([0.99, 0.98], 150, {"apart": 0.02}),
        ([0.95, 0.92, 0.9], 400, IN_GROUPS),
        ([0.9, 0.9, 0.92], 1000, SEEDS_THAT_DIFFER),
    ],
)
def test_bounds_hold_together(accuracy, n, options):
    found = sweeps(accuracy, n, 50, **options)
    assert sum(not covers(f, accuracy) for f in found) <= at_most(0.05, 50)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, IN_GROUPS, {"seeds": 2, "seed_sd": 0.005}])
@pytest.mark.parametrize("best", [0.85, 0.95, 0.985])
def test_bounds_hold_together_in_many_sweeps(best, options):
    accuracy = [best - 0.04, best - 0.01, best - 0.02, best]
    found = sweeps(accuracy, 500, 200, **options)
    assert sum(not covers(f, accuracy) for f in found) <= at_most(0.05, 200)
    wrong = [f for f in found if f.depth is not None and accuracy[f.depth] <= best - 0.01]
    assert len(wrong) <= at_most(0.05, 200)


def test_bounds_of_one_comparison_would_not_hold_together():
    """Seven depths below the best, each compared as if it were the only one."""
    accuracy, rng, missed = [0.95] + [0.9] * 7, np.random.default_rng(5), 0
    for _ in range(100):
        found = pairwise(*sweep(rng, accuracy, 1500))
        missed += found.lower(found.quantile(0.95))[1:, 0].max() > -0.05
    assert missed > at_most(0.05, 100)


def test_seeds_that_differ_too_much_are_not_mended_by_rows():
    rng = np.random.default_rng(3)
    right, ids = sweep(rng, [0.9] * 3, 2000, seeds=2, seed_sd=0.02)
    found = recommend(right, ids)
    assert found.depth is None
    assert found.rows_needed is None
    assert "more rows would not decide, more training seeds may" in found.reason


def test_sentences():
    right = np.ones((1, 3, 4000), bool)
    right[0, 0, :400] = right[0, 1, :160] = right[0, 2, :170] = False
    found = recommend(right, np.arange(4000), names=["probe", "layer4.2", "layer4.1"])
    assert (found.depth, found.best) == (1, 1)
    assert found.reason == (
        "layer4.2 is enough: 96.0%, shown to be at most 0.0 points below the best (margin 1); "
        "probe may be 6.8 points below; the variance of training seeds is not included (one seed)"
    )
    found = recommend(right, np.arange(4000), margin=0.08)
    assert (found.depth, found.best) == (0, 1)
    assert found.reason.startswith(
        "depth 0 is enough: 90.0%, shown to be at most 6.8 points below the best (margin 8), which "
        "here is depth 1 with 96.0%; the variance"
    )
    few = recommend(right[:, :, 300:500], np.arange(200))
    assert few.reason.startswith(
        "undecided at n = 200 held-out rows (depth 0 50.0%, depth 1 100.0%, depth 2 100.0%): "
        "none is shown to be within 1 point of the best; about "
    )


def test_one_depth_is_the_best():
    right = np.random.default_rng(0).random((1, 1, 50)) < 0.8
    found = recommend(right, np.arange(50))
    assert (found.depth, found.best, found.lower.tolist()) == (0, 0, [0.0])
    assert found.better_than_first.tolist() == [1.0]


def test_alike_on_every_row_is_decided_by_how_many_there_are():
    for n, depth in [(300, None), (600, 0)]:
        right = np.broadcast_to(np.random.default_rng(0).random(n) < 0.8, (1, 3, n))
        found = recommend(right, np.arange(n))
        assert found.depth == depth
    small = recommend(right[:, :, :300], np.arange(300))
    z = norm.ppf(1 - 0.05 / 2)
    assert small.rows_needed == pytest.approx(z**2 * 99, rel=0.01)


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_its_definition(p_values):
    """The i-th smallest of k is at most any later one, and at least k - i + 1 times its p."""
    adjusted, k = holm(p_values), len(p_values)
    for i, p in enumerate(p_values):
        ahead = [j for j in range(k) if (p_values[j], j) <= (p, i)]
        steps = [
            (k - sum((p_values[o], o) < (p_values[j], j) for o in range(k))) * p_values[j]
            for j in ahead
        ]
        assert adjusted[i] == pytest.approx(min(1.0, max(steps)))


def test_p_values_are_those_against_the_first_adjusted():
    right, ids = sweep(np.random.default_rng(2), [0.9, 0.92, 0.91], 500)
    alone = [p.p_value for p in against_first(right, ids)]
    assert recommend(right, ids).better_than_first.tolist() == [1.0, *holm(alone)]


def test_nonsense_is_refused():
    right, ids = sweep(np.random.default_rng(0), [0.9, 0.9], 20)
    with pytest.raises(ProbeError, match=r"margin 1\.5; give a number between 0 and 1"):
        recommend(right, ids, margin=1.5)
    with pytest.raises(ProbeError, match="confidence 95"):
        recommend(right, ids, confidence=95)
