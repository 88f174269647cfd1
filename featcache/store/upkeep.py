"""verify: what is not as committed? repair: what it drops. prune: what nothing names any more."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheDamagedError, StoreError
from featcache.recipe import View
from featcache.store import manifest as manifests
from featcache.store.cache import SHARDS, shard_path
from featcache.store.calibration import CALIBRATION, read_calibration
from featcache.store.files import naming, remove_leftovers, sha256_file, sync_folder
from featcache.store.findings import (
    RESULTS,
    list_findings,
    read_findings,
    remove_findings,
    remove_unfinished,
)
from featcache.store.index import HASH_BYTES, Index, opaque, read_index
from featcache.store.locks import locked
from featcache.store.manifest import Manifest, ShardEntry
from featcache.store.shards import Shard, map_shard
from featcache.store.steps import remove_steps
from featcache.store.strings import Strings
from featcache.store.writing import Writer


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was committed.

    Attributes:
        path: of the file. problem: what is wrong with it.
        stream: key of the stream whose shard it is. shard: which one; None of what is no shard.
        result: whose it is; None of an index or a shard.
    """

    path: str
    problem: str
    stream: str | None = None
    shard: ShardEntry | None = None
    result: str | None = None

    @property
    def is_index(self) -> bool:
        """Whether it is the index in force."""
        return self.shard is None and self.result is None and not self.is_calibration

    @property
    def is_calibration(self) -> bool:
        """Whether it is the pixels that an int8 network was calibrated on."""
        return Path(self.path).name == CALIBRATION


def verify_files(folder: Path) -> tuple[int, int, list[Damage]]:
    """Hash every committed file again, and look whether it holds what it should.

    Returns:
        Files, bytes (results are not counted) and damage.

    Raises:
        CacheMissingError, CacheDamagedError: the manifest itself cannot be used.
    """
    manifest = manifests.load(folder)
    committed, results = [*_committed(folder, manifest)], list_findings(folder)
    damage = [found for _, found in committed if found is not None]
    if damage:  # what another process pruned meanwhile is no damage
        still = {str(path) for path in _named(folder, manifests.load(folder))}
        damage = [found for found in damage if found.path in still]
    damage += _calibration(folder, manifest)
    damage += (found for found in (_result(folder, name) for name in results) if found is not None)
    return len(committed) + len(results), sum(size for size, _ in committed), damage


def drop_damage(folder: Path) -> list[Damage]:
    """Take damaged shards and results out of force; returns all damage, a damaged index included.

    The rows of those shards are missing then, and the plans that made them are open again, so that
    an extraction puts the same bytes in the same places. What is left of their files stays until
    it is replaced or pruned. An index is left to be rebuilt.

    Raises:
        CacheMissingError, CacheDamagedError: the manifest itself cannot be used.
        CacheBusyError: another process writes the cache.
    """
    manifests.load(folder)
    with locked(folder) as hold:
        writer = Writer(folder, manifests.load(folder), hold)
        damage, manifest = verify_files(folder)[2], writer.manifest
        for found in damage:
            if found.stream and found.shard:
                entry = manifest.streams[found.stream]
                manifest = manifest.with_stream(entry.without(found.shard))
        writer.commit(manifest)
    remove_findings(folder, [found.result for found in damage if found.result])
    return damage


def _committed(folder: Path, manifest: Manifest) -> Iterator[tuple[int, Damage | None]]:
    """Bytes of the index and of every shard, and what is wrong with it."""
    if manifest.index:
        path = folder / manifest.index.file
        size, problem = _check(path, manifest.index.sha256, partial(read_index, path))
        yield size, Damage(str(path), problem) if problem else None
    for key, entry in manifest.streams.items():
        for shard in entry.shards:
            path = shard_path(folder, entry.stream, shard.number)
            whole = partial(map_shard, path, entry.stream, entry.shape, shard.rows, shard.skipped)
            size, problem = _check(path, shard.sha256, whole)
            yield size, Damage(str(path), problem, key, shard) if problem else None


def _calibration(folder: Path, manifest: Manifest) -> list[Damage]:
    """What is wrong with the pixels of an int8 cache."""
    if manifest.recipe.calibration is None:
        return []
    path = folder / CALIBRATION
    try:
        read_calibration(folder, manifest.recipe)
    except StoreError as error:
        return [Damage(str(path), str(error).removeprefix(f"{path}: "))]
    return []


