"""`repair`: a cache without what is damaged, and with what can be computed again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from featcache.api.extracting import compiled_folder
from featcache.api.requests import PathLike, Progress
from featcache.backbones.registry import Backbone, load_from_locator
from featcache.classifier.joined import trusted_name
from featcache.errors import BackboneError, CacheMismatchError, ClassifierError, SourceError
from featcache.extraction.deriving import derive
from featcache.extraction.running import Job, reindex, run
from featcache.images.sources import source_from_locator
from featcache.recipe import Stream
from featcache.results import DamagedFile, RepairResult
from featcache.store import manifest as manifests
from featcache.store.cache import Cache
from featcache.store.upkeep import Damage, drop_damage, verify_files

_UNABLE = (SourceError, BackboneError, ClassifierError, CacheMismatchError)
"""Why rows cannot be computed again, which leaves a cache whole that lacks them."""


def repair(
    cache: PathLike,
    *,
    backbone: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairResult:
    """Drop what is damaged in a cache, and compute again what is missing.

    Damaged or missing shards, and results, are dropped; a damaged index is rebuilt from the
    pictures. Then all rows that are missing are computed as an extraction would, from the same
    pictures by the same network, or derived from deeper activations: byte for byte as before where
    pictures, versions and engine are those of then. Without the pictures or the network the cache
    is whole but lacks rows, and `reasons` say why.

    Args:
        cache: folder of a cache.
        backbone: `package.module:factory`, where the network is one of your own.
        dry_run: only tell what is damaged.
        progress: called with (stage, done, total).

    Raises:
        CacheMissingError, CacheDamagedError: the manifest itself cannot be used; without it nothing
            says what the other files are.
        CacheBusyError: another process writes the cache. StoreError, EngineError: it failed.
    """
    started = time.perf_counter()
    folder = Path(cache)
    damage = verify_files(folder)[2] if dry_run else drop_damage(folder)
    mending = _Mending(folder, backbone, progress)
    kept = mending.rows()
    reasons = () if dry_run else mending.run(damage)
    lost_index = any(found.is_index for found in damage)
    return RepairResult(
        cache=os.fspath(cache),
        dry_run=dry_run,
        damaged=tuple(DamagedFile(found.path, found.problem) for found in damage),
        dropped=sum(found.shard.rows for found in damage if found.shard),
        computed=mending.rows() - kept,
        missing=None if dry_run or (lost_index and not mending.indexed) else mending.missing(),
        results=tuple(found.result for found in damage if found.result),
        reindexed=mending.indexed,
        reasons=reasons,
        seconds=round(time.perf_counter() - started, 3),
    )


class _Mending:
    """What is done to a cache once its damage is dropped.

    Attributes:
        indexed: whether a damaged index was rebuilt.
    """

    def __init__(self, folder: Path, backbone: str | None, progress: Progress | None) -> None:
        self.indexed = False
        self._folder, self._backbone, self._progress = folder, backbone, progress

    def rows(self) -> int:
        """Of all streams together."""
        streams = manifests.load(self._folder).streams.values()
        return sum(shard.rows for entry in streams for shard in entry.shards)

    def missing(self) -> int:
        """Rows that are to be there and are not, of all streams together."""
        cache = Cache(self._folder)
        return sum(cache.missing(cache.reader(key)) for key in cache.manifest.streams)

    def run(self, damage: Sequence[Damage]) -> tuple[str, ...]:
        """Rebuild and compute what is missing; returns why not all of it could be."""
        if any(found.is_index for found in damage) and (reason := _tried(self._reindex)):
            return (f"the index cannot be rebuilt, so nothing can be computed: {reason}",)
        if lost := [found for found in damage if found.is_calibration]:
            why = f"{lost[0].path}: {lost[0].problem}"
            return (f"an int8 network cannot be made again: {why}",)
        steps = (self._from_pixels, self._derived)
        return tuple(dict.fromkeys(why for why in map(_tried, steps) if why is not None))

    def _reindex(self) -> str | None:
        source = source_from_locator(manifests.load(self._folder).source)
        reindex(self._folder, source, self._progress)
        self.indexed = True

    def _from_pixels(self) -> str | None:
        streams = [stream for stream in self._lacking() if not stream.parent]
        if not streams:
            return None
        manifest = manifests.load(self._folder)
        job = Job(
            folder=self._folder,
            source=source_from_locator(manifest.source),
            backbone=self._network(),
            decoder=manifest.recipe.decoder,
            precision=manifest.recipe.precision,
            compiled=compiled_folder(),
            streams=tuple(streams),
            as_indexed=True,
        )
        unread = dict(run(job, self._progress).unread)
        first = next(iter(unread.items()), None)
        return f"{len(unread)} pictures, as {first[0]}: {first[1]}" if first else None

    def _derived(self) -> str | None:
        streams = [stream for stream in self._lacking() if stream.parent]
        if streams:
            derive(self._folder, self._network(), streams, progress=self._progress)

    def _lacking(self) -> list[Stream]:
        """Streams that lack rows."""
        cache = Cache(self._folder)
        readers = map(cache.reader, cache.manifest.streams)
        return [reader.entry.stream for reader in readers if cache.missing(reader)]

    def _network(self) -> Backbone:
        manifest = manifests.load(self._folder)
        name = trusted_name(manifest.backbone["name"], self._backbone)
        return load_from_locator(
            name, manifest.backbone["locator"], preprocessing=manifest.recipe.preprocessing
        )


def _tried(step: Callable[[], str | None]) -> str | None:
    """Why a step could not be done; None where it was."""
    try:
        return step()
    except _UNABLE as error:
        return str(error)
