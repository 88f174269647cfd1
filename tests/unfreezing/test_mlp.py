"""An MLP head beside the linear one: by law, on features made by hand and on digits' pixels."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featcache.errors import ProbeError
from featcache.evaluation.metrics import correct
from featcache.evaluation.paired import compare
from featcache.probing import LabelledRows, ProbeSpec
from featcache.probing.views import Views
from featcache.recipe import View
from featcache.store.index import SPLITS
from featcache.training.model import hidden_of
from featcache.training.spec import TrainingSpec
from featcache.unfreezing import MlpFound, MlpSpec, SweepSpec, probe_mlp, refit_mlp
from featcache.unfreezing.mlp import features_of, moments

QUICK = MlpSpec(
    SweepSpec(
        depths=(0,),
        probe=ProbeSpec(grid=(0.1, 10.0), tolerance=0.1, folds=2),
        training=TrainingSpec(epochs=4),
        rates=(1e-3, 1e-2),
    ),
    hidden=16,
)


def asked(spec: MlpSpec = QUICK, **changes: Any) -> MlpSpec:
    return replace(spec, sweep=replace(spec.sweep, **changes))


def rows_of(
    features: np.ndarray, targets: np.ndarray, splits: tuple[str, ...] = ("",)
) -> LabelledRows:
    """Rows of groups of their own; splits are dealt in turn."""
    n = len(features)
    codes = [SPLITS.index(name) if name else -1 for name in (splits * n)[:n]]
    classes = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
    hashes = [np.frombuffer(sha256(row.tobytes()).digest(), np.uint8) for row in features]
    return LabelledRows(
        features=features.astype(np.float32),
        targets=targets,
        classes=tuple(f"class {k}" for k in range(classes)),
        splits=np.array(codes, np.int8),
        groups=np.arange(n),
        rows=np.arange(n),
        hashes=np.stack(hashes),
    )


def digits(count: int = 240, splits: tuple[str, ...] = ("",)) -> LabelledRows:
    X, y = load_digits(return_X_y=True)
    return rows_of(X[:count], y[:count].astype(np.int64), splits)


def exclusive_or(count: int = 600) -> LabelledRows:
    """The class is whether two columns have the same sign; six others say nothing."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(count, 8))
    X[:, :2] = rng.choice([-2.0, 2.0], size=(count, 2)) + 0.3 * X[:, :2]
    return rows_of(X, (X[:, 0] * X[:, 1] > 0).astype(np.int64))


def fitted(found: MlpFound) -> list[np.ndarray]:
    return [
        array
        for fits in (*found.mlp.fits, *found.linear.fits)
        for fit in fits
        for array in (fit.head.coef, fit.head.bias, *(t.numpy() for t in fit.tensors.values()))
    ]


def test_it_beats_the_linear_head_where_no_line_separates() -> None:
    spec = asked(training=TrainingSpec(epochs=40), rates=(3e-3, 1e-2))
    found = probe_mlp(exclusive_or(), spec)
    assert found.linear.scores.accuracy < 0.65
    assert found.mlp.scores.accuracy > 0.95
    assert found.difference.ci95[0] > 0.2
    assert found.difference.p_value < 1e-6
    assert found.recommendation.depth == 1
    assert found.recommendation.reason.startswith("the MLP head is enough")


def test_it_does_not_where_a_line_is_all_there_is() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 5))
    found = probe_mlp(rows_of(X, (X[:, 0] > 0).astype(np.int64)), QUICK)
    assert found.difference.ci95[0] < 0.02
    assert found.recommendation.depth != 1


