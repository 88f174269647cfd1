from functools import partial

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from featcache.errors import ProbeError
from featcache.evaluation.suspects import suspects

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True, scope="module")
def stable_sorts():
    """cleanlab sorts as numpy's default does, which leaves the order of equals to the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "argsort", partial(np.argsort, kind="stable"))
        yield


def drawn(seed, n, classes, noise=0.2, sureness=2.0, grid=None):
    """Labels of which some are wrong, and probabilities that know the true ones more or less.

    Classes are of uneven sizes, and some may have no row.
    """
    rng = np.random.default_rng(seed)
    true = rng.choice(classes, p=rng.dirichlet(np.ones(classes)), size=n)
    given_ = np.where(rng.random(n) < noise, rng.integers(classes, size=n), true)
    logits = rng.normal(size=(n, classes)) + sureness * np.eye(classes)[true]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if grid:  # many equal probabilities
        p = np.maximum(np.round(p * grid), 0.1)
        p /= p.sum(axis=1, keepdims=True)
    return p, given_


@pytest.mark.filterwarnings("ignore:May not flag all label issues")  # cleanlab, of tiny classes
@settings(deadline=None, max_examples=300)
@given(
    seed=SEEDS,
    n=st.integers(2, 300),
    classes=st.integers(2, 30),
    noise=st.floats(0, 1),
    sureness=st.floats(0, 6),
    grid=st.sampled_from([None, None, 4, 20]),
    by=st.sampled_from(["self_confidence", "normalized_margin"]),
)
def test_flags_what_cleanlab_flags_in_its_order(seed, n, classes, noise, sureness, grid, by):
    p, y = drawn(seed, n, classes, noise, sureness, grid)
    assume(len(np.unique(y)) > 1)  # cleanlab refuses one class
    found = suspects(p, y, by)
    expected = find_label_issues(y, p, return_indices_ranked_by=by, n_jobs=1)
    np.testing.assert_array_equal(found.flagged, expected)
    np.testing.assert_allclose(found.quality, get_label_quality_scores(y, p, method=by))


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, n=st.integers(1, 80), classes=st.integers(2, 6))
def test_all_rows_are_ranked_those_flagged_first(seed, n, classes):
    p, y = drawn(seed, n, classes)
    found = suspects(p, y)
    flagged = len(found.flagged)
    np.testing.assert_array_equal(found.ranking[:flagged], found.flagged)
    np.testing.assert_array_equal(np.sort(found.ranking), np.arange(n))
    for part in (found.ranking[:flagged], found.ranking[flagged:]):
        assert (np.diff(found.quality[part]) >= 0).all()
    np.testing.assert_array_equal(found.suggested, p.argmax(axis=1))
    assert (found.suggested[found.flagged] != y[found.flagged]).all()


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS)
def test_the_order_of_rows_and_names_of_classes_change_nothing(seed):
    p, y = drawn(seed, 60, 3)
    rng = np.random.default_rng(seed)
    rows, names = rng.permutation(60), rng.permutation(3)
    plain, moved = suspects(p, y), suspects(p[rows][:, names], np.argsort(names)[y[rows]])
    np.testing.assert_allclose(moved.quality, plain.quality[rows])
    both = np.intersect1d(rows[moved.flagged], plain.flagged)
    # rounding gives a row to the last of equal classes: by names, a few rows may differ
    assert len(both) >= max(len(plain.flagged), len(moved.flagged)) - 3
    by_rows = suspects(p[rows], y[rows])
    np.testing.assert_array_equal(np.sort(rows[by_rows.flagged]), np.sort(plain.flagged))


def test_planted_errors_are_found():
    p, y = drawn(0, 600, 3, noise=0, sureness=6)
    planted = np.arange(0, 600, 20)
    truth, y = y.copy(), y.copy()
    y[planted] = (y[planted] + 1) % 3
    found = suspects(p, y)
    assert len(np.intersect1d(found.flagged, planted)) >= 20
    assert len(np.setdiff1d(found.flagged, planted)) <= 2
    np.testing.assert_array_equal(found.suggested[planted[:5]], truth[planted[:5]])


def test_labels_that_are_believed_are_not_flagged():
    y = np.arange(30) % 3
    found = suspects(np.eye(3)[y] * 0.7 + 0.1, y)
    assert found.flagged.tolist() == []
    assert found.ranking.tolist() == list(range(30))


def test_one_class_alone_has_nothing_to_compare_with():
    p, _ = drawn(0, 10, 3)
    assert suspects(p, np.ones(10, int)).flagged.tolist() == []


@pytest.mark.parametrize(
    ("p", "y", "says"),
    [
        (np.ones((3, 2)) / 2, np.zeros((3, 2), bool), "one label's column at a time"),
        (np.ones((3, 1)), np.zeros(3, int), "at least 2 classes"),
        (np.ones((3, 2)) / 2, np.zeros(4, int), "for 4 labels"),
        (np.ones((3, 2)) / 2, np.array([0, 1, 2]), "from 0 to K - 1"),
        (np.ones((3, 2)) / 2, np.array([0, 1, -1]), "from 0 to K - 1"),
        (np.ones((0, 2)), np.zeros(0, int), "at least one row"),
        (
            np.full((2, 2), np.nan),
            np.array([0, 1]),
            "not all from 0 to 1; give those of out-of-fold",
        ),
    ],
)
def test_nonsense_is_refused(p, y, says):
    with pytest.raises(ProbeError, match=says):
        suspects(p, y)
