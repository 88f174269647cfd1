"""Reading: open a cache, look rows up by content, read them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import (
    CacheBusyError,
    CacheDamagedError,
    CacheIncompleteError,
    CacheMissingError,
)
from featcache.recipe import PENULTIMATE, Pooling, Stream, View
from featcache.store import manifest as manifests
from featcache.store.files import naming, sha256_file
from featcache.store.index import Index, look_up, opaque, read_index, sorting
from featcache.store.manifest import IndexEntry, Manifest, ShardEntry, StreamEntry
from featcache.store.maps import Maps
from featcache.store.shards import Shard, map_shard

SHARDS = "shards"

_PREFERRED: tuple[Pooling, ...] = ("avg", "cls", "flatten", "none")

_checked: set[tuple[str, str, int, int, int]] = set()
_checked_lock = threading.Lock()


def shard_path(folder: Path, stream: Stream, number: int) -> Path:
    """Where a shard of a stream lies."""
    return folder / SHARDS / stream.key[:16] / f"{number:06d}.h5"


def check_file(path: Path, sha256: str) -> None:
    """Compare a file's hash with what was committed, once in each process.

    Raises:
        CacheDamagedError: it is gone or differs.
    """
    with naming(path):
        try:
            stat = path.stat()
        except FileNotFoundError as error:
            raise CacheDamagedError(
                f"{path}: the manifest names this file and it is gone; restore it, or run "
                "`featcache repair` on the cache, which computes again what was in it"
            ) from error
        key = (str(path), sha256, stat.st_size, stat.st_mtime_ns, stat.st_ino)
        with _checked_lock:
            if key in _checked:
                return
        found = sha256_file(path)
    if found != sha256:
        raise CacheDamagedError(
            f"{path}: its bytes are not those that were committed; `featcache verify` lists all "
            "damage, `featcache repair` drops what is damaged and computes it again"
        )
    with _checked_lock:
        _checked.add(key)


def open_index(folder: Path, entry: IndexEntry, *, trust: bool) -> Index:
    """The index that an entry names, its hash checked unless it is trusted.

    Raises:
        CacheDamagedError: it is gone or differs.
    """
    path = folder / entry.file
    if not trust:
        check_file(path, entry.sha256)
    return read_index(path)


@contextmanager
def _unless_removed(
    folder: Path, still_named: Callable[[Manifest], bool]
) -> Generator[None, None, None]:
    """Tell of a file that is gone since the cache was opened, because nothing names it any more."""
    try:
        yield
    except CacheDamagedError as error:
        if still_named(manifests.load(folder)):
            raise
        raise CacheBusyError(
            f"{folder}: another process removed rows while they were read; run again"
        ) from error


class StreamReader:
    """The committed rows of one stream.

    Rows have positions: shard after shard, in the order of the manifest.
    """

    def __init__(self, folder: Path, entry: StreamEntry, *, trust: bool) -> None:
        self.entry = entry
        self._folder = folder
        self._trust = trust
        self._maps = Maps()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.entry.shape

    def __len__(self) -> int:
        return sum(s.rows for s in self.entry.shards)

    def shard(self, entry: ShardEntry) -> Shard:
        """One shard, mapped; its hash is checked at its first read in each process."""
        return self._maps.get(entry.number, partial(self._checked, entry))

    def _checked(self, entry: ShardEntry) -> Shard:
        if not self._trust:
            with self._unless_removed(entry):
                check_file(self._path(entry), entry.sha256)
        return self._mapped(entry)

    def _path(self, entry: ShardEntry) -> Path:
        return shard_path(self._folder, self.entry.stream, entry.number)

    def _mapped(self, entry: ShardEntry) -> Shard:
        """One shard, of as many rows and skips as the manifest says: positions hang on it."""
        stream = self.entry.stream
        with self._unless_removed(entry):
            return map_shard(self._path(entry), stream, self.shape, entry.rows, entry.skipped)

    def _unless_removed(self, entry: ShardEntry) -> AbstractContextManager[None]:
        return _unless_removed(self._folder, lambda now: self._names(now, entry))

    def _names(self, manifest: Manifest, entry: ShardEntry) -> bool:
        now = manifest.streams.get(self.entry.stream.key)
        return now is not None and entry in now.shards

    def shards(self) -> Iterator[Shard]:
        """All shards in order."""
        return (self.shard(entry) for entry in self.entry.shards)

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint8]:
        """(rows, 32) uint8 content hashes by position.

        They say where to look: a shard is checked before anything is taken from it, so that a cache
        of any size is opened without reading it all.
        """
        return _concatenate([np.array(self._mapped(entry).hashes) for entry in self.entry.shards])

    @cached_property
    def skips(self) -> dict[bytes, str]:
        """Why a content has no row, by content hash."""
        return {
            content.tobytes(): reason
            for shard in self._with_skips()
            for content, reason in zip(shard.skipped, shard.reasons, strict=True)
        }

    def _with_skips(self) -> Iterator[Shard]:
        return (self.shard(entry) for entry in self.entry.shards if entry.skipped)

    @cached_property
    def _skipped(self) -> npt.NDArray[np.void]:
        return opaque(_concatenate([s.skipped for s in self._with_skips()]))

    def is_skipped(self, hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """(n,) whether each content could not be used, so that it has no row; see `skips`."""
        if not len(self._skipped):
            return np.zeros(len(hashes), np.bool_)
        return np.isin(opaque(hashes), self._skipped)

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
        order = sorting(self.hashes)
        return self.hashes[order], order

    def positions(self, hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """(n,) position of each content, -1 where it has no row.

        Raises:
            CacheDamagedError: one is not found, and a shard that might have named it is damaged.
        """
        keys, order = self._sorted
        slots, there = look_up(keys, hashes)
        found = np.full(len(hashes), -1, np.int64)
        found[there] = order[slots[there]]
        if not there.all() and not self.is_skipped(hashes[~there]).all():
            deque(self.shards(), maxlen=0)  # a damaged name must not pass for a row never computed
        return found

    def known(self, *, but_for: range = range(0)) -> npt.NDArray[np.void]:
        """Contents that shards hold or have skipped, some numbers left out."""
        bounds = np.cumsum([0, *(s.rows for s in self.entry.shards)])
        parts = [
            part
            for entry, first, end in zip(self.entry.shards, bounds, bounds[1:], strict=False)
            if entry.number not in but_for
            for part in (self.hashes[first:end], self._skips_of(entry))
        ]
        return opaque(_concatenate(parts))

    def _skips_of(self, entry: ShardEntry) -> npt.NDArray[np.uint8]:
        return self.shard(entry).skipped if entry.skipped else np.empty((0, 32), np.uint8)

    def require(self, positions: npt.NDArray[np.int64]) -> None:
        """Refuse positions of rows that were never computed.

        Raises:
            CacheIncompleteError: a position is -1.
        """
        if positions.min(initial=0) < 0:
            raise CacheIncompleteError(
                f"{self._folder}: {(positions < 0).sum()} of {len(positions)} rows were never "
                "computed; run `featcache extract` on this cache's data again"
            )

    def read(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """(n, *shape) rows at positions, in the stored dtype.

        Raises:
            CacheIncompleteError: a position is -1.
            IndexError: there are not that many rows.
        """
        if positions.max(initial=-1) >= len(self):
            raise IndexError(f"row {positions.max()} of {len(self)} rows in {self._folder}")
        self.require(positions)
        rows = np.empty((len(positions), *self.shape), self.entry.stream.dtype)
        bounds = np.cumsum([0, *(s.rows for s in self.entry.shards)])
        order = np.argsort(positions, kind="stable")  # each shard is visited once, front to back
        cuts = np.searchsorted(positions[order], bounds)
        for i, entry in enumerate(self.entry.shards):
            here = order[cuts[i] : cuts[i + 1]]
            if len(here):
                rows[here] = self.shard(entry).features[positions[here] - bounds[i]]
        return rows


class Cache:
    """A snapshot of a committed cache, for reading.

    Args:
        folder: the cache's folder.
        trust: skip the check of hashes at first read.
    """

    def __init__(self, folder: Path, *, trust: bool = False) -> None:
        self.folder = folder
        self.manifest = manifests.load(folder)
        self._trust = trust

    @cached_property
    def index(self) -> Index:
        """The index in force, its hash checked.

        Raises:
            CacheIncompleteError: nothing was committed yet.
        """
        entry = self.manifest.index
        if entry is None:
            raise CacheIncompleteError(
                f"{self.folder}: nothing was extracted yet; run `featcache extract`"
            )
        with _unless_removed(self.folder, lambda now: now.index == entry):
            return open_index(self.folder, entry, trust=self._trust)

    def stream(
        self,
        cut: str = PENULTIMATE,
        view: View | None = None,
        pooling: Pooling | None = None,
    ) -> StreamReader:
        """The stream of a cut and view, and of a pooling if one is named.

        Of several the most complete is taken, then one from pixels before derived ones, then `avg`
        before `cls`, `flatten` and `none`, then float32.

        Raises:
            CacheMissingError: there is none; names those there are.
        """
        view = view or View()
        fitting = [
            e
            for e in self.manifest.streams.values()
            if e.stream.cut == cut and e.stream.view == view and pooling in (None, e.stream.pooling)
        ]
        if not fitting:
            streams = [entry.stream for entry in self.manifest.streams.values()]
            there = ", ".join(sorted({_described(stream) for stream in streams})) or "none"
            asked = f"cut {cut!r}" + (f", pooling {pooling!r}" if pooling else "")
            asked += f", {view}" if view != View() else ""
            raise CacheMissingError(f"{self.folder}: no activations of {asked}; there are: {there}")
        readers = [self.reader(entry.stream.key) for entry in fitting]
        return min(readers, key=self._rank) if len(readers) > 1 else readers[0]

    def _rank(self, reader: StreamReader) -> tuple[int, bool, int, bool]:
        stream = reader.entry.stream
        pooling = _PREFERRED.index(stream.pooling)
        derived = stream.parent is not None
        return self.missing(reader), derived, pooling, stream.dtype != "float32"

    def vector_cuts(self) -> list[str]:
        """Cuts whose plain activations are one vector a picture, in the order they were added."""
        return list(
            dict.fromkeys(
                entry.stream.cut
                for entry in self.manifest.streams.values()
                if len(entry.shape) == 1 and entry.stream.view == View()
            )
        )

    def views_of(self, stream: Stream) -> dict[View, StreamReader]:
        """The same activations of other views, by policy, seed and number.

        Views of what was derived are those that were derived from the same cut.
        """
        found = {
            entry.stream.view: self.reader(key)
            for key, entry in self.manifest.streams.items()
            if self._kept(entry.stream) == self._kept(stream) and entry.stream.view != stream.view
        }
        return dict(sorted(found.items(), key=lambda item: item[0].sort_key))

    def parent_of(self, stream: Stream) -> Stream | None:
        """The stream that another was derived from; None for what came from pixels."""
        return self.manifest.streams[stream.parent].stream if stream.parent else None

    def _kept(self, stream: Stream) -> tuple[Stream, ...]:
        """What a stream and those it was derived from keep, whatever the view."""
        parent = self.parent_of(stream)
        plain = replace(stream, view=View(), parent=None)
        return (plain, *self._kept(parent)) if parent else (plain,)

    def reopened(self) -> Cache:
        """The cache as it is now."""
        return Cache(self.folder, trust=self._trust)

    def missing(self, reader: StreamReader) -> int:
        """How many samples have neither a row nor a remembered skip, and should."""
        hashes = self.index.hashes[self.index.wanting(reader.entry.stream.view)]
        return int(((reader.positions(hashes) < 0) & ~reader.is_skipped(hashes)).sum())

    def reader(self, key: str) -> StreamReader:
        """The stream of a key."""
        return StreamReader(self.folder, self.manifest.streams[key], trust=self._trust)


def _described(stream: Stream) -> str:
    cut = stream.cut if stream.cut == PENULTIMATE else f"{stream.cut} ({stream.pooling})"
    return cut if stream.view == View() else f"{cut} ({stream.view})"


def _concatenate(parts: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    return np.concatenate([np.empty((0, 32), np.uint8), *parts])