@pytest.mark.parametrize(
    ("changes", "splits"),
    [({}, ("",)), ({"folds": 3}, ("",)), ({}, ("train", "train", "test"))],
    ids=["hold-out", "folds", "test split"],
)
def test_both_heads_are_judged_on_the_same_pictures_and_trained_on_no_other(
    changes: dict[str, Any], splits: tuple[str, ...]
) -> None:
    data = digits(splits=splits)
    found = probe_mlp(data, asked(**changes))
    judged = np.flatnonzero(found.probed.judged)
    assert len(judged) == found.linear.scores.n == found.mlp.scores.n
    seen = np.concatenate([np.flatnonzero(part.judged) for part in found.split.parts])
    linear = np.concatenate([fits[0].probabilities for fits in found.linear.fits])
    mlp = found.probed.probabilities[seen]
    for ours, probabilities in ((found.linear, linear), (found.mlp, mlp)):
        right = correct(probabilities, data.targets[seen])
        np.testing.assert_array_equal(ours.right[0], right)
        assert ours.scores.accuracy == right.mean()
    pair = compare(found.mlp.right[0], found.linear.right[0], data.groups[seen])
    assert pair == found.difference
    assert found.probed.confusion.sum() == len(judged)
    if "test" in splits:
        np.testing.assert_array_equal(judged, np.flatnonzero(data.splits == SPLITS.index("test")))
    if changes:
        assert len(judged) == len(data)


