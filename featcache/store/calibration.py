"""calibration.h5: the pixels on which an int8 network's scales were measured, for later runs.

Written before the first commit and never changed. The recipe names the pixels by their hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheDamagedError
from featcache.recipe import Recipe
from featcache.store import hdf5
from featcache.store.files import write_durably

CALIBRATION = "calibration.h5"

_PIXELS = "pixels"


def calibration_name(pixels: npt.NDArray[np.uint8]) -> str:
    """Hex sha256 that names (N, H, W, 3) pixels in a recipe."""
    digest = hashlib.sha256(f"calibration {pixels.shape}\n".encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def write_calibration(
    folder: Path, pixels: npt.NDArray[np.uint8], check: Callable[[Path], None] | None = None
) -> None:
    """Put pixels into a cache; `check` is called right before, see `write_durably`."""
    content = hdf5.encode({_PIXELS: pixels}, {"kind": "featcache calibration"})
    write_durably(folder / CALIBRATION, content, check)


def read_calibration(folder: Path, recipe: Recipe) -> npt.NDArray[np.uint8]:
    """The (N, H, W, 3) pixels that a cache's recipe names.

    Raises:
        CacheDamagedError: they are gone, others, or no pictures of the recipe's size.
    """
    path = folder / CALIBRATION
    pixels = hdf5.map_arrays(path).get(_PIXELS)
    if (
        pixels is None
        or not _are_pictures(pixels, recipe)
        or calibration_name(pixels) != recipe.calibration
    ):
        raise CacheDamagedError(
            f"{path}: not the pixels that this int8 cache was calibrated on; put the file back, or "
            "extract into another --out"
        )
    return np.array(pixels)


def _are_pictures(pixels: npt.NDArray[Any], recipe: Recipe) -> bool:
    """Whether a network could be calibrated on them."""
    one = (*recipe.preprocessing.size, 3)
    return pixels.dtype == np.uint8 and pixels.shape[1:] == one and pixels.size > 0
