"""Before a cache is extended by other versions or another engine: do they still agree?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featcache.engines import Engine
from featcache.errors import CacheMismatchError
from featcache.extraction.pipeline import Slot, stream_pixels
from featcache.extraction.scanning import first_paths
from featcache.extraction.shards import extract_shard
from featcache.images.sources import Source
from featcache.recipe import Preprocessing, differing_fields
from featcache.store.cache import StreamReader
from featcache.store.index import Index, opaque

ROWS = 8
"""Rows that are computed again."""

TOLERANCE = {"float32": 1e-3, "float16": 5e-3}
"""Largest ||a - b|| / ||b|| of a row, by stored dtype (float16 itself rounds by 5e-4 a value)."""


def what_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences of provenance that could change a value beyond rounding."""
    decisive = ("engine", "device", "versions")
    return differing_fields({k: now[k] for k in decisive}, {k: before[k] for k in decisive})


def refuse_disagreement(
    folder: Path,
    reader: StreamReader,
    index: Index,
    source: Source,
    preprocessing: Preprocessing,
    engine: Engine,
    batch_size: int,
    changed: list[str],
) -> None:
    """Compute a few committed rows again and compare.

    Raises:
        CacheMismatchError: a row disagrees; names by how much, and what changed since.
    """
    keys = opaque(reader.hashes)
    present = np.flatnonzero(np.isin(keys, index.unique_hashes))
    chosen = present[np.linspace(0, len(present) - 1, min(ROWS, len(present))).astype(np.int64)]
    paths = first_paths(index, keys[chosen])
    slots = [Slot(content, path) for content, path in paths.items()]
    pixels = stream_pixels(source, preprocessing, slots, threads=1, ahead=ROWS)
    again = extract_shard(
        engine,
        pixels,
        slots,
        reader.entry.stream,
        reader.shape,
        size=preprocessing.size,
        batch_size=batch_size,
    ).shard
    kept = (
        reader.read(reader.positions(again.hashes))
        .astype(np.float64)
        .reshape(len(again.hashes), -1)
    )
    new = again.features.astype(np.float64).reshape(len(again.hashes), -1)
    norms = np.maximum(np.linalg.norm(kept, axis=1), np.finfo(np.float32).tiny)
    worst = float((np.linalg.norm(new - kept, axis=1) / norms).max(initial=0.0))
    if worst > TOLERANCE[reader.entry.stream.dtype]:
        raise CacheMismatchError(
            f"{folder}: rows computed again differ by {worst:.2g} of their length from the cached "
            f"ones, since {'; '.join(changed)}; go back to what made the cache, or extract into "
            "another --out"
        )
