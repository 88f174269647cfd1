"""Pixels in order, decoded by threads beside whoever consumes them.

Decoding releases the interpreter's lock, so threads suffice. The order of what comes out is the
order of what goes in: neither the number of threads nor their luck can change a batch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from featcache.errors import PictureError
from featcache.images.clock import Clock
from featcache.images.loading import pictures_in_order, pixels_of_views
from featcache.images.sources import Source, content_hash
from featcache.recipe import Preprocessing, Recipe, View

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Slot:
    """A content that is to become a row, and a path that holds it."""

    content: bytes
    path: str


@dataclass(frozen=True)
class Unusable:
    """Why a slot stays empty; `permanent` is a property of the content and is remembered."""

    reason: str
    permanent: bool = True


def load(source: Source, recipe: Recipe, slot: Slot) -> Pixels | Unusable:
    """(H, W, 3) uint8 pixels of one slot, or why there are none."""
    loaded = load_views(source, recipe, (View(),), slot)
    return loaded if isinstance(loaded, Unusable) else loaded[0]


def load_unnamed(source: Source, recipe: Recipe, path: str) -> Pixels | Unusable:
    """The same of whatever content a path has now."""
    try:
        name = content_hash(source.read(path))
    except PictureError as error:
        return Unusable(str(error), permanent=False)
    return load(source, recipe, Slot(name, path))


def load_views(
    source: Source,
    recipe: Recipe,
    views: Sequence[View],
    slot: Slot,
    clock: Clock | None = None,
) -> Pixels | Unusable:
    """(V, H, W, 3) uint8 pixels of views of one slot, decoded once, or why there are none."""
    clock = clock or Clock()
    try:
        with clock.stage("read"):
            content = source.read(slot.path)
            name = content_hash(content)
    except PictureError as error:
        return Unusable(str(error), permanent=False)
    if name != slot.content:
        return Unusable("it changed while it was read; run extract again", permanent=False)
    try:
        return pixels_of_views(content, recipe, views, slot.content, clock)
    except PictureError as error:
        return Unusable(str(error))
    except MemoryError:
        return Unusable("too little memory to decode it; run extract again", permanent=False)


def blank_pixels(preprocessing: Preprocessing) -> Pixels:
    """(H, W, 3) zeros, which stand for a picture that gave no pixels."""
    return np.zeros((*preprocessing.size, 3), np.uint8)


def stream_pixels(
    source: Source,
    recipe: Recipe,
    views: Sequence[View],
    slots: Iterable[Slot],
    *,
    threads: int,
    ahead: int,
    clock: Clock | None = None,
) -> Generator[Pixels | Unusable, None, None]:
    """(V, H, W, 3) pixels of each slot in order; see `in_order`."""
    load_one = partial(load_views, source, recipe, views, clock=clock)
    return pictures_in_order(load_one, slots, threads=threads, ahead=ahead)
