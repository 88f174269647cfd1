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
from featcache.images.files import read_file
from featcache.images.folders import FolderSource
from featcache.images.loading import Kind, pictures_in_order, pixels_of_kinds, pixels_of_views
from featcache.images.sources import Source, content_hash
from featcache.images.tables import CsvSource
from featcache.images.workers import Workers
from featcache.recipe import Preprocessing, Recipe, View

Pixels = npt.NDArray[np.uint8]

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

MANY_CORES, PICTURES_A_CORE = 8, 32
"""From how many cores, and pictures for each, processes decode: starting one takes as long as a
hundred pictures of a small camera do."""

CHUNK = 4
"""Pictures a process is asked for at once, where they are asked for in order."""


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
    source: Source, recipe: Recipe, views: Sequence[View], slot: Slot
) -> Pixels | Unusable:
    """(V, H, W, 3) uint8 pixels of views of one slot, decoded once, or why there are none."""
    (loaded,) = load_kinds(source, [Kind.of(recipe, views)], slot)
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


def load_file(
    recipe: Recipe, views: Sequence[View], path: str, clock: Clock | None = None
) -> Pixels | Unusable:
    """(V, H, W, 3) pixels of views of a file that no source names."""
    clock = clock or Clock()
    try:
        with clock.stage("read"):
            content = read_file(".", path)
    except PictureError as error:
        return Unusable(str(error))
    return load_content(recipe, views, content, clock)


def load_content(
    recipe: Recipe, views: Sequence[View], content: bytes, clock: Clock | None = None
) -> Pixels | Unusable:
    """The same of a file in memory."""
    try:
        return pixels_of_views(content, recipe, views, content_hash(content), clock)
    except PictureError as error:
        return Unusable(str(error))
    except MemoryError:
        return Unusable("too little memory to decode it", permanent=False)


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
    """What decodes a source: threads, or processes where many pictures are expected.

    Within a `with` block: at its end the processes end.

    Args:
        source: where the pictures are.
        threads: how many decode; as many processes.
    """

    def __init__(self, source: Source, threads: int) -> None:
        self._source, self._threads = source, threads
        self._workers = Workers[_Asked, _Made](partial(_load_asked, source), again=_any_is_passing)

    def __enter__(self) -> Self:
        self._workers.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.__exit__(*exception)

    def expect(self, pictures: int) -> None:
        """Start processes if so many pictures repay it; nothing waits for them."""
        self._workers.start(processes_for(self._source, pictures, self._threads))

    @property
    def processes(self) -> int:
        """How many were started."""
        return len(self._workers)

    def stream(
        self, kind: Kind, slots: Iterable[Slot], *, ahead: int, clock: Clock
    ) -> Generator[Pixels | Unusable, None, None]:
        """(V, H, W, 3) pixels of each slot in order; see `by_workers`."""
        asked = (((kind,), slot) for slot in slots)
        made = by_workers(self._workers, asked, threads=self._threads, ahead=ahead, clock=clock)
        return _of_one_kind(made)

    def load(self, kinds: Sequence[Kind], slot: Slot, clock: Clock) -> list[Pixels | Unusable]:
        """What `load_kinds` gives of one slot. Called from several threads."""
        (made,) = self._workers.load([(kinds, slot)], clock)
        return made


_Asked = tuple[Sequence[Kind], Slot]
_Made = list[Pixels | Unusable]


def _load_asked(source: Source, asked: _Asked, clock: Clock | None = None) -> _Made:
    return load_kinds(source, *asked, clock)


def stream_pixels(
    source: Source,
    recipe: Recipe,
    views: Sequence[View],
    slots: Iterable[Slot],
    *,
    threads: int,
    ahead: int,
) -> Generator[Pixels | Unusable, None, None]:
    """(V, H, W, 3) pixels of each slot in order; see `in_order`."""
    load_one = partial(load_views, source, recipe, views)
    return pictures_in_order(load_one, slots, threads=threads, ahead=ahead)


def processes_for(source: Source, pictures: int, cores: int) -> int:
    """How many processes are to decode so many pictures; 0: threads of this one do."""
    return processes_for_files(pictures, cores) if isinstance(source, _OF_FILES) else 0


def processes_for_files(pictures: int, cores: int) -> int:
    """The same of pictures that are files."""
    return cores if cores >= MANY_CORES and pictures >= PICTURES_A_CORE * cores else 0


_OF_FILES = FolderSource | CsvSource


def by_workers(
    workers: Workers[Item, Loaded],
    items: Iterable[Item],
    *,
    threads: int,
    ahead: int,
    clock: Clock,
) -> Generator[Loaded, None, None]:
    """What is made of each item, in order; see `in_order`.

    Args:
        workers: that were started, each to be at least two chunks ahead; none: threads load.
        items: what to load.
        threads: how many threads.
        ahead: how many items may be loaded before they are asked for.
        clock: of the stages.
    """
    size = 1
    if processes := len(workers):
        size, ahead = CHUNK, max(ahead // CHUNK, 2 * processes)
        threads = max(threads, processes)  # one waits for each; the system may allow few processes
    load = partial(workers.load, clock=clock)
    chunks = _chunks(items, size)
    with closing(pictures_in_order(load, chunks, threads=threads, ahead=ahead)) as lists:
        for several in lists:
            yield from several


def _of_one_kind(
    made: Generator[_Made, None, None],
) -> Generator[Pixels | Unusable, None, None]:
    with closing(made):
        for (pixels,) in made:
            yield pixels


def is_passing(made: Pixels | Unusable) -> bool:
    """Whether it may go better another time, or elsewhere."""
    return isinstance(made, Unusable) and not made.permanent


def _any_is_passing(loaded: _Made) -> bool:
    return any(map(is_passing, loaded))


def _chunks(items: Iterable[Item], size: int) -> Generator[list[Item], None, None]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
