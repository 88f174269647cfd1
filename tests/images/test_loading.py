"""The whole way from a file to pixels equals the usual one, whatever kind of JPEG it is."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from torchvision import transforms as T  # noqa: N812 (its name everywhere)

from featcache.images.loading import pictures_in_order, pixels_of_views
from featcache.recipe import Preprocessing, Recipe, View

RECIPE = Recipe("", "", Preprocessing((96, 96), (112,), (0.5,) * 3, (0.5,) * 3, "shorter"))


def turned(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
SOME = ("chelsea 451 x 300", "flower, tall", "odd sides", "small")

KINDS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 4},
    "coarse": {"quality": 5},
    "fine": {"quality": 100},
    "a profile": {"icc_profile": SRGB.tobytes()},
    "RGB stored": {"keep_rgb": True},
    **{f"orientation {n}": {"exif": turned(n)} for n in range(2, 9)},
}


def usual(content: bytes) -> np.ndarray:
    """By Pillow and torchvision as people write it."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    transform = T.Compose([T.Resize(112), T.CenterCrop(96)])
    return np.asarray(transform(image))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_usual_way(photos: dict[str, Image.Image], kind: str) -> None:
    contents = []
    for photo in map(photos.__getitem__, SOME):
        for image in (photo, photo.convert("L")) if kind != "RGB stored" else (photo,):
            stream = io.BytesIO()
            image.save(stream, "JPEG", **KINDS[kind])
            contents += [stream.getvalue()] * 3  # then something is left out

    def load(content: bytes) -> np.ndarray:
        (pixels,) = pixels_of_views(content, RECIPE, (View(),), b"x")
        return pixels

    found = pictures_in_order(load, contents, threads=3, ahead=6)
    for content, pixels in zip(contents, found, strict=True):
        np.testing.assert_array_equal(pixels, usual(content))
