"""What is left out of a resize changes no bit of what is kept."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F  # noqa: N812 (its name everywhere)

from featcache.images import resizing
from featcache.images.resizing import resized_part, resized_size
from featcache.recipe import Interpolation, Preprocessing, ResizeMode

FILTERS: list[Interpolation] = ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
MODES: list[ResizeMode] = ["shorter", "longer", "exact"]


@pytest.fixture(autouse=True)
def nothing_came() -> None:
    resizing._came.clear()
    resizing._rows_first.cache_clear()


def recipe(size: tuple[int, int], *resize: int, mode: Any, by: Interpolation) -> Preprocessing:
    return Preprocessing(size, resize, (0.5,) * 3, (0.5,) * 3, mode, by)


def whole(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """By Pillow's resize and torchvision's crop, padded sides taken off again."""
    filter_ = Image.Resampling[preprocessing.interpolation.upper()]
    resized = image.resize(resized_size(image.size, preprocessing), filter_)
    height, width = map(min, preprocessing.size, (resized.height, resized.width))
    return np.asarray(F.center_crop(resized, [height, width]))  # type: ignore[arg-type]


def noise(width: int, height: int, seed: int = 1) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def assert_whole(image: Image.Image, preprocessing: Preprocessing) -> None:
    for _ in range(2):  # the second time something may be left out
        part = np.asarray(resized_part(image, preprocessing))
        np.testing.assert_array_equal(part, whole(image, preprocessing))


@pytest.mark.parametrize("by", FILTERS)
@pytest.mark.parametrize("mode", MODES)
def test_any_size(by: Interpolation, mode: ResizeMode) -> None:
    chance = random.Random(f"{by} {mode}")
    pick = partial(chance.randint, 20)
    for _ in range(12):
        sides = [pick(300) for _ in range(2 if mode == "exact" else 1)]
        preprocessing = recipe((pick(200), pick(200)), *sides, mode=mode, by=by)
        assert_whole(noise(pick(400), pick(400)), preprocessing)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (500, 333), (640, 480), (1600, 1200)])
@pytest.mark.parametrize("by", ["bilinear", "bicubic"])
def test_common_sizes_are_spared_the_rows_and_columns_of_no_use(
    size: tuple[int, int], by: Interpolation
) -> None:
    preprocessing = recipe((224, 224), 256, mode="shorter", by=by)
    assert_whole(noise(*size), preprocessing)
    assert resizing._rows_first(size, resized_size(size, preprocessing), by)


def test_a_pillow_that_goes_the_other_way_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Image.Image.resize

    def columns_first(image: Image.Image, size: tuple[int, int], by: int) -> Image.Image:
        return plain(plain(image, (image.width, size[1]), by), size, by)

    image, preprocessing = noise(120, 90), recipe((48, 48), 60, mode="shorter", by="bicubic")
    before = whole(image, preprocessing)
    monkeypatch.setattr(Image.Image, "resize", columns_first)
    assert (whole(image, preprocessing) != before).any(), "both ways give the same"
    assert_whole(image, preprocessing)


def test_what_is_remembered_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "_REMEMBERED", 3)
    for width in range(60, 70):
        assert_whole(noise(width, 50), recipe((32, 32), 40, mode="shorter", by="bilinear"))
    assert len(resizing._came) <= 3
