import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import ProbeError
from featcache.evaluation.shots import support_rows

SEEDS = st.integers(0, 2**32 - 1)
SHOTS = st.integers(1, 8)


@st.composite
def rows(draw, copies=True):
    """Targets, groups (-1: none), keys and eligibility of up to 40 rows."""
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(SEEDS))
    names = rng.integers(draw(st.integers(1, 30)), size=n) if copies else rng.permutation(n)
    groups = rng.integers(-1, draw(st.integers(1, 15)), size=n)
    keys = [f"picture {name}".encode() for name in names]
    return rng.integers(draw(st.integers(1, 4)), size=n), groups, keys, rng.random(n) < 0.8


@given(rows=rows(), shots=SHOTS, seed=SEEDS)
def test_each_class_gives_its_shots_of_eligible_rows(rows, shots, seed):
    targets, _, _, eligible = rows
    support = support_rows(*rows, shots, seed)
    assert not (support & ~eligible).any()
    available = np.bincount(targets[eligible], minlength=4)
    given_ = np.bincount(targets[support], minlength=4)
    np.testing.assert_array_equal(given_, np.minimum(available, shots))


@given(rows=rows(), shots=SHOTS, fewer=SHOTS, seed=SEEDS)
def test_fewer_shots_are_a_subset(rows, shots, fewer, seed):
    few = support_rows(*rows, min(shots, fewer), seed)
    assert not (few & ~support_rows(*rows, shots, seed)).any()


def moved(rows, order):
    targets, groups, keys, eligible = rows
    return targets[order], groups[order], [keys[i] for i in order], eligible[order]


@given(rows=rows(copies=False), shots=SHOTS, seed=SEEDS)
def test_the_order_of_rows_changes_nothing(rows, shots, seed):
    order = np.random.default_rng(seed).permutation(len(rows[0]))
    support = support_rows(*rows, shots, seed)
    np.testing.assert_array_equal(support_rows(*moved(rows, order), shots, seed), support[order])


@given(rows=rows(), shots=SHOTS, seed=SEEDS)
def test_with_copies_the_pictures_stay_the_same(rows, shots, seed):
    order = np.random.default_rng(seed).permutation(len(rows[0]))

    def pictures(targets, groups, keys, eligible):
        support = support_rows(targets, groups, keys, eligible, shots, seed)
        return Counter((targets[i], keys[i]) for i in np.flatnonzero(support))

    assert pictures(*rows) == pictures(*moved(rows, order))


@given(rows=rows(), shots=SHOTS, seed=SEEDS)
def test_other_classes_and_names_of_groups_change_nothing(rows, shots, seed):
    targets, groups, keys, eligible = rows
    support = support_rows(*rows, shots, seed)
    for code in np.unique(targets):
        own = targets == code
        alone = support_rows(*moved(rows, np.flatnonzero(own)), shots, seed)
        np.testing.assert_array_equal(alone, support[own])
    renamed = np.where(groups < 0, -1, 100 - groups)
    np.testing.assert_array_equal(
        support_rows(targets, renamed, keys, eligible, shots, seed), support
    )


@given(rows=rows(), shots=SHOTS, seed=SEEDS)
def test_rows_that_are_not_eligible_change_nothing(rows, shots, seed):
    support, eligible = support_rows(*rows, shots, seed), rows[3]
    without = support_rows(*moved(rows, np.flatnonzero(eligible)), shots, seed)
    np.testing.assert_array_equal(without, support[eligible])


@given(rows=rows(copies=False), shots=SHOTS, seed=SEEDS)
def test_no_group_gives_twice_before_all_gave(rows, shots, seed):
    targets, groups, _, eligible = rows
    ids = np.where(groups < 0, 100 + np.arange(len(groups)), groups)
    support = support_rows(*rows, shots, seed)
    for code in np.unique(targets[eligible]):
        own = eligible & (targets == code)
        given_, there = Counter(ids[own & support].tolist()), Counter(ids[own].tolist())
        most = max(given_.values())
        assert all(given_[g] >= min(size, most - 1) for g, size in there.items())


@given(rows=rows(), shots=SHOTS, seed=SEEDS)
def test_no_picture_comes_twice_before_all_came(rows, shots, seed):
    targets, _, keys, eligible = rows
    support = support_rows(*rows, shots, seed)
    for code in np.unique(targets[eligible]):
        own = eligible & (targets == code)
        given_ = Counter(keys[i] for i in np.flatnonzero(own & support))
        there = Counter(keys[i] for i in np.flatnonzero(own))
        most = max(given_.values())
        assert all(given_[key] >= min(copies, most - 1) for key, copies in there.items())


@given(rows=rows(copies=False), shots=SHOTS, seed=SEEDS)
def test_copies_do_not_push_others_back(rows, shots, seed):
    """Every row once more, as a copy of the same picture: the same pictures are drawn."""
    targets, groups, keys, eligible = rows
    support = support_rows(*rows, shots, seed)
    doubled = np.tile(targets, 2), np.tile(groups, 2), keys * 2, np.tile(eligible, 2)
    first, second = np.split(support_rows(*doubled, shots, seed), 2)
    np.testing.assert_array_equal(first, support)
    full = np.bincount(targets[support], minlength=4)[targets] == shots
    assert not (second & full).any()


@settings(max_examples=20)
@given(seed=SEEDS)
def test_the_order_is_that_of_sha256(seed):
    keys = [f"{i}".encode() for i in range(20)]
    support = support_rows(np.zeros(20, int), np.arange(20), keys, np.ones(20, bool), 5, seed)
    digests = [hashlib.sha256(f"{seed}:".encode() + key).digest() for key in keys]
    expected = sorted(range(20), key=digests.__getitem__)[:5]
    assert np.flatnonzero(support).tolist() == sorted(expected)


def test_keys_may_be_bytes_text_or_hashes():
    n = 30
    hashes = np.random.default_rng(0).integers(65, 91, size=(n, 32), dtype=np.uint8)
    raw = [row.tobytes() for row in hashes]
    forms = [hashes, raw, [key.decode() for key in raw], hashes.view("V32")[:, 0], np.array(raw)]
    drawn = [
        support_rows(np.arange(n) % 3, np.full(n, -1), keys, np.ones(n, bool), 4, 1)
        for keys in forms
    ]
    for other in drawn[1:]:
        np.testing.assert_array_equal(other, drawn[0])


def test_every_seed_draws_anew_and_every_row_may_be_drawn():
    keys = [bytes([i]) for i in range(10)]
    arguments = np.zeros(10, int), np.arange(10), keys, np.ones(10, bool), 3
    times = sum(support_rows(*arguments, seed).astype(int) for seed in range(400))
    assert abs(times - 120).max() < 45  # 120 +- 9


@pytest.mark.parametrize(
    ("targets", "shots", "says"),
    [
        (np.zeros(3, int), 0, "0 shots; give at least 1"),
        (np.zeros((3, 2), bool), 1, "rows have several labels; shots are counted of one"),
        (np.zeros(4, int), 1, "keys and eligible are of 4, 3, 3, 3 rows; give one of each"),
    ],
)
def test_nonsense_is_refused(targets, shots, says):
    with pytest.raises(ProbeError, match=says):
        support_rows(targets, np.arange(3), ["a", "b", "c"], np.ones(3, bool), shots, 0)
