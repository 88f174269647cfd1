"""Ridge and neighbours against scikit-learn, on the same folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from featcache.errors import ProbeError
from featcache.evaluation.splits import stratified_folds
from featcache.heads.knn import NEIGHBOURS
from featcache.probing import ProbeSpec, fit_screen

Scores = Callable[[np.ndarray, np.ndarray, float], Callable[[np.ndarray], np.ndarray]]


def ridge_by_hand(X: np.ndarray, y: np.ndarray, C: float) -> Callable[[np.ndarray], np.ndarray]:
    return Ridge(alpha=1 / C, solver="svd").fit(X, np.eye(int(y.max()) + 1)[y]).predict


def left_out_error(X: np.ndarray, y: np.ndarray, C: float) -> float:
    """Mean squared error of leave-one-out, one fit a row."""
    errors = [
        ridge_by_hand(np.delete(X, i, 0), np.delete(y, i), C)(X[i : i + 1]) - np.eye(3)[y[i]]
        for i in range(len(y))
    ]
    return float(np.mean(np.square(errors)))


def test_ridge_is_nested_ridge_of_scikit_learn(rows_of: Any, few: Any) -> None:
    X, y = few[0].astype(np.float64), few[1]
    grid = (0.01, 1.0, 100.0)
    probed = fit_screen("ridge", rows_of(*few), ProbeSpec(folds=3, grid=grid))
    held_out = stratified_folds(y, np.arange(len(y)), 3, 0).held_out
    predicted = np.empty(len(y), np.int64)
    for fold in range(3):
        rest, out = held_out != fold, held_out == fold
        best = min(grid, key=lambda C: left_out_error(X[rest], y[rest], C))
        predicted[out] = ridge_by_hand(X[rest], y[rest], best)(X[out]).argmax(axis=1)
    assert probed.scores.accuracy == pytest.approx(np.mean(predicted == y))
    errors = [left_out_error(X, y, C) for C in grid]
    found = [point.squared_error for point in probed.path]
    np.testing.assert_allclose(found, errors, rtol=1e-6)
    assert probed.best == int(np.argmin(errors))
    assert probed.head is None
    assert probed.scores.log_loss is None
    assert np.isnan(probed.probabilities).all()


def test_neighbours_vote_on_a_test_split(rows_of: Any, few: Any, splits_of: Any) -> None:
    data = rows_of(*few, splits_of(90, train=2, test=1))
    probed = fit_screen("knn", data, ProbeSpec())
    X, y = few
    train, test = data.splits == 0, data.splits == 2
    chosen = probed.path[probed.best]
    model = KNeighborsClassifier(
        min(chosen.neighbours or 0, int(train.sum())),
        metric="cosine",
        weights=lambda d: np.exp((1 - d) / 0.07),
    ).fit(X[train], y[train])
    np.testing.assert_allclose(probed.probabilities[test], model.predict_proba(X[test]), atol=1e-4)
    assert [point.neighbours for point in probed.path] == list(NEIGHBOURS)
    assert chosen.accuracy == max(point.accuracy for point in probed.path)
    assert probed.scores.accuracy == np.mean(model.predict(X[test]) == y[test])


@pytest.mark.parametrize("head", ["ridge", "knn"])
@pytest.mark.parametrize("shares", [{"train": 2, "test": 1}, {"train": 3, "val": 2, "test": 1}])
def test_what_is_measured_on_decides_nothing(
    rows_of: Any, few: Any, splits_of: Any, head: Any, shares: dict[str, int]
) -> None:
    """Noise in the place of test rows changes no score of the path and no choice."""
    data = rows_of(*few, splits_of(90, **shares))
    X = data.features.copy()
    X[data.splits == 2] = np.random.default_rng(0).random(X[data.splits == 2].shape)
    spec = ProbeSpec(folds=3, grid=(0.01, 1.0, 100.0))
    before, after = (fit_screen(head, rows, spec) for rows in (data, replace(data, features=X)))
    assert after.path == before.path
    assert after.best == before.best
    assert after.scores.accuracy < before.scores.accuracy


def test_every_role_is_kept(rows_of: Any, few: Any, splits_of: Any) -> None:
    data = rows_of(*few, splits_of(90, train=3, val=2, test=1))
    probed = fit_screen("ridge", data, ProbeSpec())
    np.testing.assert_array_equal(probed.trained, data.splits != 2)
    np.testing.assert_array_equal(probed.judged, data.splits == 2)
    assert probed.method == "test split; C on the val split, refit on train and val"
    assert probed.fits == 2


def test_balanced_ridge_lifts_the_rare_class(rows_of: Any, pixels: Any) -> None:
    X, y = pixels
    rows = np.concatenate([np.flatnonzero(y == 8)[:120], np.flatnonzero(y == 9)[:12]])
    data = rows_of(X[rows], y[rows] - 8)
    plain, even = (
        fit_screen("ridge", data, ProbeSpec(grid=(1e-3,), balanced=balanced))
        for balanced in (False, True)
    )
    assert plain.confusion[1].argmax() == 0
    assert even.scores.mean_per_class > plain.scores.mean_per_class + 0.2


@pytest.mark.parametrize(
    ("head", "spec", "says"),
    [
        ("forest", {}, "give ridge or knn"),
        (
            "ridge",
            {"standardize": True},
            "head 'ridge' does not know --standardize; leave it out, or use softmax",
        ),
        ("knn", {"balanced": True}, "'knn' does not know --class-weight"),
        ("knn", {"smoothing": 0.1}, "'knn' does not know --label-smoothing"),
    ],
)
def test_what_such_heads_have_not_is_refused(
    rows_of: Any, few: Any, head: Any, spec: dict[str, Any], says: str
) -> None:
    with pytest.raises(ProbeError, match=says):
        fit_screen(head, rows_of(*few), ProbeSpec(**spec))
