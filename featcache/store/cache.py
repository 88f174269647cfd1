"""The front door of the room: open a cache, read its rows, write new ones."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from featcache.errors import (
    CacheBusyError,
    CacheDamagedError,
    CacheIncompleteError,
    CacheMismatchError,
    CacheMissingError,
    DiskSpaceError,
)
from featcache.recipe import PENULTIMATE, Recipe, Stream, View, differing_fields
from featcache.store import manifest as manifests
from featcache.store import plan as plans
from featcache.store.files import make_folder, remove_leftovers, sha256_file, write_durably
from featcache.store.index import Index, opaque, read_index, write_index
from featcache.store.manifest import IndexEntry, Manifest, Plan, ShardEntry, StreamEntry
from featcache.store.shards import Shard, encode_shard, map_shard

LOCK = ".lock"
SHARDS = "shards"
_SPARE_BYTES = 64 << 20

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
    try:
        stat = path.stat()
    except FileNotFoundError as error:
        raise CacheDamagedError(
            f"{path}: the manifest names this file and it is gone; restore it, or remove the cache "
            "and extract again"
        ) from error
    key = (str(path), sha256, stat.st_size, stat.st_mtime_ns, stat.st_ino)
    with _checked_lock:
        if key in _checked:
            return
    if sha256_file(path) != sha256:
        raise CacheDamagedError(
            f"{path}: its bytes are not those that were committed; `featcache verify` lists all "
            "damage. Restore the file, or remove the cache and extract again"
        )
    with _checked_lock:
        _checked.add(key)


class StreamReader:
    """The committed rows of one stream.

    Rows have positions: shard after shard, in the order of the manifest.
    """

    def __init__(self, folder: Path, entry: StreamEntry, *, trust: bool) -> None:
        self.entry = entry
        self._folder = folder
        self._trust = trust
        self._maps: dict[int, Shard] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.entry.shape

    def __len__(self) -> int:
        return sum(s.rows for s in self.entry.shards)

    def shard(self, entry: ShardEntry) -> Shard:
        """One shard, mapped; its hash is checked at its first read in each process."""
        if entry.number not in self._maps:
            path = shard_path(self._folder, self.entry.stream, entry.number)
            if not self._trust:
                check_file(path, entry.sha256)
            self._maps[entry.number] = map_shard(path, self.entry.stream)
        return self._maps[entry.number]

    def shards(self) -> Iterator[Shard]:
        """All shards in order."""
        return (self.shard(entry) for entry in self.entry.shards)

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint8]:
        """(rows, 32) uint8 content hashes by position."""
        return _concatenate([s.hashes for s in self.shards()])

    @cached_property
    def skips(self) -> dict[bytes, str]:
        """Why a content has no row, by content hash."""
        return {
            content.tobytes(): reason
            for shard in self.shards()
            for content, reason in zip(shard.skipped, shard.reasons, strict=True)
        }

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.void], npt.NDArray[np.intp]]:
        keys = opaque(self.hashes)
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    def positions(self, hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """(n,) position of each content, -1 where it has no row."""
        keys, order = self._sorted
        if not len(keys):
            return np.full(len(hashes), -1, np.int64)
        wanted = opaque(hashes)
        slots = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[slots] == wanted, order[slots], -1).astype(np.int64)

    def known_before(self, number: int) -> npt.NDArray[np.void]:
        """Contents that shards below a number hold or have skipped."""
        parts = [
            part
            for entry in self.entry.shards
            if entry.number < number
            for part in (self.shard(entry).hashes, self.shard(entry).skipped)
        ]
        return opaque(_concatenate(parts))

    def read(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """(n, *shape) rows at positions, in the stored dtype.

        Raises:
            CacheIncompleteError: a position is -1.
        """
        if len(positions) and positions.min() < 0:
            raise CacheIncompleteError(
                f"{self._folder}: {(positions < 0).sum()} of {len(positions)} rows were never "
                "computed; run `featcache extract` on this cache's data again"
            )
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
        path = self.folder / entry.file
        if not self._trust:
            check_file(path, entry.sha256)
        return read_index(path)

    def stream(self, cut: str = PENULTIMATE, view: View | None = None) -> StreamReader:
        """The stream of a cut and view, float32 where both dtypes are kept.

        Raises:
            CacheMissingError: there is none; names those there are.
        """
        view = view or View()
        fitting = [
            e
            for e in self.manifest.streams.values()
            if e.stream.cut == cut and e.stream.view == view
        ]
        if not fitting:
            there = (
                ", ".join(sorted({e.stream.cut for e in self.manifest.streams.values()})) or "none"
            )
            raise CacheMissingError(
                f"{self.folder}: no activations of cut {cut!r}; there are: {there}"
            )
        best = max(fitting, key=lambda e: e.stream.dtype == "float32")
        return self.reader(best.stream.key)

    def reader(self, key: str) -> StreamReader:
        """The stream of a key."""
        return StreamReader(self.folder, self.manifest.streams[key], trust=self._trust)


class Writer:
    """The one process that may change a cache; made by `writing`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def reader(self, key: str) -> StreamReader:
        """The committed rows of a stream, as of now."""
        return StreamReader(self.folder, self.manifest.streams[key], trust=False)

    def commit(self, manifest: Manifest) -> None:
        """Make a manifest the one in force, if it differs."""
        if manifest != self.manifest or not (self.folder / manifests.MANIFEST).exists():
            manifests.commit(self.folder, manifest)
            self.manifest = manifest

    def with_index(self, index: Index, source: Mapping[str, str]) -> Manifest:
        """Write an index; returns the manifest that would put it in force."""
        file, sha256 = write_index(self.folder, index)
        return replace(
            self.manifest, index=IndexEntry(file, sha256, len(index)), source=dict(source)
        )

    def pending(self, index: Index, key: str, plan: Plan | None = None) -> npt.NDArray[np.void]:
        """Sorted distinct contents of an index that a stream lacks (or lacked before a plan)."""
        entry = self.manifest.streams.get(key)
        if entry is None:
            return index.unique_hashes
        first = plan.first if plan else entry.next_number
        return plans.without(index.unique_hashes, self.reader(key).known_before(first))

    def write_shard(self, stream: Stream, number: int, shard: Shard) -> ShardEntry:
        """Write a shard's file durably; it is in force once a manifest with the entry is."""
        path = shard_path(self.folder, stream, number)
        make_folder(path.parent)
        sha256 = write_durably(path, encode_shard(stream, shard))
        return ShardEntry(number, len(shard.features), len(shard.skipped), sha256)

    def commit_shard(self, stream: Stream, number: int, shard: Shard, *, last: bool) -> None:
        """Write a shard of the open plan and put it in force; the last one finishes the plan."""
        added = self.write_shard(stream, number, shard)
        entry = self.manifest.streams[stream.key]
        done = (*entry.plans[:-1], replace(entry.plans[-1], finished=last))
        self.commit(
            self.manifest.with_stream(replace(entry, shards=(*entry.shards, added), plans=done))
        )

    def check_space(self, rows: int, row_bytes: int) -> None:
        """Refuse what would not fit on the disk.

        Raises:
            DiskSpaceError: says how much is needed and how much is free.
        """
        needed, free = rows * row_bytes + _SPARE_BYTES, shutil.disk_usage(self.folder).free
        if needed > free:
            raise DiskSpaceError(
                f"{self.folder}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; "
                "free some space, or choose another place with --out"
            )


