"""Views train, each weighing 1/V, and are never measured on nor on the other side of a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from featcache import api
from featcache.errors import CacheIncompleteError, ProbeError
from featcache.evaluation.splits import stratified_folds
from featcache.probing import LabelledRows, ProbeSpec, ViewChoice, fit_probe, fit_screen
from featcache.probing.rows import labelled_rows
from featcache.probing.solving import Solving
from featcache.probing.views import Views
from featcache.recipe import View
from featcache.store.cache import Cache

SPEC = ProbeSpec(grid=(0.01, 1.0), folds=3, inner_folds=2)
STANDARD = View("standard", 0, 1)


def with_views(data: LabelledRows, *more: np.ndarray, but: Any = ()) -> LabelledRows:
    """Rows with views beside the plain one; pictures `but` have only that."""
    own = np.setdiff1d(np.arange(len(data)), but)
    features = np.concatenate([data.features, *(view[own] for view in more)]).astype(np.float32)
    owners = np.concatenate([np.arange(len(data)), *(own for _ in more)])
    names = tuple(View("standard", 0, number) for number in range(1, len(more) + 1))
    return replace(data, views=Views(names, features, owners))


def noisy(X: np.ndarray, seed: int, scale: float = 0.3) -> np.ndarray:
    return X + scale * np.random.default_rng(seed).normal(size=X.shape)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize(
    "changes", [{}, {"standardize": True}, {"balanced": True}, {"grid": None}, {"loss": "logistic"}]
)
def test_copies_of_the_plain_view_give_the_head_of_the_plain_view(
    rows_of: Any, few: Any, changes: dict[str, Any], copies: int
) -> None:
    X, y = few
    data, spec = rows_of(X, y), replace(SPEC, tolerance=1e-6, **changes)
    plain = fit_probe(data, spec)
    copied = fit_probe(with_views(data, *[X] * copies), spec)
    assert copied.fit.C == plain.fit.C
    assert copied.converged
    assert abs(copied.fit.objective - plain.fit.objective) <= 1e-6 * plain.fit.objective
    np.testing.assert_allclose(copied.probabilities, plain.probabilities, atol=2e-3)
    assert copied.scores.accuracy == plain.scores.accuracy
    assert (copied.scores.n, int(copied.trained.sum())) == (len(y), len(y))
    assert copied.interval == plain.interval


def test_a_head_on_views_is_scikit_learns_with_weights_of_1_over_v(rows_of: Any, few: Any) -> None:
    """Some pictures have three views and some the plain one alone; each weighs 1 in all."""
    X, y = few
    views = [noisy(X, 1), noisy(X, 2)]
    data = with_views(rows_of(X, y), *views, but=np.arange(0, 90, 4))
    rows = data.views
    weights = np.where(np.isin(np.arange(90), np.arange(0, 90, 4)), 1.0, 1 / 3)[rows.owners]
    np.testing.assert_allclose(rows.weights, weights)
    assert weights.sum() == pytest.approx(90)
    spec = replace(SPEC, tolerance=1e-8, balanced=False)
    fit = Solving(data, spec, None).fit(np.ones(90, np.bool_), 0.5)
    referee = LogisticRegression(C=0.5, tol=1e-10, max_iter=5000)
    referee.fit(rows.features.astype(np.float64), y[rows.owners], sample_weight=weights)
    np.testing.assert_allclose(
        fit.head.coef - fit.head.coef.mean(0), referee.coef_ - referee.coef_.mean(0), atol=2e-4
    )
    Z = rows.features.astype(np.float64) @ referee.coef_.T + referee.intercept_
    logs = Z - np.log(np.exp(Z).sum(1, keepdims=True))
    loss = -(weights * logs[np.arange(len(Z)), y[rows.owners]]).sum() / 90
    value = loss + (referee.coef_**2).sum() / (2 * 0.5 * 90)
    assert fit.objective <= value * (1 + 1e-8)
    assert fit.objective >= value * (1 - 1e-5)


def test_views_change_what_trains_and_not_what_is_measured(rows_of: Any, few: Any) -> None:
    X, y = few
    data = rows_of(X, y)
    plain, viewed = fit_probe(data, SPEC), fit_probe(with_views(data, noisy(X, 1)), SPEC)
    assert not np.array_equal(viewed.head.coef, plain.head.coef)
    assert viewed.scores.n == plain.scores.n == len(y)
    expected = viewed.head.probabilities(data.features)
    test = rows_of(X, y, ["train", "test"] * 45)
    held = fit_probe(with_views(test, noisy(X, 1), but=np.arange(1, 90, 2)), SPEC)
    assert expected.shape == held.probabilities.shape
    judged = held.head.probabilities(test.features[1::2])
    np.testing.assert_allclose(held.probabilities[1::2], judged, atol=1e-6)


def test_an_outer_fold_is_predicted_by_heads_that_saw_none_of_its_views(
    rows_of: Any, few: Any
) -> None:
    """Noise in place of the views of a fold's pictures leaves their predictions as they were."""
    X, y = few
    data = rows_of(X, y)
    folds = stratified_folds(y, data.groups, SPEC.folds, SPEC.seed)
    fold = np.flatnonzero(folds.held_out == 1)
    view = noisy(X, 1)
    spoiled = view.copy()
    spoiled[fold] += np.random.default_rng(9).normal(size=spoiled[fold].shape)
    ours, theirs = (fit_probe(with_views(data, v), SPEC) for v in (view, spoiled))
    np.testing.assert_array_equal(ours.probabilities[fold], theirs.probabilities[fold])
    assert ours.chosen[1] == theirs.chosen[1]
    others = np.setdiff1d(np.arange(len(y)), fold)
    assert not np.array_equal(ours.probabilities[others], theirs.probabilities[others])
    assert not np.array_equal(ours.head.coef, theirs.head.coef)


