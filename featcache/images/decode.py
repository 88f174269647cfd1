"""How content becomes pixels as a person sees them: RGB, 8 bit, upright, on white.

Pillow's plugins are called as `Image.open` calls them, but without it: its limit of pixels is the
process's, and it knows more formats than are read here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import numpy as np
from PIL import (  # noqa: F401 (importing a plugin registers its format)
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from featcache.errors import PictureError
from featcache.images.colours import TIFF_HEIGHT, TIFF_WIDTH, raw_mode, to_rgb
from featcache.images.memory import DECODED
from featcache.images.quiet import quiet_pillow
from featcache.images.resizing import resized_size
from featcache.recipe import Preprocessing

MAX_PIXELS = 178_956_970
"""Pictures with more are refused as decompression bombs (Pillow's own limit)."""

MAX_SCANS = 200
"""JPEGs with more passes over their pixels are refused: encoders make a dozen, and each takes as
long as a picture does, in a few bytes of the file."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB")
"""The formats that are read; no other parser is reachable. DIB has the weakest mark, so is last."""

_MARK = 16  # bytes at the start of a file, by which Pillow's plugins know their format
_ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4 A
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)
"""Orientations whose rows are the columns that a person sees."""

DRAFT_MARGIN = 2
"""A draft is at least so many times as wide and high as what it is resized to. So the published
resize still does most of the smoothing, and a random crop of a third need not be enlarged."""


def decode(content: bytes | np.ndarray, *, draft_for: Preprocessing | None = None) -> Image.Image:
    """Pixels of a picture as a person sees it; see `decoded`, which bounds the memory too."""
    with decoded(content, draft_for=draft_for) as image:
        return image


@contextmanager
def decoded(
    content: bytes | np.ndarray, *, draft_for: Preprocessing | None = None
) -> Generator[Image.Image, None, None]:
    """Pixels of a picture as a person sees it. Safe to call from several threads.

    Within the block its pixels count as those in memory, of which there is a limit; see `DECODED`.
    So no thread may enter a second one in the first.

    Args:
        content: bytes of a JPEG, PNG, WebP, GIF, TIFF or BMP file, or an array (H, W) or (H, W, 3)
            uint8.
        draft_for: decode a JPEG at 1/2, 1/4 or 1/8 of its size where this will shrink it at least
            `DRAFT_MARGIN` times as much.

    Yields:
        Mode "RGB": orientation applied, alpha laid on white, the first frame of an animation.

    Raises:
        PictureError: it can't be decoded; the text is the reason.
        MemoryError: there is too little memory just now, which says nothing of the picture.
    """
    if isinstance(content, np.ndarray):
        yield _from_array(content)
        return
    with ExitStack() as held:
        yield _decode(content, draft_for, held)


def pixels_of(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of a picture that Pillow holds, just as `decoded` gives those of its file.

    Raises:
        PictureError: it can't be decoded; the text is the reason.
    """
    raw, info = raw_mode(image), dict(image.info)
    try:
        with quiet_pillow():
            image.load()
            upright = _upright(image, raw)
    except (PictureError, MemoryError):
        raise
    except Exception as error:  # a broken file can raise anything in a parser
        raise PictureError(f"damaged: {error or type(error).__name__}") from error
    finally:
        image.info = info
    return np.array(upright)


def _from_array(array: np.ndarray) -> Image.Image:
    grey_or_rgb = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not grey_or_rgb or not array.size:
        raise PictureError(
            f"not a picture: array {array.shape} {array.dtype}; (H, W) or (H, W, 3) uint8 is read"
        )
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def _decode(content: bytes, draft_for: Preprocessing | None, held: ExitStack) -> Image.Image:
    try:
        return _despite_warnings(content, draft_for, held)
    except (PictureError, MemoryError):
        raise
    except Exception as error:  # a broken file can raise anything in a parser
        raise PictureError(_reason(error, content)) from error


def _despite_warnings(
    content: bytes, draft_for: Preprocessing | None, held: ExitStack
) -> Image.Image:
    """Whatever filters of warnings another thread sets meanwhile; they must decide no value."""
    try:
        with quiet_pillow():
            return _pixels(content, draft_for, held)
    except Warning:
        held.close()
        with quiet_pillow():
            return _pixels(content, draft_for, held)


def _pixels(content: bytes, draft_for: Preprocessing | None, held: ExitStack) -> Image.Image:
    image = _open(content)
    raw, whole = raw_mode(image), image.width * image.height
    if draft_for is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
        _shrink(image, draft_for)
    held.enter_context(DECODED.held(_counted(image, whole)))
    image.load()
    return _upright(image, raw)


def _upright(image: Image.Image, raw: str) -> Image.Image:
    """A loaded picture in mode "RGB", as a person sees it."""
    orientation = _orientation(image)  # after load: Pillow turns TIFFs itself, and drops the tag
    image = to_rgb(image, raw)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _counted(image: Image.Image, whole: int) -> int:
    """Pixels that decoding takes the memory of; `whole` are those of the file."""
    if "progression" in image.info:  # all parts are in memory before the first pixel is
        return whole
    canvases = 2 if isinstance(image, WebPImagePlugin.WebPImageFile) else 1
    return canvases * image.width * image.height


def _shrink(image: JpegImagePlugin.JpegImageFile, preprocessing: Preprocessing) -> None:
    """Have a JPEG decoded at the least size that has enough pixels for the resize."""
    lying = _orientation(image) in _LYING
    upright = (image.height, image.width) if lying else image.size
    width, height = (DRAFT_MARGIN * side for side in resized_size(upright, preprocessing))
    if min(width, height) > 0:
        image.draft(None, (height, width) if lying else (width, height))


def _open(content: bytes) -> Image.Image:
    """Parse the header; nothing is decoded yet."""
    mark = content[:_MARK]
    if len(mark) < _MARK:
        raise PictureError("truncated: a few bytes only" if mark else "truncated: an empty file")
    for name in FORMATS:
        parse, accepts = Image.OPEN[name]
        if accepts is not None and accepts(mark) is True:
            image = parse(io.BytesIO(content), "")
            _check_size(image)
            if isinstance(image, JpegImagePlugin.JpegImageFile):
                _check_scans(content)
            return image
    raise PictureError(f"not a picture: none of {', '.join(FORMATS[:-1])}")


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"too large: {width} x {height} pixels, the limit is {MAX_PIXELS:,}")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow allocates as this does, but would check the size again, and warn.
        stored = image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]
        image.im = Image.new(image.mode, stored, None).im