def _check(path: Path, sha256: str, read: Callable[[], object]) -> tuple[int, str | None]:
    """A file's bytes, and what is wrong with it."""
    size = 0
    try:
        size = path.lstat().st_size
        if sha256_file(path) != sha256:
            return size, "its bytes are not those that were committed"
        read()
    except FileNotFoundError:
        return size, "is gone"
    except CacheDamagedError as error:
        return size, str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return size, f"cannot be read: {error.strerror or error}"
    return size, None


def _result(folder: Path, identity: str) -> Damage | None:
    try:
        read_findings(folder, identity)
    except StoreError as error:
        return Damage(str(folder / RESULTS / identity), str(error), result=identity)
    return None


@dataclass(frozen=True)
class Pruned:
    """What `prune_files` removed."""

    files: int
    rows: int
    sweeps: int
    bytes_freed: int


def prune_files(folder: Path) -> Pruned:
    """Drop rows and skips whose content no sample has any more, and files that nothing names.

    Sweeps that were interrupted are forgotten: they would begin anew.
    A shard that loses rows is rewritten under a new number and committed before the old file goes.

    Raises:
        CacheMissingError: there is no cache.
        CacheBusyError: another process writes it.
    """
    manifests.load(folder)
    with locked(folder) as hold:
        before = _size(folder)
        writer = Writer(folder, manifests.load(folder), hold)
        index = writer.index()
        rows = sum(_prune_stream(writer, key, index) for key in list(writer.manifest.streams))
        leftovers = remove_leftovers(folder, *(folder / SHARDS).glob("*"))
        files = leftovers + remove_unfinished(folder) + _remove_unnamed(writer)
        return Pruned(files, rows, remove_steps(folder), max(before - _size(folder), 0))


def _live(index: Index | None, view: View) -> npt.NDArray[np.void]:
    """The contents that samples have of a view."""
    return opaque(np.empty((0, HASH_BYTES), np.uint8)) if index is None else index.contents(view)


def _prune_stream(writer: Writer, key: str, index: Index | None) -> int:
    """Rewrite the shards of one stream that hold what is dead; returns how many rows went."""
    reader = writer.reader(key)
    live = _live(index, reader.entry.stream.view)
    removed = 0
    for entry in reader.entry.shards:
        shard = reader.shard(entry)
        rest = _without_dead(shard, live)
        if rest is not None:
            removed += len(shard.hashes) - len(rest.hashes)
            _replace_shard(writer, key, entry, rest)
    return removed


def _without_dead(shard: Shard, live: npt.NDArray[np.void]) -> Shard | None:
    """What of a shard is alive; None if all is."""
    rows = np.isin(opaque(shard.hashes), live)
    skips = np.isin(opaque(shard.skipped), live)
    if rows.all() and skips.all():
        return None
    return Shard(
        features=shard.features[rows],
        hashes=shard.hashes[rows],
        skipped=shard.skipped[skips],
        reasons=Strings.of(shard.reasons[int(i)] for i in np.flatnonzero(skips)),
    )


def _replace_shard(writer: Writer, key: str, old: ShardEntry, rest: Shard) -> None:
    """Put what is left of a shard in its place, in one commit."""
    entry = writer.manifest.streams[key].settled()
    empty = not len(rest.hashes) and not len(rest.skipped)
    added = () if empty else (writer.write_shard(entry.stream, entry.next_number, rest),)
    others = tuple(s for s in entry.shards if s.number != old.number)
    writer.commit(writer.manifest.with_stream(replace(entry, shards=others + added)))


def _remove_unnamed(writer: Writer) -> int:
    """Remove files that the manifest in force does not name; returns how many.

    It may be one that a killed process put in place: it must last before what others named goes.
    """
    folder = writer.folder
    with naming(folder):
        sync_folder(folder)
    named = _named(folder, writer.manifest)
    files = (*folder.glob("index-*.h5"), *(folder / SHARDS).glob("*/*.h5"))
    unnamed = [path for path in files if path not in named]
    for path in unnamed:
        writer.hold.check()
        with naming(path):
            path.unlink()
    return len(unnamed)


def _named(folder: Path, manifest: Manifest) -> set[Path]:
    """The files of a manifest."""
    entries = manifest.streams.values()
    shards = {shard_path(folder, e.stream, s.number) for e in entries for s in e.shards}
    return shards | ({folder / manifest.index.file} if manifest.index else set())


def _size(folder: Path) -> int:
    """Bytes of all files; what a probe beside removes meanwhile, folders too, is none."""
    size = 0
    for inner, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += Path(inner, name).lstat().st_size
    return size
