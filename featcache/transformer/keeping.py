"""Features that were computed once: in this process's memory, or in a cache in a folder."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheBusyError, CacheIncompleteError, CacheMissingError
from featcache.extraction.pipeline import Slot
from featcache.extraction.running import run
from featcache.naming import folder_safe
from featcache.store.cache import Cache
from featcache.store.index import hashes_of
from featcache.transformer.given import GivenSource
from featcache.transformer.networks import Network

MEMORY = "memory"
"""Names this process's memory as the place where features are kept."""

_MOST_BYTES = 1 << 30
"""Of features in memory; those that were used least lately go first."""

Rows = npt.NDArray[np.float32]


def rows_of(network: Network, source: GivenSource, cache: str | os.PathLike[str] | None) -> Rows:
    """(n, D) features of the pictures of a source; only what is not kept yet is computed.

    Args:
        network: what computes them.
        source: the pictures.
        cache: "memory", a folder, or None, which keeps nothing.

    Raises:
        PictureError: a picture cannot be used; names it.
        EngineError, StoreError: says what to do.
    """
    if not len(source):
        return np.empty((0, int(np.prod(network.shape))), np.float32)
    if cache is None:
        return _computed(network, source)
    if cache == MEMORY:
        return _memory.rows(network, source)
    name = f"{folder_safe(network.backbone.name)}-{network.recipe.key[:12]}"
    return _from_folder(network, source, Path(cache) / name)


def _computed(network: Network, source: GivenSource) -> Rows:
    slots = _slots(source)
    rows = network.rows(source, list(slots.values())).reshape(len(slots), -1)
    places = {content: place for place, content in enumerate(slots)}
    return rows[[places[content] for content in source.contents]]


def _slots(source: GivenSource) -> dict[bytes, Slot]:
    """Each content once, in the order in which they appear."""
    named = zip(source.contents, source.paths, strict=True)
    return {content: Slot(content, path) for content, path in named}


class _Memory:
    """Rows by the key of their stream and the content of their picture."""

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[str, bytes], Rows] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = 0

    def rows(self, network: Network, source: GivenSource) -> Rows:
        """(n, D); what is missing is computed and kept."""
        stream = network.stream.key
        slots = _slots(source)
        found = {
            content: row for content in slots if (row := self._get(stream, content)) is not None
        }
        missing = [slot for content, slot in slots.items() if content not in found]
        if missing:
            computed = network.rows(source, missing).reshape(len(missing), -1)
            for slot, row in zip(missing, computed, strict=True):
                found[slot.content] = row
                self._put(stream, slot.content, row.copy())
        return np.stack([found[content] for content in source.contents])

    def _get(self, stream: str, content: bytes) -> Rows | None:
        with self._lock:
            row = self._rows.get((stream, content))
            if row is not None:
                self._rows.move_to_end((stream, content))
            return row

    def _put(self, stream: str, content: bytes, row: Rows) -> None:
        with self._lock:
            before = self._rows.pop((stream, content), None)
            self._rows[stream, content] = row
            self._bytes += row.nbytes - (0 if before is None else before.nbytes)
            while self._bytes > _MOST_BYTES:
                _, oldest = self._rows.popitem(last=False)
                self._bytes -= oldest.nbytes


_memory = _Memory()


def _from_folder(network: Network, source: GivenSource, folder: Path) -> Rows:
    """(n, D) of a cache, which is extended first where rows are missing."""
    try:
        return _read(network, source, folder)
    except (CacheMissingError, CacheIncompleteError):
        pass
    try:
        run(network.job(folder, source))
    except CacheBusyError:  # another process adds to it, of the same folds perhaps
        return _computed(network, source)
    return _read(network, source, folder)


def _read(network: Network, source: GivenSource, folder: Path) -> Rows:
    """(n, D) of a cache that has them all; no lock is needed to read.

    Raises:
        CacheMissingError, CacheIncompleteError: rows are missing.
    """
    cache = Cache(folder)
    if network.stream.key not in cache.manifest.streams:
        raise CacheMissingError(f"{folder}: no activations of cut {network.stream.cut!r}")
    reader = cache.reader(network.stream.key)
    positions = reader.positions(hashes_of(source.contents))
    return reader.read(positions).reshape(len(source), -1)