def _check_scans(content: bytes) -> None:
    """Count the marks that begin a scan (T.81, B.1.1.3), those of thumbnails too."""
    values = np.frombuffer(content, np.uint8)
    scans = int((values[np.flatnonzero(values[1:] == 0xDA)] == 0xFF).sum())
    if scans > MAX_SCANS:
        raise PictureError(f"too large: {scans:,} passes over its pixels, the limit is {MAX_SCANS}")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Warning:
        raise
    except Exception:  # noqa: BLE001 (broken EXIF can raise anything; the pixels are still good)
        return 1


def _reason(error: Exception, content: bytes) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {text}"
    ran_out = EOFError | IndexError | struct.error  # Pillow hides them behind a SyntaxError
    if (
        isinstance(error, ran_out)
        or isinstance(error.__cause__, ran_out)
        or "truncated" in text.lower()
        or _is_shorter_than_it_says(content)
    ):
        return "truncated: the file ends before the picture does"
    return f"damaged: {text}"


def _is_shorter_than_it_says(content: bytes) -> bool:
    """Whether the size in a WebP's header, or where a TIFF's directory starts, is past the end."""
    if content.startswith(b"RIFF"):
        return int.from_bytes(content[4:8], "little") + 8 > len(content)
    if content.startswith((b"II*\0", b"MM\0*")):
        order = "little" if content.startswith(b"II") else "big"
        return int.from_bytes(content[4:8], order) >= len(content)
    return False
