"""The estimate is scikit-learn's own nested cross-validation, as anyone would write it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from threadpoolctl import threadpool_limits

from featcache.evaluation.intervals import WILSON, WILSON_NESTED, accuracy_interval
from featcache.probing import ProbeSpec, fit_probe

SEED, OUTER, INNER = 4, 3, 2
TIGHT = 1e-6


def referee(loss: str, X: np.ndarray, y: np.ndarray, grid: tuple[float, ...]) -> Any:
    """Held-out probabilities, C by outer fold, and mean accuracy on what the folds trained on."""

    def fit(C: float, train: np.ndarray) -> Any:
        model = LogisticRegression(C=C, tol=1e-7, max_iter=20_000)
        model = OneVsRestClassifier(model) if loss == "logistic" else model
        return model.fit(X[train] - X[train].mean(axis=0), y[train])

    def predict(model: Any, train: np.ndarray, out: np.ndarray) -> np.ndarray:
        return model.predict_proba(X[out] - X[train].mean(axis=0))

    def held_out_loss(C: float, rows: np.ndarray) -> float:
        given = np.empty((len(rows), y.max() + 1))
        inner = StratifiedKFold(INNER, shuffle=True, random_state=SEED)
        for a, b in inner.split(rows, y[rows]):
            given[b] = predict(fit(C, rows[a]), rows[a], rows[b])
        return log_loss(y[rows], given)

    probabilities, chosen, on_training = np.empty((len(y), y.max() + 1)), [], []
    outer = StratifiedKFold(OUTER, shuffle=True, random_state=SEED)
    for train, out in outer.split(X, y):
        best = min(grid, key=lambda C: held_out_loss(C, train))
        chosen.append(best)
        model = fit(best, train)
        probabilities[out] = predict(model, train, out)
        on_training.append((predict(model, train, train).argmax(axis=1) == y[train]).mean())
    return probabilities, tuple(chosen), float(np.mean(on_training))


@pytest.mark.parametrize(
    ("loss", "digits", "n", "grid"),
    [
        ("softmax", range(10), 1797, (0.3, 3.0, 30.0)),
        ("softmax", (3, 8), 357, (0.1, 1.0, 10.0)),
        ("logistic", (3, 5, 8, 9), 600, (0.3, 3.0, 30.0)),
    ],
    ids=["softmax, ten classes", "binary", "one-vs-rest"],
)
def test_nested_cross_validation_is_scikit_learns(
    pixels: Any, rows_of: Any, loss: Any, digits: Any, n: int, grid: tuple[float, ...]
) -> None:
    X, y = pixels
    chosen = np.flatnonzero(np.isin(y, list(digits)))[:n]
    X, y = X[chosen], np.searchsorted(sorted(digits), y[chosen])
    with threadpool_limits(1):  # small matrices: threads only wait for each other
        theirs, their_C, their_training = referee(loss, X.astype(np.float64), y, grid)

    spec = ProbeSpec(
        loss=loss, folds=OUTER, inner_folds=INNER, seed=SEED, tolerance=TIGHT, grid=grid
    )
    probed = fit_probe(rows_of(X, y), spec)

    assert probed.missed == 0
    assert probed.chosen == their_C
    assert set(probed.chosen) <= set(grid)
    np.testing.assert_allclose(probed.probabilities, theirs, atol=3e-3)
    differing = int((probed.probabilities.argmax(axis=1) != theirs.argmax(axis=1)).sum())
    assert differing <= 2
    right = float((theirs.argmax(axis=1) == y).mean())
    assert abs(probed.scores.accuracy - right) <= 2 / len(y)
    assert probed.scores.log_loss == pytest.approx(log_loss(y, theirs), abs=1e-4)
    assert probed.train_accuracy == pytest.approx(their_training, abs=1 / len(y))
    assert probed.method.startswith("nested cross-validation (3 outer, 2 inner folds)")
    assert probed.scores.n == len(y)
    assert probed.confusion.sum() == len(y)
    assert np.trace(probed.confusion) == round(probed.scores.accuracy * len(y))


def test_the_confusion_has_the_given_classes_as_rows(rows_of: Any, few: Any) -> None:
    probed = fit_probe(rows_of(*few), ProbeSpec(grid=(1e-4,), folds=2))
    np.testing.assert_array_equal(probed.confusion.sum(axis=1), np.bincount(few[1]))


def test_the_refit_is_at_the_best_of_the_path(rows_of: Any, few: Any) -> None:
    probed = fit_probe(rows_of(*few), ProbeSpec(grid=(30.0, 0.003, 0.3, 0.3), folds=3))
    assert [point.C for point in probed.path] == [0.003, 0.3, 30.0]  # sorted, each once
    assert min(probed.path, key=lambda point: point.log_loss).C == probed.fit.C
    assert 0.003 <= probed.one_error_C <= probed.fit.C
    assert probed.trained.all()
    assert probed.converged
    assert probed.fits == 3 * 3 * (3 + 1) + 1 + 10 * (3 + 3)


def test_the_interval_has_the_variance_of_training_in_it(rows_of: Any, few: Any) -> None:
    X, y = few
    noisy = X[:60] + 3 * np.random.default_rng(0).normal(size=X[:60].shape)
    probed = fit_probe(rows_of(noisy, y[:60]), ProbeSpec(grid=(0.01,), folds=3))
    right = probed.probabilities.argmax(axis=1) == y[:60]
    alone = accuracy_interval(right)
    assert probed.interval.method == WILSON_NESTED
    assert probed.interval.lo <= alone.lo
    assert alone.hi <= probed.interval.hi
    two = fit_probe(rows_of(noisy, y[:60]), ProbeSpec(grid=(0.01,), folds=2))
    assert two.interval.method == WILSON  # two folds cannot tell


def test_progress_counts_every_fit_to_the_end(rows_of: Any, few: Any) -> None:
    seen: list[tuple[str, int, int]] = []
    probed = fit_probe(rows_of(*few), ProbeSpec(grid=(0.01, 1.0)), lambda *a: seen.append(a))
    total = 5 * 2 * (3 + 1) + 1 + 10 * (5 + 10)
    assert seen == [("fit", i, total) for i in range(1, total + 1)]
    assert probed.fits == total


def test_the_stronger_penalty_wins_a_tie(rows_of: Any) -> None:
    X = np.zeros((12, 2))  # nothing to learn from: every C gives the same head
    probed = fit_probe(rows_of(X, np.arange(12) % 2), ProbeSpec(grid=(1.0, 0.1), folds=2))
    assert probed.fit.C == 0.1
    assert probed.scores.log_loss == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"loss": "ridge"}, "head 'ridge': unknown; give softmax or logistic"),
        ({"folds": 1}, "give at least 2"),
        ({"seed": -1}, "seed -1"),
        ({"tolerance": 0.0}, "tolerance 0.0"),
        ({"tolerance": float("nan")}, "tolerance nan"),
        ({"grid": ()}, "grid"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once(wrong: dict[str, Any], says: str) -> None:
    from featcache.errors import ProbeError

    with pytest.raises(ProbeError, match=says):
        ProbeSpec(**wrong)