@contextmanager
def writing(
    folder: Path,
    recipe: Recipe,
    backbone: Mapping[str, Any],
    source: Mapping[str, str],
    *,
    replace_source: bool = False,
) -> Generator[Writer, None, None]:
    """Hold a cache for writing; a new one comes to be with the first commit.

    Raises:
        CacheBusyError: another process writes it.
        CacheMismatchError: it is of another recipe or source; names what differs.
    """
    refuse_foreign_folder(folder)
    make_folder(folder)
    with locked(folder):
        remove_leftovers(folder)
        try:
            manifest = manifests.load(folder)
        except CacheMissingError:
            manifest = Manifest(recipe, dict(backbone), dict(source))
        refuse_mismatch(folder, manifest, recipe, source, replace_source=replace_source)
        yield Writer(folder, manifest)


@contextmanager
def locked(folder: Path) -> Generator[None, None, None]:
    """Hold the write lock of a cache; it is the kernel's and ends with the process.

    Raises:
        CacheBusyError: another process holds it.
    """
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise CacheBusyError(
            f"{folder}: another process is writing this cache; wait for it, or use another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def refuse_foreign_folder(folder: Path) -> None:
    """Refuse to put a cache among files that are not one.

    Raises:
        CacheMismatchError: the folder holds other things.
    """
    if (folder / manifests.MANIFEST).exists():
        return
    if folder.exists() and not folder.is_dir():
        raise CacheMismatchError(f"{folder}: is a file; give --out a folder")
    ours = (LOCK, SHARDS, "log.jsonl")
    foreign = [
        p.name
        for p in (folder.iterdir() if folder.is_dir() else ())
        if p.name not in ours and not p.name.startswith((".tmp-", "index-"))
    ]
    if foreign:
        raise CacheMismatchError(
            f"{folder}: is not a cache and not empty (it holds {foreign[0]!r}); "
            "give --out an empty folder"
        )


def refuse_mismatch(
    folder: Path,
    manifest: Manifest,
    recipe: Recipe,
    source: Mapping[str, str],
    *,
    replace_source: bool,
) -> None:
    """Refuse another recipe, and another source unless it is to be replaced.

    Raises:
        CacheMismatchError: names the fields that differ.
    """
    if manifest.recipe != recipe:
        fields = differing_fields(recipe.to_dict(), manifest.recipe.to_dict())
        raise CacheMismatchError(
            f"{folder}: was made by another recipe ({'; '.join(fields)}); "
            "give this one a cache of its own with --out"
        )
    if manifest.source != dict(source) and not replace_source:
        fields = [
            f"{name}: {source.get(name)} here, {manifest.source.get(name)} there"
            for name in sorted({*source, *manifest.source})
            if source.get(name) != manifest.source.get(name)
        ]
        raise CacheMismatchError(
            f"{folder}: holds another source ({'; '.join(fields)}); use another --out, or "
            "--replace-source if the pictures moved or are to take the place of the old ones"
        )


def _concatenate(parts: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    return np.concatenate([np.empty((0, 32), np.uint8), *parts])
