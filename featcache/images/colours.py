"""How Pillow's many modes become 8-bit RGB: transparent, inverted, and deep ones."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, JpegImagePlugin, TiffImagePlugin

from featcache.errors import PictureError

TIFF_WIDTH, TIFF_HEIGHT = 256, 257  # tags of TIFF 6.0, section 8
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0
_STRIP = 1 << 22
"""Pixels that are laid on white at once: a picture in one piece would be in memory four times."""

_GREY_STEP = {"L;2": 85, "L;4": 17}  # how Pillow spreads 2- and 4-bit grey over 8 bits


def raw_mode(image: Image.Image) -> str:
    """How the file stores its samples, in Pillow's words ("RGB;16B"); known before loading."""
    tile = getattr(image, "tile", None)
    arguments = tile[0][3] if tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def to_rgb(image: Image.Image, raw: str) -> Image.Image:
    """A loaded picture in mode "RGB".

    Args:
        image: as Pillow loads it, in any mode.
        raw: its `raw_mode`, from before it was loaded.

    Raises:
        PictureError: its samples have no defined white.
    """
    if image.mode == "F":
        raise PictureError("no defined white: 32-bit float samples; convert it to 8-bit")
    if image.mode.startswith("I"):
        return _from_deep_grey(image).convert("RGB")
    if image.mode == "CMYK" and isinstance(image, JpegImagePlugin.JpegImageFile):
        return _from_cmyk_jpeg(image).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image, raw)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Scale 16-bit (and TIFF's 12-bit) grey to 8 bits: v * 255 / white, rounded, not clipped."""
    samples = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white = 4095 if tags.get(_TIFF_BITS) == (12,) else 65535
    if samples.min() < 0 or samples.max() > white:
        raise PictureError(
            "no defined white: integer samples beyond 16 bits or below zero; convert it to 8-bit"
        )
    grey = ((samples.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow heeds it up to 8 bits only
        grey = 255 - grey
    if (clear := image.info.get("transparency")) is not None:
        grey[samples == clear] = 255
    return Image.fromarray(grey)


def _from_cmyk_jpeg(image: Image.Image) -> Image.Image:
    """Pillow takes every CMYK JPEG for Adobe's, which are inverted; undo that for the others."""
    return image if "adobe" in image.info else ImageChops.invert(image)


def _on_white(image: Image.Image, raw: str) -> Image.Image:
    clear = image.info.get("transparency")  # Pillow leaves it at the file's depth
    if raw in _GREY_STEP and isinstance(clear, int):
        image.info["transparency"] = clear * _GREY_STEP[raw]
    elif raw == "RGB;16B" and clear is not None:
        image.info["transparency"] = tuple(sample >> 8 for sample in clear)
    if image.mode == "La":  # which Pillow converts to LA only
        image = image.convert("LA")
    opaque = Image.new("RGB", image.size)
    rows = max(_STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        opaque.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return opaque
