"""The pixels of an int8 network are those that its recipe names, or are refused by name."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import CacheDamagedError
from featcache.recipe import Recipe
from featcache.store.calibration import (
    CALIBRATION,
    calibration_name,
    read_calibration,
    write_calibration,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
REFUSED = r"calibration\.h5: not the pixels that this int8 cache was calibrated on; put the file"


def named(recipe: Recipe, pixels: np.ndarray) -> Recipe:
    return replace(recipe, precision="int8", calibration=calibration_name(pixels))


def test_a_round_trip_changes_nothing(tmp_path: Path, make) -> None:
    write_calibration(tmp_path, PIXELS)
    assert np.array_equal(read_calibration(tmp_path, named(make.recipe, PIXELS)), PIXELS)


@pytest.mark.faults
def test_a_flipped_bit_of_a_pixel_is_found(tmp_path: Path, make, tried) -> None:
    write_calibration(tmp_path, PIXELS)
    path, rng = tmp_path / CALIBRATION, random.Random(0)
    whole = path.read_bytes()
    begin = whole.index(PIXELS.tobytes())
    for place in range(begin, begin + PIXELS.size):
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(CacheDamagedError, match=REFUSED):
            read_calibration(tmp_path, named(make.recipe, PIXELS))
    tried("a flipped bit, calibration", PIXELS.size, sees="<file>: not the pixels that this ...")


@pytest.mark.faults
@pytest.mark.parametrize(
    "pixels",
    [
        PIXELS[0],
        PIXELS[:0],
        PIXELS[:, :7],
        PIXELS[..., :1],
        PIXELS.astype(np.float32),
        PIXELS.view(np.int8),
        np.uint8(3),
    ],
    ids=lambda pixels: f"{pixels.dtype} {pixels.shape}",
)
def test_what_is_no_picture_of_the_recipes_size_is_refused(
    tmp_path: Path, make, pixels: np.ndarray, tried
) -> None:
    """Though the recipe names it, as one of a stranger's may."""
    write_calibration(tmp_path, np.asarray(pixels))
    with pytest.raises(CacheDamagedError, match=REFUSED):
        read_calibration(tmp_path, named(make.recipe, np.asarray(pixels)))
    tried("a forged calibration", 1, sees="<file>: not the pixels that this int8 cache ...")