def test_ridge_leaves_a_picture_out_with_all_its_views(rows_of: Any, few: Any) -> None:
    """Copies change nothing: were one left in, its picture would be predicted by itself."""
    X, y = few
    data = rows_of(X, y, ["train", "val"] * 45)
    plain = fit_screen("ridge", data, SPEC)
    copied = fit_screen("ridge", with_views(data, X, X), SPEC)
    for ours, theirs in zip(copied.path, plain.path, strict=True):
        assert ours.squared_error == pytest.approx(theirs.squared_error, rel=1e-9)
    assert copied.scores == plain.scores


def test_neighbours_are_plain_views(rows_of: Any, few: Any) -> None:
    X, y = few
    data = rows_of(X, y)
    plain, viewed = (fit_screen("knn", d, SPEC) for d in (data, with_views(data, noisy(X, 1))))
    np.testing.assert_array_equal(plain.probabilities, viewed.probabilities)


@pytest.fixture(scope="module")
def extract_views(tmp_path_factory: pytest.TempPathFactory, light: dict[str, Any]) -> Any:
    """Extract class folders into one cache, with options."""
    out = tmp_path_factory.mktemp("views") / "cache"

    def extract(data: Path, **options: Any) -> Cache:
        return Cache(Path(api.extract(data, out=out, **light, **options).cache))

    return extract


def test_what_is_read_of_a_cache(class_folders: Path, extract_views: Callable[..., Cache]) -> None:
    table = class_folders / "all.csv"
    pictures = sorted(class_folders.rglob("*.jpg"))
    splits = ("train", "val", "test")
    table.write_text(
        "path,label,split\n"
        + "\n".join(
            f"{p.relative_to(class_folders)},{p.parent.name},{splits[i % 3]}"
            for i, p in enumerate(pictures)
        )
    )
    cache = extract_views(table, views=3)
    assert labelled_rows(cache, choice=ViewChoice(1)).views is None
    for memory in (2 << 30, 1000):  # in memory, and mapped
        rows = labelled_rows(cache, memory=memory)
        assert (len(rows), len(rows.views.features)) == (36, 36 + 2 * 24)
        np.testing.assert_array_equal(rows.views.features[np.arange(36)], rows.features[:])
        assert set(rows.views.owners[36:]) == set(np.flatnonzero(rows.splits != 2))
        for number, view in enumerate(rows.views.views):
            reader = cache.stream(view=view)
            own = rows.views.owners[36 + 24 * number : 36 + 24 * (number + 1)]
            expected = reader.read(reader.positions(rows.hashes[own]))
            found = rows.views.features[slice(36 + 24 * number, 36 + 24 * (number + 1))]
            np.testing.assert_array_equal(found, expected)
    two = labelled_rows(cache, choice=ViewChoice(2)).views
    assert two.views == (STANDARD,)
    ours = api.probe(cache.folder, tolerance=0.1)
    assert [str(views) for views in ours.views] == ["2 of standard (seed 0)"]
    assert (ours.n_train, ours.n_test) == (24, 12)
    mapped = api.probe(cache.folder, tolerance=0.1, memory=1000)
    assert mapped.estimate.accuracy == pytest.approx(ours.estimate.accuracy, abs=0.1)
    plain = api.probe(cache.folder, tolerance=0.1, views=1)
    assert plain.views == ()
    assert len({ours.result, plain.result}) == 2
    with pytest.raises(ProbeError, match=r"4 views asked for; there are: standard \(seed 0\): 3"):
        labelled_rows(cache, choice=ViewChoice(4))
    with pytest.raises(ProbeError, match="no such views of this cut; there are: standard"):
        labelled_rows(cache, choice=ViewChoice(policy="trivial"))
    with pytest.raises(ProbeError, match="head 'knn' takes the plain view alone"):
        api.probe(cache.folder, head="knn", views=2)
    with pytest.raises(ProbeError, match="protocol 'clip' takes the plain view alone"):
        api.probe(cache.folder, protocol="clip", augment="standard")
    assert api.probe(cache.folder, head="knn").views == ()

    cache = extract_views(table, views=2, augment_seed=5)
    with pytest.raises(ProbeError, match=r"several policies or seeds.*standard \(seed 5\): 2"):
        labelled_rows(cache)
    chosen = labelled_rows(cache, choice=ViewChoice(policy="Standard", seed=5)).views
    assert chosen.views == (View("standard", 5, 1),)

    (class_folders / "cat" / "new.jpg").write_bytes(pictures[0].read_bytes() + b"x")
    with table.open("a") as file:
        file.write("\ncat/new.jpg,cat,train")
    cache = extract_views(table)
    with pytest.raises(CacheIncompleteError, match="1 pictures have no row of view 1 of"):
        labelled_rows(cache, choice=ViewChoice(seed=0))
    assert len(labelled_rows(cache, choice=ViewChoice(1))) == 37
