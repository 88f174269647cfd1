"""The views of a picture: the plain one, the mirrored one, and what policies draw.

torch is loaded for policies alone: processes that only decode start in a third of a second.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from featcache.images.policies import FLIP
from featcache.images.transforms import to_pixels
from featcache.recipe import PLAIN, Preprocessing, View


def view_pixels(
    image: Image.Image, preprocessing: Preprocessing, view: View, content: bytes
) -> np.ndarray:
    """One view of a picture. Safe to call from several threads.

    Args:
        image: mode "RGB", from `decode`.
        preprocessing: gives the size, the filter, and the colour (mean) around a turned picture.
        view: which one.
        content: hash of the picture's content.

    Returns:
        (H, W, 3) uint8, where (H, W) is `preprocessing.size`.

    Raises:
        PictureError: so narrow that the resized picture would have no or too many pixels.
    """
    if view.policy == PLAIN:
        return to_pixels(image, preprocessing)
    if view.policy == FLIP:
        return np.ascontiguousarray(to_pixels(image, preprocessing)[:, ::-1])
    from featcache.images.augmentation import drawn_pixels

    return drawn_pixels(image, preprocessing, view, content)
