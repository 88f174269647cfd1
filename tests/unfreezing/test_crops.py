"""Crops at every depth by law: averages of what each depth says of its views, and nothing moves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F  # noqa: N812 (its name everywhere)

from featcache import api
from featcache.api.sweep_records import depth_scores, scratch_score
from featcache.errors import CacheMissingError
from featcache.evaluation.metrics import correct
from featcache.images.policies import tta_views
from featcache.images.views import view_pixels
from featcache.probing import ProbeSpec, crop_views, labelled_rows
from featcache.recipe import View
from featcache.store.cache import Cache
from featcache.store.steps import Steps
from featcache.training.model import model_of
from featcache.training.spec import TrainingSpec
from featcache.unfreezing import SweepSpec, refit, sweep, sweep_sizes

CUTS = ("layer3.0", "layer2.0")
CROPS = tta_views(2, seed=4)
WHOLE = 7
"""Depth of the whole network."""


@pytest.fixture(scope="module")
def cropped(case: Any, light: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The photos with two crops of the feature and of two cuts, and one view that trains."""
    out = tmp_path_factory.mktemp("cropped") / "cache"
    shutil.copytree(case.cache.folder, out)
    options = {"cuts": CUTS, "pooling": "none", "store_dtype": "float32"}
    api.extract(case.pictures, out=out, tta=2, views=2, augment_seed=4, **options, **light)
    cache = Cache(out)
    assert crop_views(cache) == CROPS
    return replace(case, cache=cache, data=labelled_rows(cache))


def spec_of(*depths: int, **fields: Any) -> SweepSpec:
    training = TrainingSpec(epochs=2, rate=3e-3, batch_size=8)
    probe = ProbeSpec(folds=2, tolerance=0.1, grid=(1.0, 100.0))
    return SweepSpec((0, *depths), probe=probe, training=training, **fields)


def swept(case: Any, spec: SweepSpec, tmp_path: Any) -> Any:
    return sweep(case.cache, case.data, case.backbone, spec, Steps(tmp_path, "steps"))


def cached(case: Any, cut: str, view: View, pictures: np.ndarray) -> torch.Tensor:
    """The activations as the cache has them."""
    plain = case.cache.stream(cut, pooling="none")
    reader = plain if view == View() else case.cache.views_of(plain.entry.stream)[view]
    hashes = case.cache.index.hashes[case.data.rows[pictures]]
    return torch.from_numpy(reader.read(reader.positions(hashes))).float()


def pixels(case: Any, view: View, pictures: np.ndarray) -> torch.Tensor:
    """The pictures by torchvision's own operations."""
    preprocessing, rows = case.backbone.preprocessing, case.data.rows[pictures]
    made = []
    for row in rows:
        photo = Image.open(case.pictures / case.cache.index.paths[int(row)]).convert("RGB")
        seen = view_pixels(photo, preprocessing, view, case.cache.index.hashes[row].tobytes())
        made.append(F.normalize(F.to_tensor(seen), preprocessing.mean, preprocessing.std))
    return torch.stack(made)


@torch.no_grad()
def said(case: Any, found: Any, view: View, pictures: np.ndarray) -> np.ndarray:
    """What one depth says of one view: tail, product and softmax written out."""
    rung, fit = found.rung, found.fits[0][0]
    given = (
        pixels(case, view, pictures) if rung.from_pixels else cached(case, rung.cut, view, pictures)
    )
    if rung.stem is not None:
        given = rung.stem(given)
    if rung.depth:
        given = model_of(rung.tail, fit.head, tuned=fit.tensors).eval().tail(given)
    logits = given.double() @ torch.from_numpy(fit.head.coef).double().T
    return (logits + torch.from_numpy(fit.head.bias)).softmax(dim=1).numpy()


