import hashlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from featcache.errors import ProbeError
from featcache.evaluation.splits import join_groups, stratified_folds

SEEDS = st.integers(0, 2**32 - 1)


def hashes_of(contents):
    digests = [hashlib.sha256(str(c).encode()).digest() for c in contents]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def test_rows_are_joined_by_group_by_content_and_through_each_other():
    groups = np.array([-1, 4, 4, 9, -1, -1, 9])
    contents = ["a", "b", "c", "c", "d", "a", "e"]
    # 1-2 by group 4, 2-3 by content c, 3-6 by group 9, 0-5 by content a
    assert join_groups(groups, hashes_of(contents)).tolist() == [0, 1, 1, 1, 2, 0, 1]


def test_without_groups_equal_contents_are_joined():
    ids = join_groups(None, hashes_of(["x", "y", "x"]))
    assert ids.dtype == np.int64
    assert ids.tolist() == [0, 1, 0]


@given(
    rows=st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 12)), min_size=1, max_size=30),
    seed=SEEDS,
)
def test_joining_is_the_smallest_that_keeps_pairs_together(rows, seed):
    groups, contents = np.array(rows).T
    expected = list(range(len(rows)))  # by merging labels pair by pair until nothing changes
    for _ in rows:
        for i, (g, c) in enumerate(rows):
            for j, (h, d) in enumerate(rows):
                if (g == h and g >= 0) or c == d:
                    expected[i] = expected[j] = min(expected[i], expected[j])
    found = join_groups(groups, hashes_of(contents))
    together = np.equal.outer(found, found)
    np.testing.assert_array_equal(together, np.equal.outer(np.array(expected), np.array(expected)))
    order = np.random.default_rng(seed).permutation(len(rows))
    moved = join_groups(groups[order], hashes_of(contents[order]))
    np.testing.assert_array_equal(np.equal.outer(moved, moved), together[np.ix_(order, order)])


@settings(deadline=None)
@given(seed=SEEDS, n=st.integers(8, 80), classes=st.integers(2, 5), cv=st.integers(2, 8))
def test_rows_of_their_own_are_stratified_within_one(seed, n, classes, cv):
    y = np.random.default_rng(seed).integers(classes, size=n)
    counts = np.bincount(y, minlength=classes)
    assume((counts >= 2).sum() >= 2)
    folds = stratified_folds(y, np.arange(n), cv, seed)
    assert folds.count == min(cv, counts[counts >= 2].min())
    assert folds.only_train == tuple(np.flatnonzero(counts == 1))
    np.testing.assert_array_equal(folds.held_out == -1, np.isin(y, folds.only_train))
    for c in np.flatnonzero(counts >= 2):
        held = np.bincount(folds.held_out[y == c], minlength=folds.count)
        assert held.max() - held.min() <= 1
    tested = sum((~folds.train(fold)).astype(int) for fold in folds)
    np.testing.assert_array_equal(tested, folds.held_out >= 0)


@settings(deadline=None)
@given(
    seed=SEEDS,
    n=st.integers(8, 80),
    classes=st.integers(2, 4),
    groups=st.integers(4, 30),
    cv=st.integers(2, 6),
    pure=st.booleans(),
)
def test_groups_are_never_split(seed, n, classes, groups, cv, pure):
    rng = np.random.default_rng(seed)
    ids = rng.integers(groups, size=n)
    y = ids % classes if pure else rng.integers(classes, size=n)
    try:
        folds = stratified_folds(y, ids, cv, seed)
    except ProbeError:
        return
    for g in np.unique(ids):
        assert len(np.unique(folds.held_out[ids == g])) == 1
    assert 2 <= folds.count <= cv
    assert set(np.unique(folds.held_out)) - {-1} == set(folds)  # every fold holds something out
    # a row only trains where its group holds a class that only trains
    held_back = np.unique(ids[np.isin(y, folds.only_train)])
    np.testing.assert_array_equal(folds.held_out == -1, np.isin(ids, held_back))
    free = folds.held_out >= 0
    assert len(np.unique(y[free])) >= 2
    for c in np.unique(y[free]):
        assert len(np.unique(ids[free & (y == c)])) >= folds.count


