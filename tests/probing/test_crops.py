"""Crops are predicted by the heads that the estimate comes from, and decide nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from featcache import api
from featcache.errors import CacheIncompleteError, ProbeError
from featcache.evaluation.splits import stratified_folds
from featcache.probing import ProbeSpec, fit_probe, fit_screen, score_crops
from featcache.probing.views import CroppedRows, crop_views, cropped_rows
from featcache.recipe import TTA, View
from featcache.store.cache import Cache

SPEC = ProbeSpec(grid=(0.01, 1.0), folds=3, inner_folds=2, tolerance=1e-6)


def crops_of(*parts: tuple[np.ndarray, np.ndarray]) -> CroppedRows:
    return CroppedRows(cast("Any", tuple((X.astype(np.float32), own) for X, own in parts)))


@pytest.fixture(params=["no split", "test", "val and test"])
def data(request: Any, rows_of: Any, few: Any, splits_of: Any) -> Any:
    X, y = few
    shares = {"no split": {}, "test": {"train": 2, "test": 1}}
    dealt = shares.get(request.param, {"train": 3, "val": 2, "test": 1})
    return rows_of(X, y, splits_of(len(y), **dealt) if dealt else None)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_copies_of_the_plain_view_gain_nothing(data: Any, how: Any) -> None:
    probed, every = fit_probe(data, SPEC), np.arange(len(data))
    found = score_crops(data, SPEC, probed, crops_of(*[(data.features, every)] * 2), how)
    judged = probed.judged
    expected = probed.probabilities[judged]
    np.testing.assert_allclose(found.probabilities[judged], expected, atol=2e-3)
    assert np.isnan(found.probabilities[~judged]).all()
    assert (found.crops, found.scores.n) == (2, probed.scores.n)
    assert found.scores.accuracy == probed.scores.accuracy


@pytest.mark.parametrize("how", ["mean", "max"])
def test_on_a_split_it_is_the_average_of_what_the_head_says(
    rows_of: Any, few: Any, how: str
) -> None:
    X, y = few
    data = rows_of(X, y, ["train", "test", "train"] * 30)
    probed = fit_probe(data, SPEC)
    crop = X + np.random.default_rng(1).normal(size=X.shape)
    own = np.setdiff1d(np.arange(90), [1, 2, 7])  # pictures 1 and 7 of test have no crop
    found = score_crops(data, SPEC, probed, crops_of((crop[own], own)), how)
    shown = np.where(np.isin(np.arange(90), own)[:, None], crop, X).astype(np.float32)
    views = np.stack([probed.head.probabilities(rows[1::3]) for rows in (data.features, shown)])
    expected = views.mean(0) if how == "mean" else views.max(0) / views.max(0).sum(1)[:, None]
    np.testing.assert_allclose(found.probabilities[1::3], expected, atol=1e-6)
    assert not np.allclose(found.probabilities[1::3], probed.probabilities[1::3], atol=1e-3)


def test_crops_of_a_fold_are_predicted_by_heads_that_never_saw_it(rows_of: Any, few: Any) -> None:
    X, y = few
    data = rows_of(X, y)
    fold = np.flatnonzero(stratified_folds(y, data.groups, SPEC.folds, SPEC.seed).held_out == 1)
    half = fold[::2]
    features = data.features.copy()
    features[half] += 1000
    crop, every = X + np.random.default_rng(1).normal(size=X.shape), np.arange(90)
    ours, theirs = (
        score_crops(rows, SPEC, fit_probe(rows, SPEC), crops_of((crop, every)), "mean")
        for rows in (data, replace(data, features=features))
    )
    rest = np.setdiff1d(fold, half)
    np.testing.assert_array_equal(ours.probabilities[rest], theirs.probabilities[rest])


def test_what_has_no_probabilities_is_refused(rows_of: Any, few: Any) -> None:
    data = rows_of(*few)
    probed = fit_screen("ridge", data, SPEC)
    with pytest.raises(ProbeError, match=r"only softmax and logistic heads.*--tta"):
        score_crops(data, SPEC, probed, crops_of(), "mean")


def test_a_probe_says_what_crops_gain_and_a_prediction_makes_the_same_from_pixels(
    class_folders: Path, tmp_path: Path, light: dict[str, Any]
) -> None:
    place = tmp_path / "cache"
    plain = api.extract(class_folders, out=place, **light)
    with pytest.raises(ProbeError, match=r"no crops of cut 'penultimate'.*--tta N"):
        api.probe(plain, tta="mean")
    with pytest.raises(ProbeError, match="tta 'median': unknown; give mean or max"):
        api.probe(plain, tta="median")
    before = api.probe(plain, tolerance=0.5, folds=2, save=tmp_path / "a.fc")
    api.extract(class_folders, out=place, tta=2, **light)
    found = api.probe(place, tolerance=0.5, folds=2, tta="mean")
    assert found.estimate == before.estimate
    assert found.views == ()
    assert (found.tta.how, found.tta.crops, found.tta.gain.n) == ("mean", 2, 36)
    gain = found.tta.accuracy - found.estimate.accuracy
    assert found.tta.gain.difference == pytest.approx(gain)
    assert found.to_json()["tta"]["gain"]["ci95"][0] <= gain
    with pytest.raises(ProbeError, match="leave it out, or --protocol and --head"):
        api.probe(place, head="ridge", tta="max")

    from featcache.classifier.joined import load_classifier

    cache = Cache(place)
    head = load_classifier(tmp_path / "a.fc").content.head
    views = []
    for view in (View(), View(TTA, 0, 1), View(TTA, 0, 2)):
        reader = cache.stream(view=view)
        views.append(head.probabilities(reader.read(reader.positions(cache.index.hashes))))
    paths = [str(class_folders / path) for path in cache.index.paths][:9]
    for how, together in [("mean", np.mean(views, 0)), ("max", np.max(views, 0))]:
        expected = (together / together.sum(1, keepdims=True))[:9]
        for said, p in zip(
            api.predict(tmp_path / "a.fc", paths, tta=2, tta_by=how), expected, strict=True
        ):
            assert said.probability == pytest.approx(p.max(), abs=1e-4)
    (class_folders / "cat" / "new.jpg").write_bytes(Path(paths[0]).read_bytes() + b"x")
    api.extract(class_folders, out=place, **light)
    now = Cache(place)
    with pytest.raises(CacheIncompleteError, match="1 pictures have no row of view 1 of 'tta'"):
        cropped_rows(now, now.stream().entry.stream, crop_views(now), np.arange(37))