@pytest.mark.parametrize("splits", [("",), ("train", "train", "test")])
def test_rows_held_out_change_no_fitted_number(splits: tuple[str, ...]) -> None:
    data = digits(splits=splits)
    ours = probe_mlp(data, QUICK)
    judged, rng = ours.probed.judged, np.random.default_rng(0)
    features = data.features.copy()
    features[judged] = 100 * rng.normal(size=features[judged].shape)
    theirs = probe_mlp(replace(data, features=features), QUICK)
    for a, b in zip(fitted(ours), fitted(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert ours.mlp.fits[0][0].rate == theirs.mlp.fits[0][0].rate
    assert ours.mlp.scores != theirs.mlp.scores


def test_a_rate_that_learns_nothing_is_not_chosen() -> None:
    data = digits()
    spec = asked(rates=(1e-12, 1e-2))
    found = probe_mlp(data, spec).mlp.fits[0][0]
    assert found.rate == 1e-2
    still = probe_mlp(data, asked(rates=(1e-12,))).mlp.fits[0][0]
    assert found.train_accuracy > still.train_accuracy + 0.3


def test_the_same_seed_gives_the_same_bits_and_another_others() -> None:
    data, other = digits(), asked(training=TrainingSpec(epochs=4, seed=1))
    one, same, another = (probe_mlp(data, spec) for spec in (QUICK, QUICK, other))
    for a, b in zip(fitted(one), fitted(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.mlp.fits[0][0].head.coef, another.mlp.fits[0][0].head.coef)


def test_several_seeds_are_all_judged() -> None:
    found = probe_mlp(digits(), asked(seeds=2))
    assert found.mlp.right.shape == found.linear.right.shape
    assert len(found.mlp.right) == 2
    assert not np.array_equal(*found.mlp.right)
    np.testing.assert_array_equal(*found.linear.right)
    assert found.mlp.scores.accuracy == pytest.approx(found.mlp.right.mean())
    assert "2 seeds" in found.recommendation.reason


def test_a_feature_s_unit_and_origin_mean_nothing() -> None:
    data = exclusive_or(300)
    other = replace(data, features=1024 * data.features + 4096)
    one, two = (probe_mlp(d, QUICK).mlp.fits[0][0] for d in (data, other))
    np.testing.assert_allclose(one.probabilities, two.probabilities, atol=0.02)


def test_the_units_that_are_kept_are_those_that_were_judged() -> None:
    data = digits()
    found = probe_mlp(data, QUICK)
    fit = found.mlp.fits[0][0]
    below = hidden_of(fit.tensors).activations(data.features[found.probed.judged])
    np.testing.assert_allclose(fit.head.probabilities(below), fit.probabilities, atol=1e-4)


def test_what_is_refitted() -> None:
    """With a test split it is the head that was measured; else one of all pictures."""
    tested = digits(splits=("train", "train", "test"))
    found = probe_mlp(tested, QUICK)
    assert refit_mlp(tested, QUICK, found) is found.mlp.fits[0][0]
    data = digits()
    found = probe_mlp(data, QUICK)
    again = refit_mlp(data, QUICK, found)
    assert again is not found.mlp.fits[0][0]
    assert len(again.probabilities) == 0
    assert found.probed.trained.all()


def test_all_views_train_and_none_is_judged() -> None:
    """Views that are wrong pictures spoil the training; held-out ones change nothing."""
    data = digits()
    rng = np.random.default_rng(0)
    noise = rng.permuted(data.features, axis=1)

    def viewed(extra: np.ndarray) -> LabelledRows:
        owners = np.concatenate([np.arange(len(data)), np.arange(len(data))])
        both = np.concatenate([data.features, extra])
        return replace(data, views=Views((View("flip", 0, 1),), both, owners))

    plain, copies, spoilt = (
        probe_mlp(d, QUICK) for d in (data, viewed(data.features), viewed(noise))
    )
    for a, b in zip(fitted(plain), fitted(copies), strict=True):
        np.testing.assert_allclose(a, b, atol=0.05)
    assert spoilt.mlp.scores.log_loss > plain.mlp.scores.log_loss
    held_out = np.where(plain.probed.judged[:, None], noise, data.features)
    unseen = probe_mlp(viewed(held_out), QUICK)
    for a, b in zip(fitted(copies), fitted(unseen), strict=True):
        np.testing.assert_array_equal(a, b)
    assert unseen.mlp.scores == copies.mlp.scores


def test_where_views_lie() -> None:
    """A picture that lacks a view has its plain one instead."""
    data = digits(30)
    owners = np.array([*range(30), *range(30), *range(0, 30, 2)])
    rows = np.arange(len(owners))[:, None].astype(np.float32)
    names = View("flip", 0, 1), View("flip", 0, 2)
    given = features_of(replace(data, views=Views(names, rows, owners)))
    assert given.positions.shape == (30, 3)
    np.testing.assert_array_equal(owners[given.positions], np.arange(30)[:, None].repeat(3, 1))
    np.testing.assert_array_equal(given.positions[4], [4, 34, 62])
    np.testing.assert_array_equal(given.positions[5], [5, 35, 5])


def test_balanced_classes_weigh_alike() -> None:
    """A class that is rare is predicted far more often, as by the linear head."""
    y = (np.arange(440) % 11 == 0).astype(np.int64)
    X = np.random.default_rng(0).normal(size=(440, 3))
    X[:, 0] += 1.5 * y
    data, balanced = rows_of(X, y), replace(QUICK.sweep.probe, balanced=True)
    plain, even = (probe_mlp(data, spec) for spec in (QUICK, asked(probe=balanced)))
    for one, other in ((plain.linear, even.linear), (plain.mlp, even.mlp)):
        predicted = [found.fits[0][0].probabilities.argmax(axis=1).sum() for found in (one, other)]
        assert predicted[1] > 2 * predicted[0]


def test_several_labels_a_picture() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    Y = np.stack([X[:, 0] * X[:, 1] > 0, X[:, 2] > 0], axis=1)
    logistic = ProbeSpec(loss="logistic", grid=(1.0,), tolerance=0.1, folds=2)
    spec = asked(probe=logistic, training=TrainingSpec(epochs=20), rates=(1e-2,))
    found = probe_mlp(rows_of(X, Y), spec)
    assert found.mlp.scores.accuracy > found.linear.scores.accuracy
    assert found.mlp.fits[0][0].head.multi_label
    with pytest.raises(ProbeError, match="leave out --class-weight"):
        probe_mlp(rows_of(X, Y), asked(probe=replace(logistic, balanced=True)))


def test_moments_are_numpy_s() -> None:
    data = digits()
    rows = np.arange(len(data)) % 3 > 0
    mean, scale = moments(data, rows)
    X = data.features[rows].astype(np.float64)
    np.testing.assert_allclose(mean, X.mean(axis=0))
    np.testing.assert_allclose(scale, X.std(axis=0), atol=1e-12)


@pytest.mark.parametrize(("hidden", "dropout"), [(0, 0.5), (5, 1.0), (5, -0.1)])
def test_impossible_units_are_refused(hidden: int, dropout: float) -> None:
    with pytest.raises(ProbeError, match=f"{hidden} hidden units, dropout {dropout}"):
        replace(QUICK, hidden=hidden, dropout=dropout)
