"""Activations on demand: what a sweep trains from is derived or extracted when it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from featcache.api.extracting import compiled_folder
from featcache.api.requests import Progress
from featcache.backbones.registry import Backbone
from featcache.backbones.units import find_unit, list_units
from featcache.errors import CacheMissingError, SourceMissingError, StoredOverflowError
from featcache.extraction.deriving import derive, derived
from featcache.extraction.jobs import Job
from featcache.extraction.kept import traced_of
from featcache.extraction.passes import row_bytes
from featcache.extraction.running import run
from featcache.images.sources import Source, source_from_locator
from featcache.recipe import PENULTIMATE, StoredDtype, Stream, View
from featcache.store.cache import Cache, StreamReader
from featcache.store.manifest import StreamEntry
from featcache.store.writing import check_space
from featcache.unfreezing.depths import PIXELS

log = logging.getLogger(__name__)


def ensure_cuts(
    cache: Cache,
    cuts: Sequence[str],
    *,
    views: Collection[View] = (),
    crops: Collection[View] = (),
    backbone: Backbone,
    progress: Progress | None = None,
) -> Cache:
    """Make sure that a cache has the unpooled activations at some cuts, of some views.

    What is there is left alone. What a deeper cut has in all these views is derived from the
    nearest such; the rest is extracted from the cache's own source, in one pass. What an earlier
    run began is continued. The index stays as it is, so that its rows mean what they meant: a
    picture that changed or went since it was extracted stays without a row.

    Crops come from where the other views come from, and change nothing about that: where those are
    derived, the deeper cut gets its crops first, from pixels.

    Args:
        cache: as it was opened.
        cuts: names of units; nothing is cached of what is no unit's, `PIXELS` and `PENULTIMATE`.
        views: beside the plain one.
        crops: beside these, to be predicted.
        backbone: the cache's network.
        progress: called with ("extract" | "derive", done, total).

    Returns:
        The cache as it is now.

    Raises:
        BackboneError: no such unit, or no cuts in this network at all.
        SourceMissingError: the pictures are needed and are gone.
        DiskSpaceError: it would not fit; names the bytes needed and those free.
        StoreError, SourceError, EngineError: each says what to do.
    """
    asked = tuple(dict.fromkeys((View(), *views)))
    inner = [cut for cut in dict.fromkeys(cuts) if cut not in (PENULTIMATE, PIXELS)]
    every = (*asked, *crops)
    lacking = [cut for cut in inner if not _is_whole(cache, _reader_of(cache, cut), every)]
    if lacking:
        making = _Making(cache, backbone, asked, tuple(crops))
        making.make([stream for cut in lacking for stream in making.streams(cut)], progress)
        return cache.reopened()
    return cache


def _reader_of(cache: Cache, cut: str) -> StreamReader | None:
    """The unpooled activations at a cut that would be read."""
    try:
        return cache.stream(cut, pooling="none")
    except CacheMissingError:
        return None


def _is_whole(cache: Cache, plain: StreamReader | None, views: Sequence[View]) -> bool:
    """Whether no picture lacks its row in any of these views of an activation."""
    if plain is None:
        return False
    there = {View(): plain, **cache.views_of(plain.entry.stream)}
    wanted = [view for view in views if len(cache.index.contents(view))]
    return all(view in there and not cache.missing(there[view]) for view in wanted)


class _Making:
    """How the activations that a cache lacks come to be.

    Args:
        cache: as it is.
        backbone: its network.
        views: that are asked for, the plain one first. crops: beside these.
    """

    def __init__(
        self,
        cache: Cache,
        backbone: Backbone,
        views: tuple[View, ...],
        crops: tuple[View, ...],
    ) -> None:
        self._cache, self._backbone = cache, backbone
        self._traced = traced_of(backbone)
        self._depths = {unit.name: unit.depth for unit in list_units(self._traced)}
        self._views = tuple(view for view in views if len(cache.index.contents(view)))
        self._crops = crops

    def streams(self, cut: str) -> list[Stream]:
        """What is to be there of a cut, one stream a view: derived ones, or all from pixels.

        Where crops are derived, the deeper cut's are among them, as far as they lack rows.

        Raises:
            BackboneError: no such unit.
            SourceMissingError: they must come from pixels, and the pictures are gone.
        """
        find_unit(self._traced, cut)
        origin = self._origin(cut)
        views, crops = (
            [replace(origin, view=view) for view in some] for some in (self._views, self._crops)
        )
        own = origin.cut == cut
        pixels = [*views, *crops] if own else [s for s in crops if self._lacking_bytes(s)]
        if pixels and self._gone:
            raise self._unavailable(cut, self._gone) from self._gone
        return pixels if own else [*pixels, *(derived(s, cut) for s in (*views, *crops))]

    def make(self, streams: Sequence[Stream], progress: Progress | None) -> None:
        """Extract, then derive, what is not there yet."""
        streams = list(dict.fromkeys(streams))
        self._tell(streams)
        below = [stream for stream in streams if stream.parent]
        pixels = [stream for stream in streams if not stream.parent]
        try:
            self._extract(pixels, progress)
            if below:
                derive(self._cache.folder, self._backbone, below, progress=progress)
        except StoredOverflowError as error:
            raise StoredOverflowError(
                f"{error}, as in `featcache extract {self._cache.manifest.source['location']} "
                f"--out {self._cache.folder} --cut UNIT --pool none --store-dtype float32`"
            ) from error

    def _tell(self, streams: Sequence[Stream]) -> None:
        """Estimate the bytes, say so, and refuse them where the disk has no room."""
        size = sum(map(self._lacking_bytes, streams))
        cuts = ", ".join(dict.fromkeys(stream.cut for stream in streams))
        log.info(
            "%s: %.2f GB of activations at %s are to be written, of %d pictures and %d view(s)",
            *(self._cache.folder, size / 1e9, cuts, len(self._cache.index), len(self._every)),
        )
        check_space(self._cache.folder, size, "ask for fewer depths or views")

    def _lacking_bytes(self, stream: Stream) -> int:
        rows = (
            self._cache.missing(self._cache.reader(stream.key))
            if stream.key in self._cache.manifest.streams
            else len(self._cache.index.contents(stream.view))
        )
        shape = self._traced.shape(self._traced.ends[stream.cut])
        return rows * row_bytes([StreamEntry(stream, shape)])

    def _extract(self, streams: Sequence[Stream], progress: Progress | None) -> None:
        """A pass over the pictures for all cuts that are kept alike: one dtype, the same views."""
        halved = self._cache.stream().entry.stream.dtype == "float16"
        for (dtype, views), cuts in _kept_alike(streams).items():
            job = Job(
                folder=self._cache.folder,
                source=self._source,
                backbone=self._backbone,
                cuts=tuple(cuts),
                pooling="none",
                views=views,
                decoder=self._cache.manifest.recipe.decoder,
                dtype=None if dtype == "float16" and not halved else dtype,
                precision=self._cache.manifest.recipe.precision,
                compiled=compiled_folder(),
                as_indexed=True,
            )
            for warning in run(job, progress).warnings:
                log.warning("%s", warning)

    @cached_property
    def _source(self) -> Source:
        return source_from_locator(self._cache.manifest.source)

    @cached_property
    def _gone(self) -> SourceMissingError | None:
        """Why there are no pictures; None where there are."""
        try:
            _ = self._source
        except SourceMissingError as error:
            return error
        return None

    @property
    def _every(self) -> tuple[View, ...]:
        return (*self._views, *self._crops)

    def _origin(self, cut: str) -> Stream:
        """The plain activation from pixels that a cut's views come from: its own, or a deeper one.

        Crops have no say in it: what is whole without them stays what it is.
        """
        there = _reader_of(self._cache, cut)
        if there is not None and _is_whole(self._cache, there, self._views):
            return self._cache.parent_of(there.entry.stream) or there.entry.stream
        begun = self._from_pixels(cut)
        whole = any(not self._cache.missing(reader) for reader in begun)
        goes_on = begun and (whole or not self._gone)
        if not goes_on and (parent := self._parent(cut)):
            return parent.entry.stream
        dtype: StoredDtype = begun[0].entry.stream.dtype if begun else "float16"
        return Stream(self._cache.manifest.recipe.key, cut, "none", dtype)

    def _from_pixels(self, cut: str) -> list[StreamReader]:
        """Plain unpooled activations at a cut that came from pixels, the most complete first."""
        return sorted(
            (
                self._cache.reader(key)
                for key, entry in self._cache.manifest.streams.items()
                if entry.stream.cut == cut and _is_origin(entry.stream)
            ),
            key=self._cache.missing,
        )

    def _parent(self, cut: str) -> StreamReader | None:
        """What a cut is derived from: what it was begun with, else the nearest below it."""
        whole = (p for p in self._parents(cut) if _is_whole(self._cache, p, self._views))
        return next(whole, None)

    def _parents(self, cut: str) -> Iterator[StreamReader]:
        """Activations at deeper cuts, in the order in which they are preferred."""

        def rank(stream: Stream) -> tuple[bool, int, bool]:
            begun = derived(stream, cut).key in self._cache.manifest.streams
            return not begun, self._depths[stream.cut], stream.dtype != "float32"

        streams = [entry.stream for entry in self._cache.manifest.streams.values()]
        depth = self._depths[cut]
        deeper = [s for s in streams if _is_origin(s) and self._depths.get(s.cut, 0) > depth]
        return (self._cache.reader(stream.key) for stream in sorted(deeper, key=rank))

    def _unavailable(self, cut: str, error: SourceMissingError) -> SourceMissingError:
        there = [
            name
            for name in self._depths
            if _is_whole(self._cache, _reader_of(self._cache, name), self._every)
        ]
        what, instead = (" and crops", ", or leave out --tta") if self._crops else ("", "")
        return SourceMissingError(
            f"{self._cache.folder}: the activations{what} at {cut!r} are not all cached and cannot "
            f"be derived from deeper ones; {error}{instead}. Cached are: "
            f"{', '.join(there) or 'none'}"
        )


def _kept_alike(
    streams: Sequence[Stream],
) -> dict[tuple[StoredDtype, tuple[View, ...]], list[str]]:
    """Cuts by their dtype and views, the plain one first."""
    views: dict[tuple[str, StoredDtype], dict[View, None]] = {}
    for stream in streams:
        views.setdefault((stream.cut, stream.dtype), {View(): None})[stream.view] = None
    alike: dict[tuple[StoredDtype, tuple[View, ...]], list[str]] = {}
    for (cut, dtype), some in views.items():
        alike.setdefault((dtype, tuple(some)), []).append(cut)
    return alike


def _is_origin(stream: Stream) -> bool:
    """Whether a stream is a plain unpooled activation from pixels, from which others can come."""
    return (stream.parent, stream.pooling, stream.view) == (None, "none", View()) and (
        stream.cut != PENULTIMATE
    )
