"""What is done to pixels before the network: the evaluation transforms published with models.

Pixel for pixel timm's `create_transform` and torchvision's `ImageClassification` preset before
normalisation, which happens in the engine. Pillow's filters are antialiased by nature.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageOps

from featcache.errors import PictureError
from featcache.images.decode import MAX_PIXELS
from featcache.images.memory import RESIZED
from featcache.images.resizing import resized_part, resized_size
from featcache.recipe import Preprocessing


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """Resize and crop a picture as a recipe says.

    Args:
        image: mode "RGB", from `decode`.
        preprocessing: which sides, which filter, which crop.

    Returns:
        (H, W, 3) uint8, where (H, W) is `preprocessing.size`.

    Raises:
        PictureError: so narrow that the resized picture would have no or too many pixels.
    """
    refuse_too_narrow(image, preprocessing)
    with RESIZED.held(math.prod(resized_size(image.size, preprocessing))):
        part = resized_part(image, preprocessing)
    if preprocessing.resize_mode == "longer":
        part = _pad(part, preprocessing)
    return np.array(_centre_crop(part, preprocessing.size))


def refuse_too_narrow(image: Image.Image, preprocessing: Preprocessing) -> None:
    """Refuse a picture of which no view has pixels.

    Raises:
        PictureError: resized, it would have no or too many pixels.
    """
    width, height = resized_size(image.size, preprocessing)
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise PictureError(
            f"too narrow: {image.width} x {image.height} pixels would be resized to "
            f"{width} x {height}"
        )


def mean_colour(preprocessing: Preprocessing) -> tuple[int, ...]:
    """What is put where a picture has no pixels: the mean of a recipe, from 0 to 255."""
    return tuple(round(255 * value) for value in preprocessing.mean)


def _pad(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """At least as large as the crop, in the middle of the mean colour (timm's CenterCropOrPad)."""
    missing_height = max(preprocessing.size[0] - image.height, 0)
    missing_width = max(preprocessing.size[1] - image.width, 0)
    left, top = missing_width // 2, missing_height // 2
    border = (left, top, missing_width - left, missing_height - top)
    return ImageOps.expand(image, border, fill=mean_colour(preprocessing))


def _centre_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """(height, width) of a picture from its centre, black around it where it is smaller."""
    top, left = (
        round((there - kept) / 2) if there >= kept else -((kept - there) // 2)
        for there, kept in zip((image.height, image.width), size, strict=True)
    )
    return image.crop((left, top, left + size[1], top + size[0]))
