"""Writing: hold a cache, write shards and indices, commit."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheMismatchError, CacheMissingError, DiskSpaceError, StoreError
from featcache.recipe import Recipe, Stream, differing_fields
from featcache.store import journal
from featcache.store import manifest as manifests
from featcache.store import plan as plans
from featcache.store.cache import SHARDS, StreamReader, open_index, shard_path
from featcache.store.calibration import CALIBRATION, write_calibration
from featcache.store.files import (
    TEMPORARY,
    make_folder,
    naming,
    refuse_links,
    remove_leftovers,
    sync_folder,
    write_durably,
)
from featcache.store.index import Index, hashes_of, opaque, read_index, write_index
from featcache.store.journal import JOURNAL
from featcache.store.leases import LEASE
from featcache.store.locks import LOCK, Hold, locked
from featcache.store.manifest import IndexEntry, Manifest, Plan, ShardEntry, StreamEntry
from featcache.store.shards import Shard, encode_shard, said_to_hold

_SPARE_BYTES = 64 << 20


class Writer:
    """The one process that may change a cache; made by `writing`."""

    def __init__(self, folder: Path, manifest: Manifest, hold: Hold) -> None:
        self.folder = folder
        self.manifest = manifest
        self.hold = hold
        self._readers: dict[str, StreamReader] = {}

    def reader(self, key: str) -> StreamReader:
        """The committed rows of a stream, as of now."""
        entry = self.manifest.streams[key]
        if key not in self._readers or self._readers[key].entry is not entry:
            self._readers[key] = StreamReader(self.folder, entry, trust=False)
        return self._readers[key]

    def commit(self, manifest: Manifest) -> None:
        """Make a manifest the one in force, if it differs."""
        if manifest != self.manifest or not (self.folder / manifests.MANIFEST).exists():
            manifests.commit(self.folder, manifest, self.hold.check)
            self.manifest = manifest

    def index(self) -> Index | None:
        """The index in force, its hash checked; None before the first commit."""
        entry = self.manifest.index
        return None if entry is None else open_index(self.folder, entry, trust=False)

    def with_index(
        self, index: Index, source: Mapping[str, str], backbone: Mapping[str, Any]
    ) -> Manifest:
        """Write an index; returns the manifest that would put it in force.

        Source and backbone are named as they are reached now; neither decides a value.
        """
        self.hold.check()
        file, sha256 = write_index(self.folder, index, self._check)
        return replace(
            self.manifest,
            index=IndexEntry(file, sha256, len(index)),
            source=dict(source),
            backbone=dict(backbone),
        )

    def pending(
        self, index: Index, stream: Stream, plan: Plan | None = None
    ) -> npt.NDArray[np.void]:
        """Sorted distinct contents of an index that a stream lacks, or would without a plan."""
        wanted, entry = index.contents(stream.view), self.manifest.streams.get(stream.key)
        if entry is None:
            return wanted
        reader = self.reader(stream.key)
        if plan is None:
            return plans.without(wanted, reader.known())
        lacking = plans.without(wanted, reader.known(but_for=plan.numbers))
        return plans.without(lacking, opaque(self._dropped(entry, plan)))

    def candidates(
        self, index: Index, stream: Stream, plan: Plan
    ) -> Iterator[npt.NDArray[np.void]]:
        """Sorted contents that an open plan may cover; its own digest says which it does.

        First what the stream would lack without it. Where shards of other plans are gone with their
        files, so that these lack something too, an earlier index can tell what was there to be
        planned; it stays until a prune.
        """
        lacking = self.pending(index, stream, plan)
        yield lacking
        for path in sorted(self.folder.glob("index-*.h5")):
            with contextlib.suppress(StoreError):
                yield lacking[np.isin(lacking, read_index(path).contents(stream.view))]

    def _dropped(self, entry: StreamEntry, plan: Plan) -> npt.NDArray[np.uint8]:
        """Contents of dropped shards of other open plans, as far as their files still tell.

        Where they tell wrong, the plan's digest of its contents does not match.
        """
        there = {shard.number for shard in entry.shards}
        others = [p.numbers for p in entry.open_plans if p != plan]
        numbers = [
            number
            for number in _numbers_in(self.folder, entry)
            if number not in there and any(number in own for own in others)
        ]
        paths = (shard_path(self.folder, entry.stream, number) for number in numbers)
        return np.concatenate([hashes_of(()), *map(said_to_hold, paths)])

    def write_shard(self, stream: Stream, number: int, shard: Shard) -> ShardEntry:
        """Write a shard's file durably; it is in force once a manifest with the entry is."""
        self.hold.check()
        path = shard_path(self.folder, stream, number)
        make_folder(path.parent)
        sha256 = write_durably(path, encode_shard(stream, shard), self._check)
        return ShardEntry(number, len(shard.features), len(shard.skipped), sha256)

    def keep_calibration(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Put the pixels of an int8 network into a cache, before its first commit names them."""
        if self.manifest.index is None:
            self.hold.check()
            write_calibration(self.folder, pixels, self._check)

    def note(self, event: str, **facts: Any) -> None:
        """Append a line to the journal, unless the folder is someone else's by now."""
        with contextlib.suppress(StoreError):
            self.hold.check()
            journal.note(self.folder, event, **facts)

    def _check(self, draft: Path) -> None:
        """Refuse to put a file in place where someone else may write by now."""
        self.hold.check()

    def commit_shards(self, shards: Mapping[Stream, tuple[int, Shard]], *, last: bool) -> None:
        """Write shards of the plans that are carried out and put all in force at once.

        Args:
            shards: number and rows, by stream.
            last: whether their plans are finished with them.
        """
        manifest = self.manifest
        for stream, (number, shard) in shards.items():
            added = self.write_shard(stream, number, shard)
            entry = manifest.streams[stream.key]
            manifest = manifest.with_stream(entry.with_shard(added, last=last))
        self.commit(manifest)


def _numbers_in(folder: Path, entry: StreamEntry) -> list[int]:
    """Numbers of the files of a stream's shards, in force or not."""
    files = shard_path(folder, entry.stream, 0).parent.glob("*.h5")
    return [int(path.stem) for path in files if path.stem.isdecimal() and len(path.stem) < 20]


def check_space(
    folder: Path, size: int, otherwise: str = "choose another place with --out"
) -> None:
    """Refuse what would not fit on the disk.

    Args:
        folder: where it is to be written.
        size: bytes that are to be written.
        otherwise: what one could do instead of freeing some space.

    Raises:
        DiskSpaceError: says how much is needed and how much is free.
    """
    with naming(folder):
        free = shutil.disk_usage(folder).free
    needed = size + _SPARE_BYTES
    if needed > free:
        raise DiskSpaceError(
            f"{folder}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; "
            f"free some space, or {otherwise}"
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
    refuse_links(folder)
    with locked(folder) as hold:
        with naming(folder):
            sync_folder(folder)  # a manifest that a killed process put in place is in force
        remove_leftovers(folder, *(folder / SHARDS).glob("*"))
        try:
            manifest = manifests.load(folder)
        except CacheMissingError:
            manifest = Manifest(recipe, dict(backbone), dict(source))
        refuse_mismatch(folder, manifest, recipe, source, replace_source=replace_source)
        yield Writer(folder, manifest, hold)


def refuse_foreign_folder(folder: Path) -> None:
    """Refuse to put a cache among files that are not one.

    Raises:
        CacheMismatchError: the folder holds other things.
    """
    if (folder / manifests.MANIFEST).exists():
        return
    if folder.exists() and not folder.is_dir():
        raise CacheMismatchError(f"{folder}: is a file; give --out a folder")
    with naming(folder):
        present = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    ours = (LOCK, SHARDS, JOURNAL, CALIBRATION)
    starts = (TEMPORARY, LEASE, "index-")
    foreign = [name for name in present if name not in ours and not name.startswith(starts)]
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
