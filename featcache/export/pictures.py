"""The pictures themselves, for a file that is to show them."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from featcache.errors import ExportError, PictureError
from featcache.images.decode import decoded
from featcache.images.sources import Source, content_hash
from featcache.naming import shown

Images = Literal["none", "thumbnails", "originals"]

THUMBNAIL = 256
"""Pixels of the longer side of a thumbnail, at most."""

_QUALITY = 85


def picture_file(
    source: Source, path: str, content: npt.NDArray[np.uint8], images: Images
) -> bytes:
    """A picture as the bytes of a file: as it is, or small.

    Args:
        source: where it is.
        path: its name there.
        content: (32,) its hash.
        images: "thumbnails" (JPEG) or "originals"; a picture that is an array becomes a PNG.

    Raises:
        SourceMissingError: the pictures are gone.
        ExportError: this one is gone, or another one since it was extracted.
    """
    try:
        found = source.read(path)
        if images == "originals" and isinstance(found, bytes):
            made = found
        else:
            with decoded(found) as image:
                made = _encoded(image, images)
    except PictureError as error:
        raise _unusable(path, str(error)) from error
    if content_hash(found) != content.tobytes():
        raise _unusable(path, "it changed since it was extracted")
    return made


def _unusable(path: str, reason: str) -> ExportError:
    return ExportError(f"{shown(path)}: {reason}; extract again, or export without --images")


def _encoded(image: Image.Image, images: Images) -> bytes:
    """A JPEG of at most `THUMBNAIL` pixels a side, or all pixels as a PNG."""
    stream = io.BytesIO()
    if images == "originals" or max(image.size) <= THUMBNAIL // 2:
        image.save(stream, "PNG")
    else:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        image.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