@pytest.mark.parametrize(
    ("how", "depths", "fields"),
    [
        ("mean", (1, 2), {}),
        ("max", (1, 2), {}),
        ("mean", (1,), {"live": True}),
        ("max", (1, WHOLE), {}),
    ],
)
def test_the_gain_of_a_depth_is_that_of_averages_made_by_hand(
    cropped: Any, tmp_path: Any, how: Any, depths: tuple[int, ...], fields: dict[str, Any]
) -> None:
    assert len(cropped.units) == WHOLE
    spec = spec_of(*depths, crops=CROPS, averaging=how, **fields)
    found = swept(cropped, spec, tmp_path)
    targets = cropped.data.targets[found.judged]
    scores = depth_scores(found, cropped.data, spec)
    for depth, score in zip(found.depths, scores, strict=True):
        views = np.stack([said(cropped, depth, v, found.judged) for v in (View(), *CROPS)])
        together = views.mean(0) if how == "mean" else views.max(0)
        together /= together.sum(axis=1, keepdims=True)
        (fit,) = depth.fits[0]
        np.testing.assert_allclose(fit.probabilities, views[0], atol=1e-5)
        np.testing.assert_allclose(fit.with_crops, together, atol=1e-5)
        assert np.abs(together - views[0]).max() > 1e-2, "the case shows nothing"
        plain, right = (correct(p, targets).mean() for p in (views[0], together))
        assert (score.tta.how, score.tta.crops, score.tta.gain.n) == (how, 2, len(targets))
        assert score.tta.accuracy == pytest.approx(right)
        assert score.tta.gain.difference == pytest.approx(right - plain)
        assert score.tta.gain.ci95[0] <= right - plain <= score.tta.gain.ci95[1]
        loss = -np.log(together[np.arange(len(targets)), targets]).mean()
        assert score.tta.log_loss == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize(
    ("depths", "fields"), [((1, 2), {"seeds": 2}), ((1, WHOLE), {"live": True})]
)
def test_crops_move_no_other_number(
    cropped: Any, tmp_path: Any, depths: tuple[int, ...], fields: dict[str, Any]
) -> None:
    spec = spec_of(*depths, folds=2, **fields)
    plain = swept(cropped, spec, tmp_path / "a")
    crops = swept(cropped, replace(spec, crops=CROPS), tmp_path / "b")
    assert crops.recommendation.reason == plain.recommendation.reason
    for ours, theirs in zip(crops.depths, plain.depths, strict=True):
        assert theirs.with_crops is None
        assert (ours.scores, ours.interval, ours.bytes) == (
            theirs.scores,
            theirs.interval,
            theirs.bytes,
        )
        for a, b in zip(sum(ours.fits, ()), sum(theirs.fits, ()), strict=True):
            np.testing.assert_array_equal(a.probabilities, b.probabilities)
            np.testing.assert_array_equal(a.head.coef, b.head.coef)
            assert (a.rate, a.epochs, a.train_accuracy) == (b.rate, b.epochs, b.train_accuracy)
            assert a.tensors.keys() == b.tensors.keys()
            assert all(torch.equal(tensor, b.tensors[name]) for name, tensor in a.tensors.items())


def test_seeds_are_compared_seed_by_seed_and_depth_0_once(cropped: Any, tmp_path: Any) -> None:
    spec = spec_of(1, seeds=2, crops=CROPS)
    found = swept(cropped, spec, tmp_path)
    solved, tuned = depth_scores(found, cropped.data, spec)
    targets = cropped.data.targets[found.judged]
    assert found.depths[0].with_crops.right.shape == (1, len(targets))
    assert "seeds" not in solved.tta.gain.method
    assert "training seeds included" in tuned.tta.gain.method
    rights = [correct(fit.with_crops, targets).mean() for fit in found.depths[1].fits[0]]
    assert tuned.tta.accuracy == pytest.approx(np.mean(rights))
    assert tuned.tta.gain.difference == pytest.approx(tuned.tta.accuracy - tuned.accuracy)


def test_random_weights_fewer_pictures_and_what_is_kept(cropped: Any, tmp_path: Any) -> None:
    spec = spec_of(1, crops=CROPS, scratch=True)
    found = swept(cropped, spec, tmp_path)
    assert scratch_score(found, cropped.data, spec).tta.crops == 2
    resumed = swept(cropped, spec, tmp_path)
    for ours, theirs in zip(found.depths, resumed.depths, strict=True):
        assert ours.seconds == theirs.seconds, "a step was not kept"
        np.testing.assert_array_equal(ours.fits[0][0].with_crops, theirs.fits[0][0].with_crops)
    shallow, steps = replace(spec, scratch=False), Steps(tmp_path, "sizes")
    (few,) = sweep_sizes(cropped.cache, cropped.data, cropped.backbone, shallow, steps, (12,))
    assert all(depth.with_crops is not None for depth in few.depths)
    fit = refit(cropped.cache, cropped.data, cropped.backbone, spec, 1)
    assert fit.with_crops is None


def test_views_that_are_not_there_are_named(cropped: Any, tmp_path: Any) -> None:
    says = r"no activations of view 1 .* at 'layer1\.0'; run `featcache extract` with the same --vi"
    with pytest.raises(CacheMissingError, match=says):
        swept(cropped, spec_of(3), tmp_path)


def test_crops_that_are_not_there_are_named(cropped: Any, tmp_path: Any) -> None:
    plain = replace(cropped, data=replace(cropped.data, views=None))
    with pytest.raises(
        CacheMissingError, match=r"extract` with --cut layer1\.0 --pool none and .*--tta"
    ):
        swept(plain, spec_of(3, crops=CROPS), tmp_path)
    with pytest.raises(CacheMissingError, match=r"view 3 of 'tta', seed 4 at 'penultimate'"):
        swept(plain, spec_of(crops=tta_views(3, seed=4)), tmp_path)
