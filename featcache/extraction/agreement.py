"""Before a cache is extended by other versions or another engine: do they still agree?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featcache.engines import parity
from featcache.errors import CacheMismatchError
from featcache.extraction.pipeline import Slot
from featcache.extraction.scanning import Places
from featcache.extraction.shards import ExtractedShard
from featcache.recipe import Precision, differing_fields
from featcache.store.cache import StreamReader
from featcache.store.index import Index, opaque
from featcache.store.shards import Shard

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
    compute: Callable[[list[Slot]], ExtractedShard],
    changed: list[str],
    precision: Precision = "fp32",
) -> bool:
    """Compute a few committed rows again and compare.

    Args:
        folder: the cache, to be named.
        reader: the rows.
        index: the samples there are.
        compute: gives the rows of some slots as they are computed now.
        changed: what changed since the rows were computed.
        precision: of the rows.

    Returns:
        Whether there were any that a sample still has; else nothing vouches for those rows.

    Raises:
        CacheMismatchError: a row disagrees; names by how much, and what changed since.
    """
    keys = opaque(reader.hashes)
    used = np.flatnonzero(np.isin(keys, index.unique_hashes))
    if not len(used):
        return False
    chosen = used[np.linspace(0, len(used) - 1, min(ROWS, len(used))).astype(np.int64)]
    again = compute(Places(index).slots(keys[chosen]))
    advice = "go back to what made the cache, or extract into another --out"
    for slot, why in again.unusable.items():
        if why.permanent:
            raise CacheMismatchError(
                f"{folder}: {slot.path} has a cached row and gives none now ({why.reason}), since "
                f"{'; '.join(changed)}; {advice}"
            )
    worst = _worst_difference(reader, again.shards[0])
    allowed = max(TOLERANCE[reader.entry.stream.dtype], parity.TOLERANCE[precision])
    if worst is None or not worst <= allowed:
        found = (
            "not one of a few cached rows could be computed again to compare them"
            if worst is None
            else f"rows computed again differ by {worst:.2g} of their length from the cached ones"
        )
        raise CacheMismatchError(f"{folder}: {found}, since {'; '.join(changed)}; {advice}")
    return True


def _worst_difference(reader: StreamReader, again: Shard) -> float | None:
    """Largest ||a - b|| / ||b|| of a row; None if there is no row to compare."""
    if not len(again.hashes):
        return None
    kept = reader.read(reader.positions(again.hashes))
    return float(parity.relative_differences(again.features, kept).max())
