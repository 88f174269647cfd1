"""verify: is every byte as committed? prune: remove what nothing names any more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheDamagedError
from featcache.store import manifest as manifests
from featcache.store.cache import SHARDS, Writer, check_file, locked, shard_path
from featcache.store.files import naming, remove_leftovers, sha256_file
from featcache.store.findings import list_findings, read_findings
from featcache.store.index import Index, opaque, read_index
from featcache.store.manifest import Manifest, ShardEntry
from featcache.store.shards import Shard


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
    damage: list[Damage] = []
    size = 0
    for path, sha256 in named:
        if not path.exists():
            damage.append(Damage(str(path), "is gone"))
            continue
        size += path.stat().st_size
        if sha256_file(path) != sha256:
            damage.append(Damage(str(path), "its bytes are not those that were committed"))
    results = list_findings(folder)
    for identity in results:
        try:
            read_findings(folder, identity)
        except CacheDamagedError as error:
            damage.append(Damage(str(folder / "results" / identity), str(error)))
    return len(named) + len(results), size, damage


@dataclass(frozen=True)
class Pruned:
    """What `prune_files` removed."""

    files: int
    rows: int
    bytes_freed: int


def prune_files(folder: Path) -> Pruned:
    """Drop rows whose content no sample has any more, and files that nothing names.

    A shard that loses rows is rewritten under a new number and committed before the old file goes.

    Raises:
        CacheBusyError: another process writes the cache.
    """
    with locked(folder):
        before = _size(folder)
        writer = Writer(folder, manifests.load(folder))
        rows = sum(
            _prune_stream(writer, key, _index(folder, writer.manifest))
            for key in list(writer.manifest.streams)
        )
        files = remove_leftovers(folder) + _remove_unnamed(folder, writer.manifest)
        return Pruned(files, rows, max(before - _size(folder), 0))


def _index(folder: Path, manifest: Manifest) -> Index | None:
    if manifest.index is None:
        return None
    path = folder / manifest.index.file
    check_file(path, manifest.index.sha256)
    return read_index(path)


def _prune_stream(writer: Writer, key: str, index: Index | None) -> int:
    """Rewrite the shards of one stream that hold dead rows; returns how many rows went."""
    entry = writer.manifest.streams[key]
    live = index.unique_hashes if index else np.empty(0, "V32")
    reader = writer.reader(key)
    dead = [
        (shard_entry, shard)
        for shard_entry in entry.shards
        for shard in [reader.shard(shard_entry)]
        if not np.isin(opaque(shard.hashes), live).all()
    ]
    removed = 0
    for shard_entry, shard in dead:
        keep = np.isin(opaque(shard.hashes), live)
        removed += int((~keep).sum())
        _replace_shard(writer, key, shard_entry, shard, keep)
    return removed


def _replace_shard(
    writer: Writer, key: str, old: ShardEntry, shard: Shard, keep: npt.NDArray[np.bool_]
) -> None:
    """Put a shard without its dead rows in the place of one that has them, in one commit."""
    entry = writer.manifest.streams[key].settled()
    rest = replace(shard, features=shard.features[keep], hashes=shard.hashes[keep])
    worth_keeping = keep.any() or len(shard.skipped)
    added = (writer.write_shard(entry.stream, entry.next_number, rest),) if worth_keeping else ()
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
