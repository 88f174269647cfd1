"""verify: is every byte as committed? prune: remove what nothing names any more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.errors import StoreError
from featcache.recipe import View
from featcache.store import manifest as manifests
from featcache.store.cache import SHARDS, shard_path
from featcache.store.calibration import CALIBRATION, read_calibration
from featcache.store.files import naming, remove_leftovers, sha256_file
from featcache.store.findings import (
    RESULTS,
    list_findings,
    read_findings,
    remove_unfinished,
)
from featcache.store.index import HASH_BYTES, Index, opaque
from featcache.store.locks import locked
from featcache.store.manifest import Manifest, ShardEntry
from featcache.store.shards import Shard
from featcache.store.steps import remove_steps
from featcache.store.strings import Strings
from featcache.store.writing import Writer


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was committed."""

    path: str
    problem: str


def verify_files(folder: Path) -> tuple[int, int, list[Damage]]:
    """Hash every committed file again; returns (files, bytes, damage).

    Raises:
        CacheMissingError, CacheDamagedError: the manifest itself cannot be used.
    """
    manifest = manifests.load(folder)
    named = [(folder / manifest.index.file, manifest.index.sha256)] if manifest.index else []
    named += [
        (shard_path(folder, entry.stream, shard.number), shard.sha256)
        for entry in manifest.streams.values()
        for shard in entry.shards
    ]
    checked = [_check(path, sha256) for path, sha256 in named]
    damage = [problem for _, problem in checked if problem is not None]
    damage += _check_calibration(folder, manifest)
    results = list_findings(folder)
    for identity in results:
        try:
            read_findings(folder, identity)
        except StoreError as error:
            damage.append(Damage(str(folder / RESULTS / identity), str(error)))
    return len(named) + len(results), sum(size for size, _ in checked), damage


def _check_calibration(folder: Path, manifest: Manifest) -> list[Damage]:
    """What is wrong with the pixels of an int8 cache."""
    if manifest.recipe.calibration is None:
        return []
    try:
        read_calibration(folder, manifest.recipe.calibration)
    except StoreError as error:
        return [Damage(str(folder / CALIBRATION), str(error))]
    return []


def _check(path: Path, sha256: str) -> tuple[int, Damage | None]:
    """A file's bytes, and what is wrong with it."""
    try:
        size = path.stat().st_size
        if sha256_file(path) == sha256:
            return size, None
    except FileNotFoundError:
        return 0, Damage(str(path), "is gone")
    except OSError as error:
        return 0, Damage(str(path), f"cannot be read: {error.strerror or error}")
    return size, Damage(str(path), "its bytes are not those that were committed")


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
    with locked(folder):
        before = _size(folder)
        writer = Writer(folder, manifests.load(folder))
        index = writer.index()
        rows = sum(_prune_stream(writer, key, index) for key in list(writer.manifest.streams))
        leftovers = remove_leftovers(folder, *(folder / SHARDS).glob("*"))
        files = leftovers + remove_unfinished(folder) + _remove_unnamed(folder, writer.manifest)
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


def _remove_unnamed(folder: Path, manifest: Manifest) -> int:
    named = {
        shard_path(folder, e.stream, s.number) for e in manifest.streams.values() for s in e.shards
    }
    if manifest.index:
        named.add(folder / manifest.index.file)
    unnamed = [
        path
        for path in (*folder.glob("index-*.h5"), *(folder / SHARDS).glob("*/*.h5"))
        if path not in named
    ]
    for path in unnamed:
        with naming(path):
            path.unlink()
    return len(unnamed)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
