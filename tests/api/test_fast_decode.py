"""What is made of a cache of drafts decodes drafts everywhere, and never meets whole pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featcache import api
from featcache.classifier.joined import load_classifier
from featcache.errors import CacheMismatchError
from featcache.images.decode import decode
from featcache.images.loading import pixels_of_views
from featcache.recipe import Recipe, View
from featcache.store.cache import Cache
from featcache.unfreezing.pixels import pixels_of

SIDE = 400  # of which a network of 32 keeps so little that a draft of a quarter is decoded


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of noise, red and blue: of noise a draft and the whole differ clearly."""
    root, rng = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    for number in range(16):
        name, channel = ("red", 0) if number % 2 else ("blue", 2)
        values = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        values[..., channel] //= 2
        (root / name).mkdir(exist_ok=True)
        Image.fromarray(values).save(root / name / f"{number}.jpg", quality=95)
    return root


@pytest.fixture
def drafts(large: Path, extract_light: Callable[..., Any]) -> Path:
    return Path(extract_light(large, fast_decode=True).cache)


def first(large: Path) -> bytes:
    return (large / "red" / "1.jpg").read_bytes()


def test_it_is_part_of_the_recipe(
    large: Path, drafts: Path, extract_light: Callable[..., Any], tmp_path: Path
) -> None:
    whole = Path(extract_light(large, out=tmp_path / "whole").cache)
    assert Cache(drafts).manifest.recipe.decoder == "pillow-draft"
    for cache, other in ((drafts, False), (whole, True)):
        with pytest.raises(CacheMismatchError, match=r"decoder: pillow(-draft)? here, pillow"):
            extract_light(large, out=cache, fast_decode=other)
    a, b = (Cache(c).stream().read(np.arange(16)) for c in (drafts, whole))
    assert not np.allclose(a, b, rtol=1e-3), "the pictures are such that it makes no difference"
    assert api.info(drafts).staleness.recipe == ()


def test_rows_are_those_of_drafts(large: Path, drafts: Path) -> None:
    recipe = Cache(drafts).manifest.recipe
    draft = decode(first(large), draft_for=recipe.preprocessing)
    assert draft.size == (SIDE // 4, SIDE // 4)


def test_a_classifier_of_it_predicts_from_drafts(
    large: Path, drafts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.fc"
    api.probe(drafts, save=path, folds=2)  # which checks from pixels that the logits are the same
    classifier = load_classifier(path)
    assert classifier.recipe == Cache(drafts).manifest.recipe
    (answer,) = classifier.answers([str(large / "red" / "1.jpg")])
    for decoder, same in (("pillow-draft", True), ("pillow", False)):
        pixels = pixels_of_views(first(large), _by(classifier.recipe, decoder), (View(),), b"")
        with classifier.engine() as engine:
            (expected,) = classifier.logits(engine, pixels)
        assert np.allclose(answer.logits, expected, rtol=1e-4, atol=1e-5) is same


def test_pixels_that_train_are_drafts(large: Path, drafts: Path) -> None:
    cache = Cache(drafts)
    data: Any = SimpleNamespace(rows=np.arange(3))
    preprocessing = cache.manifest.recipe.preprocessing
    rows = pixels_of(cache, data, preprocessing, (View(),))
    found = torch.from_numpy(rows[np.array([1])])
    content = (large / cache.index.paths[1]).read_bytes()
    for decoder, same in (("pillow-draft", True), ("pillow", False)):
        (pixels,) = pixels_of_views(content, _by(cache.manifest.recipe, decoder), (View(),), b"")
        values = torch.from_numpy(pixels).permute(2, 0, 1) / 255
        mean, std = (
            torch.tensor(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std)
        )
        assert torch.allclose(found[0], (values - mean) / std, atol=1e-5) is same


@pytest.mark.parametrize("live", [False, True])
def test_tails_train_on_drafts(drafts: Path, live: bool, tmp_path: Path) -> None:
    training = api.TrainingOptions(epochs=1, rates=(3e-3,), live=live)
    found = api.probe(drafts, unfreeze="0,1", training=training, save=tmp_path / "a.fc")
    assert [depth.depth for depth in found.unfreeze] == [0, 1]


def _by(recipe: Recipe, decoder: Any) -> Recipe:
    return replace(recipe, decoder=decoder)
