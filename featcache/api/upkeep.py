"""`verify` and `prune`: whether a cache (or a classifier) is whole, and what it no longer needs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from featcache.api.requests import PathLike
from featcache.errors import ClassifierError
from featcache.results import DamagedFile, PruneResult, VerifyResult, ViewSet
from featcache.store.cache import Cache
from featcache.store.upkeep import Damage, prune_files, verify_files


def verify(cache: PathLike) -> VerifyResult:
    """Hash every committed file of a cache again, or check a classifier's file.

    Args:
        cache: folder of a cache, or a .fc file.

    Raises:
        CacheMissingError, CacheDamagedError: the manifest itself cannot be used.
    """
    started = time.perf_counter()
    path = Path(cache)
    files, size, damage = _classifier(path) if path.is_file() else verify_files(path)
    return VerifyResult(
        cache=os.fspath(cache),
        files=files,
        bytes=size,
        damaged=tuple(DamagedFile(d.path, d.problem) for d in damage),
        seconds=round(time.perf_counter() - started, 3),
    )


def _classifier(path: Path) -> tuple[int, int, list[Damage]]:
    """Files, bytes and damage of a classifier."""
    from featcache.classifier import files  # a cache is verified without a network's libraries

    try:
        files.verify(path)
    except ClassifierError as error:
        return 1, path.stat().st_size, [Damage(str(path), str(error).removeprefix(f"{path}: "))]
    return 1, path.stat().st_size, []


def prune(cache: PathLike) -> PruneResult:
    """Remove rows whose content no sample has any more, and files that nothing names.

    Args:
        cache: folder of a cache.

    Raises:
        CacheBusyError: another process writes it. StoreError: it cannot be used.
    """
    done = prune_files(Path(cache))
    streams = Cache(Path(cache)).manifest.streams.values()
    views = ViewSet.all_of(entry.stream.view for entry in streams)
    return PruneResult(
        os.fspath(cache), done.files, done.rows, done.bytes_freed, views, done.sweeps
    )