@given(seed=SEEDS)
def test_the_seed_alone_decides(seed):
    y, ids = np.arange(40) % 3, np.arange(40) // 2
    first, second = (stratified_folds(y, ids, 4, seed) for _ in range(2))
    np.testing.assert_array_equal(first.held_out, second.held_out)


def test_another_seed_gives_other_folds():
    y = np.arange(60) % 3
    a, b = (stratified_folds(y, np.arange(60), 5, seed).held_out for seed in (0, 1))
    assert (a != b).any()


def test_rows_of_their_own_are_split_as_scikit_learn_does():
    y = np.random.default_rng(0).integers(3, size=50)
    folds = stratified_folds(y, np.arange(50) * 7, 5, seed=11)
    splitter = StratifiedKFold(5, shuffle=True, random_state=11)
    for fold, (train, test) in enumerate(splitter.split(y, y)):
        np.testing.assert_array_equal(np.flatnonzero(folds.train(fold)), train)
        np.testing.assert_array_equal(np.flatnonzero(folds.held_out == fold), test)


def test_groups_are_spread_by_class():
    """12 groups of 10 rows, 4 a class: of each class one group is held out in each of 4 folds."""
    ids = np.repeat(np.arange(12), 10)
    folds = stratified_folds(ids % 3, ids, 5, seed=0)
    assert folds.count == 4
    for fold in folds:
        assert np.bincount(ids[~folds.train(fold)] % 3).tolist() == [10, 10, 10]


def test_a_class_of_one_picture_only_trains_and_is_named():
    y = np.array([0, 0, 0, 1, 1, 1, 2])
    folds = stratified_folds(y, np.arange(7), 5, seed=0)
    assert (folds.count, folds.only_train) == (3, (2,))
    assert all(folds.train(fold)[6] for fold in folds)


def test_what_shares_a_group_with_a_lone_class_trains_with_it():
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    ids = np.array([0, 1, 2, 3, 4, 5, 6, 7, 3])  # the only picture of class 2 is in group 3
    folds = stratified_folds(y, ids, 5, seed=0)
    assert folds.only_train == (2,)
    assert np.flatnonzero(folds.held_out == -1).tolist() == [3, 8]
    assert folds.count == 3


def test_keeping_a_group_back_can_leave_another_class_alone():
    y = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3])
    ids = np.array([0, 1, 2, 3, 4, 5, 6, 7, 7])  # class 3 keeps group 7, then class 2 has group 6
    folds = stratified_folds(y, ids, 5, seed=0)
    assert folds.only_train == (2, 3)
    assert np.flatnonzero(folds.held_out == -1).tolist() == [6, 7, 8]


@settings(deadline=None)
@given(seed=SEEDS, n=st.integers(4, 40), cv=st.integers(2, 6))
def test_several_labels_a_row_are_dealt_by_group(seed, n, cv):
    rng = np.random.default_rng(seed)
    ids = rng.integers(n // 2, size=n)
    assume(len(np.unique(ids)) >= 2)
    folds = stratified_folds(rng.random((n, 3)) < 0.5, ids, cv, seed)
    assert folds.count == min(cv, len(np.unique(ids)))
    assert folds.only_train == ()
    assert set(folds.held_out.tolist()) == set(range(folds.count))
    groups_in_fold = [len(np.unique(ids[folds.held_out == fold])) for fold in folds]
    assert sum(groups_in_fold) == len(np.unique(ids))
    assert max(groups_in_fold) - min(groups_in_fold) <= 1


@pytest.mark.parametrize(
    ("y", "ids", "cv", "says"),
    [
        ([0, 0, 1, 1], [0, 1, 2, 3], 1, "at least 2 folds"),
        ([0, 0, 0], [0, 1, 2], 5, "1 of 1 classes can be held out"),
        ([0, 0, 0, 1], [0, 1, 2, 3], 5, "1 of 2 classes can be held out"),
        ([0, 0, 1, 1], [0, 0, 1, 1], 5, "0 of 2 classes.*add pictures, or separate groups"),
        ([[True], [False]], [3, 3], 5, "in 1 group, 2 are needed to hold one out; add pictures"),
    ],
)
def test_labels_that_allow_no_folds(y, ids, cv, says):
    with pytest.raises(ProbeError, match=says):
        stratified_folds(np.array(y), np.array(ids), cv, seed=0)
