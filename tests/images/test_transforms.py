"""The evaluation transforms equal timm's and torchvision's, pixel for pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from featcache.errors import PictureError
from featcache.images.transforms import to_pixels
from featcache.recipe import Interpolation, Preprocessing, ResizeMode

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP_MODES: dict[ResizeMode, str] = {"shorter": "center", "exact": "squash", "longer": "border"}


def recipe(
    size: int, side: int, mode: ResizeMode, interpolation: Interpolation = "bilinear"
) -> Preprocessing:
    resize = (side, side) if mode == "exact" else (side,)
    return Preprocessing((size, size), resize, MEAN, STD, mode, interpolation)


def by_timm(
    image: Image.Image, size: int, crop_pct: float, mode: ResizeMode, interpolation: str
) -> np.ndarray:
    transform: Any = create_transform(
        (3, size, size),
        interpolation=interpolation,
        crop_pct=crop_pct,
        crop_mode=CROP_MODES[mode],
        mean=MEAN,
        normalize=False,
    )
    return torch.as_tensor(transform(image)).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("mode", CROP_MODES)
@pytest.mark.parametrize(
    ("size", "crop_pct", "interpolation"),
    [(224, 0.875, "bicubic"), (224, 0.9, "bilinear"), (97, 1.0, "lanczos"), (64, 0.95, "nearest")],
)
def test_equal_to_timm(
    photos: dict[str, Image.Image],
    mode: ResizeMode,
    size: int,
    crop_pct: float,
    interpolation: Interpolation,
) -> None:
    preprocessing = recipe(size, math.floor(size / crop_pct), mode, interpolation)
    for name, photo in photos.items():
        pixels = to_pixels(photo, preprocessing)
        expected = by_timm(photo, size, crop_pct, mode, interpolation)
        assert np.array_equal(pixels, expected), name


@pytest.mark.parametrize(("size", "side"), [(224, 256), (224, 232), (299, 342), (63, 64), (80, 50)])
def test_equal_to_torchvision(photos: dict[str, Image.Image], size: int, side: int) -> None:
    preset = ImageClassification(
        crop_size=size,
        resize_size=side,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation=InterpolationMode.BILINEAR,
    )
    for name, photo in photos.items():
        expected = (preset(photo) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert np.array_equal(to_pixels(photo, recipe(size, side, "shorter")), expected), name


def test_sides_that_differ(photos: dict[str, Image.Image]) -> None:
    photo = photos["china 640 x 427"]
    preprocessing = Preprocessing((60, 100), (70, 110), MEAN, STD, "exact", "bicubic")
    resized = photo.resize((110, 70), Image.Resampling.BICUBIC)
    expected = np.asarray(resized.crop((5, 5, 105, 65)))
    assert np.array_equal(to_pixels(photo, preprocessing), expected)


def test_the_border_has_the_mean_colour(photos: dict[str, Image.Image]) -> None:
    pixels = to_pixels(photos["a strip"], recipe(64, 64, "longer"))
    assert (pixels[0] == [round(255 * value) for value in MEAN]).all()


def test_what_comes_out(photos: dict[str, Image.Image]) -> None:
    pixels = to_pixels(photos["small"], recipe(32, 36, "shorter"))
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize(("mode", "length"), [("shorter", 10_000), ("longer", 1_000)])
def test_pictures_too_narrow_to_resize_are_refused(mode: ResizeMode, length: int) -> None:
    with pytest.raises(PictureError, match=f"too narrow: 1 x {length} pixels"):
        to_pixels(Image.new("RGB", (1, length)), recipe(224, 256, mode))
