"""Pixels in order, decoded by threads beside whoever consumes them.

Decoding mostly releases the interpreter's lock, so threads suffice for a few cores; where there are
many, processes decode (`images/workers`). The order of what comes out is the order of what goes in:
neither their number nor their luck can change a batch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from featcache.errors import PictureError
from featcache.images.clock import Clock
from featcache.images.folders import FolderSource
from featcache.images.loading import Kind, pictures_in_order, pixels_of_kinds
from featcache.images.sources import Source, content_hash
from featcache.images.tables import CsvSource
from featcache.images.workers import Workers
from featcache.recipe import Preprocessing, Recipe, View

Pixels = npt.NDArray[np.uint8]

Item = TypeVar("Item")

MANY_CORES, PICTURES_A_CORE = 8, 32
"""From how many cores, and pictures for each, processes decode: starting one takes as long as a
hundred pictures of a small camera do."""

CHUNK = 4
"""Pictures a process is asked for at once."""


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
    (loaded,) = load_kinds(source, [Kind.of(recipe, views)], slot, clock)
    return loaded


def load_kinds(
    source: Source, kinds: Sequence[Kind], slot: Slot, clock: Clock | None = None
) -> list[Pixels | Unusable]:
    """The same of each of several kinds, all from one reading."""
    clock = clock or Clock()
    try:
        with clock.stage("read"):
            content = source.read(slot.path)
            name = content_hash(content)
    except PictureError as error:
        return [Unusable(str(error), permanent=False)] * len(kinds)
    if name != slot.content:
        changed = "it changed while it was read; run extract again"
        return [Unusable(changed, permanent=False)] * len(kinds)
    return [_usable(made) for made in pixels_of_kinds(content, kinds, slot.content, clock)]


def _usable(made: Pixels | PictureError | MemoryError) -> Pixels | Unusable:
    if isinstance(made, PictureError):
        return Unusable(str(made))
    if isinstance(made, MemoryError):
        return Unusable("too little memory to decode it; run extract again", permanent=False)
    return made


def blank_pixels(preprocessing: Preprocessing) -> Pixels:
    """(H, W, 3) zeros, which stand for a picture that gave no pixels."""
    return np.zeros((*preprocessing.size, 3), np.uint8)


class Decoders:
    """What decodes a source as a recipe says: threads, or processes where many are expected.

    Within a `with` block: at its end the processes end.

    Args:
        source: where the pictures are.
        recipe: decoder and preprocessing.
        threads: how many decode; as many processes.
    """

    def __init__(self, source: Source, recipe: Recipe, threads: int) -> None:
        self._source, self._recipe, self._threads = source, recipe, threads
        self._workers = Workers[_Asked, Pixels | Unusable](
            partial(_load_asked, source, recipe), again=_is_passing
        )

    def __enter__(self) -> Self:
        self._workers.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.__exit__(*exception)

    def expect(self, pictures: int) -> None:
        """Start processes if so many pictures repay it; nothing waits for them."""
        self._workers.start(processes_for(self._source, pictures, self._threads))

    def stream(
        self, views: Sequence[View], slots: Iterable[Slot], *, ahead: int, clock: Clock
    ) -> Generator[Pixels | Unusable, None, None]:
        """As `stream_pixels`; where processes decode, at least two chunks ahead each."""
        if not (processes := len(self._workers)):
            return stream_pixels(
                self._source,
                self._recipe,
                views,
                slots,
                threads=self._threads,
                ahead=ahead,
                clock=clock,
            )
        load = partial(self._workers.load, clock=clock)
        chunks = _chunks(((views, slot) for slot in slots), CHUNK)
        ahead = max(ahead // CHUNK, 2 * processes)
        return _flat(pictures_in_order(load, chunks, threads=processes, ahead=ahead))


_Asked = tuple[Sequence[View], Slot]


def _load_asked(
    source: Source, recipe: Recipe, asked: _Asked, clock: Clock | None = None
) -> Pixels | Unusable:
    return load_views(source, recipe, *asked, clock)


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


def processes_for(source: Source, pictures: int, cores: int) -> int:
    """How many processes are to decode so many pictures; 0: threads of this one do."""
    enough = cores >= MANY_CORES and pictures >= PICTURES_A_CORE * cores
    return cores if enough and isinstance(source, FolderSource | CsvSource) else 0


def _flat(lists: Generator[list[Item], None, None]) -> Generator[Item, None, None]:
    with closing(lists):
        for several in lists:
            yield from several


def _is_passing(loaded: Pixels | Unusable) -> bool:
    return isinstance(loaded, Unusable) and not loaded.permanent


def _chunks(items: Iterable[Item], size: int) -> Generator[list[Item], None, None]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
