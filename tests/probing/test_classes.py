"""Classes that are too small, absent, or several at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from featcache.errors import ProbeError
from featcache.evaluation.metrics import LOG_LOSS_CLIP
from featcache.probing import ProbeSpec, fit_probe

SPEC = ProbeSpec(grid=(0.01, 1.0), folds=5, inner_folds=2)


def keep(few: Any, **counts: int) -> tuple[np.ndarray, np.ndarray]:
    """The first pictures of each digit: `keep(few, zero=1, one=20, two=20)`."""
    X, y = few
    rows = np.concatenate([np.flatnonzero(y == k)[:c] for k, c in enumerate(counts.values())])
    return X[rows], y[rows]


def test_a_class_of_one_picture_trains_and_is_never_held_out(rows_of: Any, few: Any) -> None:
    X, y = keep(few, zero=1, one=20, two=20)
    probed = fit_probe(rows_of(X, y, classes=("zero", "one", "two")), SPEC)
    assert not probed.judged[0]
    assert probed.trained[0]
    assert np.isnan(probed.probabilities[0]).all()
    assert "one picture only of 'zero': it trains and is never held out" in probed.warnings
    assert probed.scores.n == 40
    assert np.abs(probed.head.coef[0]).sum() > 0  # it can be predicted


def test_a_class_in_one_group_trains_and_is_never_held_out(rows_of: Any, few: Any) -> None:
    X, y = keep(few, zero=6, one=20, two=20)
    groups = np.where(y == 0, 0, np.arange(len(y)))
    probed = fit_probe(rows_of(X, y, groups=groups, classes=("zero", "one", "two")), SPEC)
    assert not probed.judged[y == 0].any()
    assert any("all pictures of 'zero' belong together" in w for w in probed.warnings)


def test_more_folds_than_pictures_of_the_smallest_class(rows_of: Any, few: Any) -> None:
    X, y = keep(few, zero=3, one=20, two=20)
    probed = fit_probe(rows_of(X, y, classes=("zero", "one", "two")), SPEC)
    assert probed.method.startswith("nested cross-validation (3 outer, 2 inner folds)")
    assert any("3 folds instead of 5: 'zero' has no more pictures" in w for w in probed.warnings)
    assert probed.judged.all()


def test_a_class_absent_from_an_inner_fold_does_no_harm(rows_of: Any, few: Any) -> None:
    """Of two pictures one is held out; the other cannot be held out again inside."""
    X, y = keep(few, zero=2, one=20, two=20)
    probed = fit_probe(rows_of(X, y), SPEC)
    assert probed.judged.all()
    assert np.isfinite(probed.probabilities).all()


def test_a_class_only_in_test_costs_the_clipped_log_loss(rows_of: Any, few: Any) -> None:
    X, y = keep(few, zero=3, one=20, two=20)
    splits = ["test" if k == 0 or i % 3 == 0 else "train" for i, k in enumerate(y)]
    probed = fit_probe(rows_of(X, y, splits, classes=("zero", "one", "two")), SPEC)
    assert any("no training picture of 'zero'" in w for w in probed.warnings)
    assert (probed.probabilities[:, 0] == 0).all()
    assert probed.confusion[0, 0] == 0
    assert probed.scores.log_loss > 3 / probed.scores.n * -np.log(LOG_LOSS_CLIP) * 0.99
    assert np.isfinite(probed.scores.log_loss)


def test_one_class_to_train_on_is_refused_by_name(rows_of: Any, few: Any) -> None:
    X, y = few
    splits = ["train" if k == 1 else ("val" if i % 2 else "test") for i, k in enumerate(y)]
    with pytest.raises(ProbeError, match="'one' is the only class to train on"):
        fit_probe(rows_of(X, y, splits, classes=("zero", "one", "two")), SPEC)


def test_two_pictures_a_class_are_too_few_and_it_says_how_many_would_do(
    rows_of: Any, few: Any
) -> None:
    X, y = keep(few, zero=2, one=2)
    with pytest.raises(ProbeError, match="give every class at least 3, or a val or test split"):
        fit_probe(rows_of(X, y), SPEC)
    X, y = keep(few, zero=3, one=3)
    assert fit_probe(rows_of(X, y), SPEC).scores.n == 6


def test_several_labels_need_logistic(rows_of: Any, few: Any) -> None:
    X, y = few
    labels = np.stack([y == 0, y != 2, y == 2], axis=1)
    several = (y == 0).sum()
    with pytest.raises(ProbeError, match=f"{several} of 90 pictures .*give --head logistic"):
        fit_probe(rows_of(X, labels), SPEC)


def test_several_labels_with_logistic(rows_of: Any, few: Any) -> None:
    X, y = few
    labels = np.stack([y == 0, y != 2, y == 2], axis=1)
    probed = fit_probe(rows_of(X, labels), ProbeSpec(loss="logistic", grid=(1.0,), folds=3))
    assert probed.head.multi_label
    assert probed.confusion.shape == (0, 0)
    assert probed.probabilities.shape == (90, 3)
    right = ((probed.probabilities > 0.5) == labels).all(axis=1)
    assert probed.scores.accuracy == right.mean() > 0.9
    assert probed.scores.mean_per_class > 0.95


def test_a_label_on_one_picture_is_named(rows_of: Any, few: Any) -> None:
    X, y = few
    labels = np.stack([y == 0, y != 0, np.arange(90) == 7], axis=1)
    data = rows_of(X, labels, classes=("zero", "other", "seventh"))
    probed = fit_probe(data, ProbeSpec(loss="logistic", grid=(1.0,), folds=3))
    assert any(w.startswith("'seventh': on one picture") for w in probed.warnings)
    assert np.isfinite(probed.scores.log_loss)


def test_perfect_separation_stays_finite(rows_of: Any) -> None:
    y = np.arange(30) % 3
    X = 1e4 * np.eye(3)[y] + np.random.default_rng(0).normal(size=(30, 3))
    probed = fit_probe(rows_of(X, y), ProbeSpec(folds=2))
    assert probed.scores.accuracy == 1
    assert np.isfinite([probed.scores.log_loss, probed.fit.gap, probed.fit.C]).all()


def test_fits_over_the_tolerance_are_said(rows_of: Any, few: Any) -> None:
    probed = fit_probe(rows_of(*few), ProbeSpec(grid=(1.0,), folds=2, tolerance=1e-300))
    assert probed.missed == probed.fits
    assert not probed.converged
    assert any("stopped over the tolerance of 1e-300" in w for w in probed.warnings)
