"""Photographs for `extract.py`: as many as asked for, no two alike, the same at every call.

Each is a crop of one of the photographs that ship in scikit-learn and scikit-image, turned over or
not, lighter or darker, of more or less contrast, with grain: without it, what was enlarged would
decode quicker than what a camera took.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

CLASSES = 8
QUALITY = 90
PORTRAITS = 0.25
"""Share of the pictures that stand upright."""

_IN_SCIKIT_IMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")
_GRAIN = 1024  # side in pixels of what is repeated over a picture


@dataclass(frozen=True)
class PictureSet:
    """A kind of picture.

    Attributes:
        name: of its folder.
        number: what its random numbers start from.
        long: pixels of the longer side; short: least and most of the shorter one.
        grain: least and most standard deviation, of 255.
    """

    name: str
    number: int
    long: int
    short: tuple[int, int]
    grain: tuple[float, float]


PETS = PictureSet("pets", 0, 500, (333, 400), (4, 12))
"""As Oxford-IIIT Pets': about 500 x 375."""

PHONES = PictureSet("phones", 1, 4000, (3000, 3000), (4, 8))
"""12 megapixels."""


def make_pictures(folder: Path, kind: PictureSet, count: int) -> Path:
    """The folder of the first `count` pictures of a set; those that are there are left alone."""
    missing = [n for n in range(count) if not _path(folder, kind, n).exists()]
    if missing:
        print(f"making {len(missing)} pictures in {folder / kind.name}", flush=True)
        make = partial(_make, folder, kind, _photographs(), _grain())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(make, missing))
    return folder / kind.name


def take(folder: Path, kind: PictureSet, count: int, into: Path) -> Path:
    """`into`, with the first `count` pictures of a set linked, or copied where they can't be."""
    for number in range(count):
        source = _path(folder, kind, number)
        target = into / source.relative_to(folder / kind.name)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
    return into


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _path(folder: Path, kind: PictureSet, number: int) -> Path:
    return folder / kind.name / f"class{number % CLASSES}" / f"{number:05d}.jpg"


def _photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    folder = files("skimage.data")
    paths = [Path(str(folder.joinpath(name))) for name in _IN_SCIKIT_IMAGE]
    arrays = [Image.fromarray(array) for array in load_sample_images().images]
    return [*arrays, *(Image.open(path).convert("RGB") for path in paths)]


def _grain() -> np.ndarray:
    """(side, side, 3) standard normal, to be repeated."""
    return np.random.default_rng(0).standard_normal((_GRAIN, _GRAIN, 3)).astype(np.float32)


def _make(
    folder: Path, kind: PictureSet, photos: list[Image.Image], grain: np.ndarray, number: int
) -> None:
    """Write one picture, whole or not at all."""
    rng = np.random.default_rng((kind.number, number))
    photo = photos[rng.integers(len(photos))]
    long, short = kind.long, int(rng.integers(kind.short[0], kind.short[1] + 1))
    size = (short, long) if rng.random() < PORTRAITS else (long, short)
    image = _crop(photo, size, rng)
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = change(image).enhance(rng.uniform(0.7, 1.2))
    image = _grainy(image, grain, rng.uniform(*kind.grain), rng.integers)
    path = _path(folder, kind, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.with_suffix(".begun")
    image.save(begun, "JPEG", quality=QUALITY)
    begun.replace(path)


def _crop(photo: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A part of a photograph, of the aspect of (width, height), enlarged to it."""
    scale = min(photo.width / size[0], photo.height / size[1]) * rng.uniform(0.6, 1.0)
    width, height = (int(scale * side) for side in size)
    left, top = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
    box = (int(left), int(top), int(left) + width, int(top) + height)
    return photo.resize(size, Image.Resampling.BICUBIC, box)


def _grainy(
    image: Image.Image, grain: np.ndarray, deviation: float, draw: Callable[[int], int]
) -> Image.Image:
    """The same with noise of a standard deviation, of which no two pictures have the same part."""
    down, right = draw(_GRAIN), draw(_GRAIN)
    rows = (np.arange(image.height) + down) % _GRAIN
    columns = (np.arange(image.width) + right) % _GRAIN
    tile = (deviation * grain).round().astype(np.int8)
    noisy = np.asarray(image).astype(np.int16) + tile[rows][:, columns]
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
