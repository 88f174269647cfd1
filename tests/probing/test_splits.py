"""The data's own splits are used as what they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from featcache.errors import ProbeError
from featcache.evaluation.metrics import score
from featcache.probing import ProbeSpec, fit_probe

SPEC = ProbeSpec(grid=(1e-4, 0.01, 1.0), folds=4, inner_folds=2)


def permuted(data: Any, split: int, seed: int = 1) -> Any:
    """The labels of one split, permuted."""
    rows, targets = np.flatnonzero(data.splits == split), data.targets.copy()
    targets[rows] = np.random.default_rng(seed).permutation(targets[rows])
    return replace(data, targets=targets)


def test_train_and_test(rows_of: Any, few: Any, splits_of: Any) -> None:
    data = rows_of(*few, splits_of(90, train=2, test=1))
    probed = fit_probe(data, SPEC)
    assert probed.method == "test split; C by 4-fold cross-validation within train"
    np.testing.assert_array_equal(probed.judged, data.splits == 2)
    np.testing.assert_array_equal(probed.trained, data.splits == 0)
    other = fit_probe(permuted(data, 2), SPEC)
    assert other.path == probed.path  # test labels choose nothing
    assert other.fit.C == probed.fit.C
    assert other.scores.accuracy < probed.scores.accuracy
    assert not np.isnan(probed.probabilities).any()  # train rows by their fold, test by the refit


def test_train_val_and_test(rows_of: Any, few: Any, splits_of: Any) -> None:
    data = rows_of(*few, splits_of(90, train=3, val=2, test=1))
    probed = fit_probe(data, SPEC)
    assert probed.method == "test split; C on the val split, refit on train and val"
    np.testing.assert_array_equal(probed.judged, data.splits == 2)
    np.testing.assert_array_equal(probed.trained, data.splits != 2)
    np.testing.assert_array_equal(np.isnan(probed.probabilities[:, 0]), data.splits == 0)
    other = fit_probe(permuted(data, 2), SPEC)
    assert other.path == probed.path
    np.testing.assert_array_equal(other.head.coef, probed.head.coef)
    assert fit_probe(permuted(data, 1), SPEC).path != probed.path  # val does choose


def test_train_and_val(rows_of: Any, few: Any, splits_of: Any) -> None:
    data = rows_of(*few, splits_of(90, train=2, val=1))
    probed = fit_probe(data, SPEC)
    assert probed.method == "val split; C by 4-fold cross-validation within train"
    np.testing.assert_array_equal(probed.judged, data.splits == 1)
    np.testing.assert_array_equal(probed.trained, data.splits == 0)
    other = fit_probe(permuted(data, 1), SPEC)
    assert other.path == probed.path  # val, which is measured on, chooses nothing
    np.testing.assert_array_equal(other.head.coef, probed.head.coef)


def test_no_split(rows_of: Any, few: Any) -> None:
    probed = fit_probe(rows_of(*few), SPEC)
    assert probed.method == "nested cross-validation (4 outer, 2 inner folds)"
    assert probed.judged.all()
    assert probed.trained.all()


def test_rows_without_a_split_train(rows_of: Any, few: Any, splits_of: Any) -> None:
    data = rows_of(*few, splits_of(90, train=1, test=1))
    some = data.splits.copy()
    some[np.flatnonzero(some == 0)[:10]] = -1
    np.testing.assert_array_equal(
        fit_probe(replace(data, splits=some), SPEC).head.coef, fit_probe(data, SPEC).head.coef
    )


def test_the_head_that_is_returned_is_the_one_that_is_measured(
    rows_of: Any, few: Any, splits_of: Any
) -> None:
    data = rows_of(*few, splits_of(90, train=2, test=1))
    probed = fit_probe(data, SPEC)
    test = data.splits == 2
    by_head = probed.head.probabilities(data.features[test])
    np.testing.assert_array_equal(by_head, probed.probabilities[test])
    assert score(by_head, data.targets[test]) == probed.scores


@pytest.mark.parametrize("others", [["test"], ["val"], ["val", "test"]])
def test_nothing_to_train_on_is_refused(rows_of: Any, few: Any, others: list[str]) -> None:
    splits = [others[i % len(others)] for i in range(90)]
    with pytest.raises(ProbeError, match="nothing to train on; put some into train"):
        fit_probe(rows_of(*few, splits), SPEC)
