"""The pictures of the walk: crops of photographs that ship in scikit-learn and scikit-image.

The same at every call, but for the bytes that a JPEG encoder makes of them.
"""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

PHOTOS = {
    "astronaut": "skimage.data/astronaut.png",
    "brick": "skimage.data/brick.png",
    "cat": "skimage.data/chelsea.png",
    "coffee": "skimage.data/coffee.png",
    "flower": "sklearn.datasets.images/flower.jpg",
    "grass": "skimage.data/grass.png",
    "gravel": "skimage.data/gravel.png",
    "temple": "sklearn.datasets.images/china.jpg",
}
"""What every class is cut from."""

CROPS = 40
"""Pictures of a class."""

SIDE = 128
"""Of every picture, in pixels."""

FACE = (200, 90, 290, 180)
"""The part of the cat's that photo.jpg shows: no larger than what is trained on."""

WRONG = {"brick/07.jpg": "gravel", "cat/12.jpg": "coffee", "flower/30.jpg": "temple"}
"""Pictures that are put into the folder of another class."""


def make_pictures(folder: Path) -> None:
    """Write pets/ as docs/walk.md tells, and photo.jpg beside it."""
    rng = np.random.default_rng(7)
    pets = folder / "pets"
    for label in PHOTOS:
        (pets / label).mkdir(parents=True)
        photo = _photo(label)
        for number in range(CROPS):
            _crop(photo, rng).save(pets / label / f"{number:02d}.jpg", quality=90)
    _photo("cat").crop(FACE).save(folder / "photo.jpg", quality=90)
    _spoil(pets)


def _photo(label: str) -> Image.Image:
    package, _, name = PHOTOS[label].partition("/")
    with Image.open(str(files(package).joinpath(name))) as opened:
        return opened.convert("RGB")


def _crop(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A small square of a photo, turned, grey as often as not, and then blurred or noisy."""
    side = int(rng.integers(36, 96))
    left, top = (int(rng.integers(0, length - side)) for length in photo.size)
    picture = photo.crop((left, top, left + side, top + side))
    picture = picture.rotate(90 * int(rng.integers(4))).resize((SIDE, SIDE))
    if rng.random() < 0.5:
        picture = ImageOps.grayscale(picture).convert("RGB")
    if rng.random() < 0.5:
        return picture.filter(ImageFilter.GaussianBlur(rng.uniform(1, 4)))
    noise = rng.normal(0, rng.uniform(5, 40), (SIDE, SIDE, 3))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


def _spoil(pets: Path) -> None:
    """Wrong labels, a duplicate in another class, a broken file."""
    for path, label in WRONG.items():
        (pets / path).rename(pets / label / f"{CROPS + 1}.jpg")
    shutil.copyfile(pets / "grass" / "05.jpg", pets / "brick" / f"{CROPS + 2}.jpg")
    whole = (pets / "cat" / "20.jpg").read_bytes()
    (pets / "cat" / "20.jpg").write_bytes(whole[: len(whole) // 3])
