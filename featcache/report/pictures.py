"""Pictures in the page: small, upright, inline, and only those that are still what was probed."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from featcache.errors import FeatcacheError
from featcache.images.decode import decoded
from featcache.images.listing import Source
from featcache.images.sources import content_hash, source_from_locator
from featcache.recipe import Preprocessing
from featcache.store.cache import Cache

SIDE = 96
"""Pixels of a thumbnail's longer side."""

TILE = 64
"""Pixels of a side of a sheet's tiles."""

_SHEET_BYTES = 1_500_000
"""Of a sheet, before base64; coarser qualities are tried until it fits."""

_QUALITIES = (75, 55, 35, 15)

_SMALL = Preprocessing(size=(SIDE, SIDE), resize=(SIDE,), mean=(0, 0, 0), std=(1, 1, 1))
"""What large JPEGs are decoded for."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture in the page, or why it is not there.

    Attributes:
        uri: data of it, None where it could not be had; `reason` says why.
        width, height: pixels.
    """

    uri: str | None
    reason: str = ""
    width: int = SIDE
    height: int = SIDE


@dataclass(frozen=True)
class Sheet:
    """Many pictures in one, tiles of `TILE` pixels side by side, row by row.

    Attributes:
        uri: data of it, None where none could be had.
        columns, rows: of tiles.
        reasons: why a tile is empty, by its number.
    """

    uri: str | None
    columns: int
    rows: int
    reasons: dict[int, str]


class Pictures:
    """The pictures of a cache, read from its source where they are still there."""

    def __init__(self, cache: Cache) -> None:
        self._source: Source | None = None
        self.missing: str | None = None
        self.shown = self.left_out = 0
        try:
            self._source = source_from_locator(cache.manifest.source, fetch=False)
        except FeatcacheError as error:
            self.missing = str(error)

    def thumbnail(self, name: str | None, content: bytes) -> Thumbnail:
        """A picture by its path and the sha256 of its bytes."""
        try:
            image = self._small(name, content)
        except _NotShownError as error:
            return Thumbnail(None, str(error))
        return Thumbnail(_uri(image, _QUALITIES[0]), "", *image.size)

    def sheet(self, wanted: Sequence[tuple[str | None, bytes]]) -> Sheet:
        """Several of them, at the quality that keeps it small."""
        columns = max(1, int(np.ceil(np.sqrt(len(wanted)))))
        rows = max(1, -(-len(wanted) // columns))
        sheet, reasons = Image.new("RGBA", (columns * TILE, rows * TILE)), dict[int, str]()
        for number, (name, content) in enumerate(wanted):
            try:
                tile = self._small(name, content)
            except _NotShownError as error:
                reasons[number] = str(error)
                continue
            tile.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
            left, top = (number % columns) * TILE, (number // columns) * TILE
            space = (TILE - tile.width) // 2, (TILE - tile.height) // 2
            sheet.paste(tile, (left + space[0], top + space[1]))
        whole = len(reasons) < len(wanted)
        return Sheet(_fitting(sheet) if whole else None, columns, rows, reasons)

    def _small(self, name: str | None, content: bytes) -> Image.Image:
        """A thumbnail's pixels.

        Raises:
            _NotShownError: says why there are none.
        """
        try:
            image = self._read(name, content)
        except _NotShownError:
            self.left_out += 1
            raise
        self.shown += 1
        return image

    def _read(self, name: str | None, content: bytes) -> Image.Image:
        if self._source is None:
            raise _NotShownError("the pictures are gone")
        if name is None:
            raise _NotShownError("no longer in the cache")
        try:
            given = self._source.read(name)
            if content_hash(given) != content:
                raise _NotShownError("changed since it was probed")
            with decoded(given, draft_for=_SMALL) as image:
                return _shrunk(image)
        except FeatcacheError as error:
            raise _NotShownError(str(error)) from error


class _NotShownError(Exception):
    """A picture that cannot be shown; its text is the reason."""


def _shrunk(image: Image.Image) -> Image.Image:
    """At most `SIDE` pixels a side; the very small is enlarged pixel by pixel."""
    longer = max(image.size)
    if longer * 2 <= SIDE:
        times = SIDE // longer
        return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return small


def _fitting(sheet: Image.Image) -> str | None:
    for quality in _QUALITIES:
        uri = _uri(sheet, quality)
        if len(uri) * 3 // 4 <= _SHEET_BYTES:
            return uri
    return None


def _uri(image: Image.Image, quality: int) -> str:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def shares_uri(shares: np.ndarray, colour: tuple[int, int, int]) -> str:
    """A matrix of shares (K, K) as a PNG, a pixel a cell: how much of a colour."""
    cells = np.empty((*shares.shape, 4), np.uint8)
    cells[..., :3] = colour
    cells[..., 3] = np.rint(255 * np.sqrt(shares))
    stream = io.BytesIO()
    Image.fromarray(cells, "RGBA").save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
