"""Nothing that is fitted sees a row that it is measured on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from featcache.errors import ProbeError
from featcache.evaluation.splits import join_groups, stratified_folds
from featcache.probing import LabelledRows, ProbeSpec, fit_probe

SPEC = ProbeSpec(grid=(0.01, 1.0), folds=3, inner_folds=2)


def with_noise(data: LabelledRows, rows: np.ndarray, seed: int = 0) -> LabelledRows:
    """Other features, of another scale, and other labels on some rows."""
    rng = np.random.default_rng(seed)
    features, targets = data.features.copy(), data.targets.copy()
    features[rows] = 100 * rng.normal(size=features[rows].shape)
    targets[rows] = rng.permutation(targets[rows])
    return replace(data, features=features, targets=targets)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("grid", [(0.01, 1.0), None], ids=["given grid", "placed grid"])
def test_test_rows_change_no_fitted_number(
    rows_of: Any, few: Any, splits_of: Any, standardize: bool, grid: Any
) -> None:
    X, y = few
    data = rows_of(X, y, splits_of(len(y), train=2, test=1))
    spec = replace(SPEC, standardize=standardize, grid=grid)
    ours = fit_probe(data, spec)
    noisy = fit_probe(with_noise(data, np.flatnonzero(data.splits == 2)), spec)
    np.testing.assert_array_equal(ours.head.coef, noisy.head.coef)
    np.testing.assert_array_equal(ours.head.bias, noisy.head.bias)
    assert ours.path == noisy.path
    assert ours.fit.C == noisy.fit.C
    assert ours.scores != noisy.scores


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("grid", [(0.01, 1.0), None], ids=["given grid", "placed grid"])
def test_an_outer_fold_is_predicted_by_heads_that_never_saw_it(
    rows_of: Any, few: Any, standardize: bool, grid: Any
) -> None:
    """Noise in place of half of a fold leaves the predictions of its other half as they were."""
    X, y = few
    data = rows_of(X, y)
    spec = replace(SPEC, standardize=standardize, grid=grid)
    folds = stratified_folds(y, data.groups, spec.folds, spec.seed)
    fold = np.flatnonzero(folds.held_out == 1)
    half = fold[::2]
    noisy = replace(data, features=with_noise(data, half).features)
    ours, theirs = fit_probe(data, spec), fit_probe(noisy, spec)
    rest = np.setdiff1d(fold, half)
    np.testing.assert_array_equal(ours.probabilities[rest], theirs.probabilities[rest])
    assert ours.chosen[1] == theirs.chosen[1]
    others = np.setdiff1d(np.arange(len(y)), fold)
    assert not np.array_equal(ours.probabilities[others], theirs.probabilities[others])


def test_groups_and_equal_contents_share_a_side(rows_of: Any) -> None:
    """Labels that only the group tells: held-out groups cannot be guessed, so chance is left."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 4)
    X = rng.normal(size=(20, 30))[groups] + 0.01 * rng.normal(size=(80, 30))
    y = np.repeat(rng.permutation(20) % 2, 4)
    apart = fit_probe(rows_of(X, y, groups=groups), SPEC)
    mixed = fit_probe(rows_of(X, y), SPEC)
    assert mixed.scores.accuracy > 0.95  # what leaks without groups
    assert apart.scores.accuracy < 0.8
    assert apart.interval.hi - apart.interval.lo > mixed.interval.hi - mixed.interval.lo
    assert "effective number of rows" in apart.interval.method


def test_the_same_bytes_under_two_labels_are_held_out_together(rows_of: Any, few: Any) -> None:
    X, y = few[0].copy(), few[1].copy()
    hashes = np.random.default_rng(0).integers(256, size=(len(y), 32)).astype(np.uint8)
    twins = np.flatnonzero(y == 0)[:10], np.flatnonzero(y == 1)[:10]
    X[twins[1]], hashes[twins[1]] = X[twins[0]], hashes[twins[0]]
    data = rows_of(X, y, groups=join_groups(None, hashes))
    probed = fit_probe(data, SPEC)
    held = stratified_folds(y, data.groups, SPEC.folds, SPEC.seed).held_out
    np.testing.assert_array_equal(held[twins[0]], held[twins[1]])
    np.testing.assert_array_equal(probed.probabilities[twins[0]], probed.probabilities[twins[1]])


def test_training_rows_that_belong_to_test_rows_are_left_out(
    rows_of: Any, few: Any, splits_of: Any
) -> None:
    X, y = few
    splits = splits_of(len(y), train=2, test=1)
    test, train = splits.index("test"), splits.index("train")
    groups = np.arange(len(y))
    groups[train] = groups[test]
    probed = fit_probe(rows_of(X, y, splits, groups), SPEC)
    assert not probed.trained[train]
    assert probed.trained.sum() == splits.count("train") - 1
    assert probed.scores.n == splits.count("test")  # what is measured on stays whole
    assert any("1 pictures are left out" in w and "test" in w for w in probed.warnings)

    changed = X.copy()
    changed[train] = 1000.0
    again = fit_probe(rows_of(changed, y, splits, groups), SPEC)
    np.testing.assert_array_equal(again.head.coef, probed.head.coef)


def test_val_rows_that_belong_to_test_rows_choose_nothing(
    rows_of: Any, few: Any, splits_of: Any
) -> None:
    X, y = few
    splits = splits_of(len(y), train=3, val=2, test=1)
    groups = np.arange(len(y))
    val, test = splits.index("val"), splits.index("test")
    train = splits.index("train")
    groups[val] = groups[test]
    other_val = splits.index("val", val + 1)
    groups[train] = groups[other_val]  # may not be fitted on where that row chooses C
    probed = fit_probe(rows_of(X, y, splits, groups), SPEC)
    assert not probed.trained[[val, train]].any()
    assert np.isnan(probed.probabilities[val]).all()
    assert any("2 pictures are left out" in w for w in probed.warnings)


def test_a_split_that_is_one_group_with_another_is_refused(
    rows_of: Any, few: Any, splits_of: Any
) -> None:
    X, y = few
    splits = splits_of(len(y), train=1, test=1)
    with pytest.raises(ProbeError, match="every labelled picture of the train split shares"):
        fit_probe(rows_of(X, y, splits, np.zeros(len(y))), SPEC)
