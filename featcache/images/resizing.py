"""To which size a picture is resized, and the resize itself, of no more than the crop needs.

Pillow resizes along the rows, rounds to 8 bits, and then resizes along the columns; what becomes of
a pixel in either pass hangs on its own row or column alone. So the first pass can leave out rows,
and the second columns, that the crop drops, and not a bit of the others changes. Newer versions of
Pillow go the other way where a picture is shrunk more in height than in width; they don't promise
for which sizes. So sizes that come again are tried once, on noise, before anything is left out.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image

from featcache.recipe import Preprocessing

_SUPPORTS = {"bilinear": 1, "hamming": 1, "bicubic": 2, "lanczos": 3, "box": 0.5}
"""Half the width of each filter in pixels (Pillow's Resample.c); "nearest" is none."""

_SIDE, _PIXELS = 32, 1 << 24
"""Least side and most pixels of what is tried: noise of a few pixels may come out the same either
way, and noise of many takes memory that nobody counts."""

_REMEMBERED = 4096
"""Sizes that are known to have come before, at most."""

Size = tuple[int, int]
"""Width and height."""

Span = tuple[int, int]
"""First place, and the one after the last."""


def resized_size(size: Size, preprocessing: Preprocessing) -> Size:
    """Size of a picture after the resize and before the crop."""
    width, height = size
    if preprocessing.resize_mode == "exact":
        return preprocessing.resize[1], preprocessing.resize[0]
    (side,) = preprocessing.resize
    if preprocessing.resize_mode == "shorter":  # torchvision's Resize(side) rounds down
        longer = int(side * max(size) / min(size))
        return (longer, side) if width > height else (side, longer)
    ratio = max(height / side, width / side)  # timm's ResizeKeepRatio rounds
    return round(width / ratio), round(height / ratio)


def resized_part(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The part of the resized picture that a crop from its centre keeps.

    Args:
        image: mode "RGB".
        preprocessing: to which size, by which filter, and the crop.
    """
    size = resized_size(image.size, preprocessing)
    across, down = (
        _centre(full, kept) for full, kept in zip(size, reversed(preprocessing.size), strict=True)
    )
    box = (across[0], down[0], across[1], down[1])
    name = preprocessing.interpolation
    if box != (0, 0, *size) and name in _SUPPORTS and _comes_again(image.size, size, name):
        return _part(image, size, name, across, down)
    return image.resize(size, Image.Resampling[name.upper()]).crop(box)


def _centre(full: int, kept: int) -> Span:
    """What torchvision's CenterCrop keeps of a side; all where it is no longer than that."""
    first = max(round((full - kept) / 2), 0)
    return first, min(first + kept, full)


def _part(image: Image.Image, size: Size, name: str, across: Span, down: Span) -> Image.Image:
    """Columns `across` and rows `down` of the picture resized to `size`, rows before columns."""
    filter_ = Image.Resampling[name.upper()]
    top, bottom = _needed(down, image.height, size[1], _SUPPORTS[name])
    rows = image.crop((0, top, image.width, bottom)).resize((size[0], bottom - top), filter_)
    narrow = Image.new("RGB", (across[1] - across[0], image.height))
    narrow.paste(rows, (-across[0], top))
    return narrow.resize((narrow.width, size[1]), filter_).crop((0, down[0], narrow.width, down[1]))


def _needed(span: Span, before: int, after: int, support: float) -> Span:
    """Pixels of a side of `before` on which a span of its `after` resized pixels depends."""
    scale = before / after
    reach = support * max(scale, 1) + 1  # one more than Pillow's, for what either rounds
    first = math.floor((span[0] + 0.5) * scale - reach)
    last = math.ceil((span[1] - 0.5) * scale + reach)
    return max(first, 0), min(last, before)


_came: set[tuple[Size, Size, str]] = set()


def _comes_again(before: Size, after: Size, name: str) -> bool:
    """Whether a size came before, and Pillow resizes its rows first."""
    if min(*before, *after) < _SIDE or before[0] * before[1] > _PIXELS:
        return False
    if (before, after, name) in _came:
        return _rows_first(before, after, name)
    if len(_came) >= _REMEMBERED:
        _came.clear()
    _came.add((before, after, name))
    return False


@lru_cache(_REMEMBERED)
def _rows_first(before: Size, after: Size, name: str) -> bool:
    """Whether Pillow resizes along the rows first from one size to another, seen on noise."""
    noise = np.random.default_rng(0).integers(0, 256, (before[1], before[0], 3), np.uint8)
    image, filter_ = Image.fromarray(noise), Image.Resampling[name.upper()]
    apart = image.resize((after[0], before[1]), filter_).resize(after, filter_)
    return apart.tobytes() == image.resize(after, filter_).tobytes()
