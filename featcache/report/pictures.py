"""Pictures in the page: small, upright, inline, and only those that are still what was probed."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from featcache.engines import available_cores
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


Wanted = tuple[str | None, bytes]
"""A picture by its path within the source, None where the cache names it no more, and the sha256
of its bytes."""


class Pictures:
    """The pictures of a cache, read from its source where they are still there.

    Attributes:
        missing: why none can be had, else None.
        shown, left_out: how many were asked for and had, and how many not.
    """

    def __init__(self, cache: Cache) -> None:
        self._source: Source | None = None
        self.missing: str | None = None
        self.shown = self.left_out = 0
        try:
            self._source = source_from_locator(cache.manifest.source, fetch=False)
        except FeatcacheError as error:
            self.missing = str(error)

    def thumbnail(self, wanted: Wanted) -> Thumbnail:
        """A picture of its own."""
        (found,) = self._read([wanted])
        if isinstance(found, str):
            return Thumbnail(None, found)
        return Thumbnail(_uri(found, _QUALITIES[0]), "", *found.size)

    def sheet(self, wanted: Sequence[Wanted]) -> Sheet:
        """Several of them, at the quality that keeps it small."""
        columns = max(1, math.ceil(math.sqrt(len(wanted))))
        rows = max(1, -(-len(wanted) // columns))
        sheet, reasons = Image.new("RGBA", (columns * TILE, rows * TILE)), dict[int, str]()
        for number, found in enumerate(self._read(wanted)):
            if isinstance(found, str):
                reasons[number] = found
                continue
            found.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
            left, top = (number % columns) * TILE, (number // columns) * TILE
            space = (TILE - found.width) // 2, (TILE - found.height) // 2
            sheet.paste(found, (left + space[0], top + space[1]))
        some = len(reasons) < len(wanted)
        return Sheet(_fitting(sheet) if some else None, columns, rows, reasons)

    def _read(self, wanted: Sequence[Wanted]) -> list[Image.Image | str]:
        """Each picture, at most `SIDE` pixels a side, or why it is not to be had; counted."""
        with ThreadPoolExecutor(available_cores()) as pool:
            found = list(pool.map(self._small, wanted))
        self.left_out += sum(isinstance(one, str) for one in found)
        self.shown += sum(not isinstance(one, str) for one in found)
        return found

    def _small(self, wanted: Wanted) -> Image.Image | str:
        name, expected = wanted
        if self._source is None:
            return "the pictures are gone"
        if name is None:
            return "no longer in the cache"
        try:
            content = self._source.read(name)
            if content_hash(content) != expected:
                return "changed since it was probed"
            with decoded(content, draft_for=_SMALL) as image:
                return _shrunk(image)
        except FeatcacheError as error:
            return str(error)


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
