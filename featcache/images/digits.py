"""The handwritten digits that ship in scikit-learn: 1,797 arrays of 8 x 8."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from featcache.errors import PictureError, SourceError
from featcache.images.labels import label_warnings
from featcache.images.listing import Listing, Sample


class DigitsSource:
    """scikit-learn's digits, enlarged later by the backbone's own resize.

    Args:
        location: always "digits"; there is one such data set.
    """

    def __init__(self, location: str = "digits") -> None:
        if location != "digits":
            raise SourceError(f"{location!r}: the digits of scikit-learn are called 'digits'")
        self.name = location
        self.locator = {"kind": "digits", "location": location}

    @cached_property
    def _data(self) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (1797, 8, 8) uint8 with ink white, and labels (1797,)."""
        from sklearn.datasets import load_digits

        bunch: Any = load_digits()
        sixteenths = np.asarray(bunch["images"])
        return np.rint(sixteenths * 255 / 16).astype(np.uint8), np.asarray(bunch["target"])

    def scan(self) -> Listing:
        """List the digits in scikit-learn's order; see `Source.scan`."""
        labels = self._data[1]
        samples = [
            Sample(f"{number:04d}", (str(label),), None, None, None)
            for number, label in enumerate(labels)
        ]
        return Listing(samples, {}, [], label_warnings(samples))

    def read(self, path: str) -> bytes | np.ndarray:
        """One digit, (8, 8) uint8; see `Source.read`."""
        pictures = self._data[0]
        if not path.isdecimal() or len(path) > 4 or int(path) >= len(pictures):
            raise PictureError(f"missing: the digits are 0000 to {len(pictures) - 1:04d}")
        return pictures[int(path)]
