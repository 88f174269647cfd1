"""The unit of work: the rows of one shard, computed. Idempotent, and free of where it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.engines import Engine
from featcache.extraction.pipeline import Pixels, Slot, Unusable
from featcache.recipe import Stream
from featcache.store.index import hashes_of
from featcache.store.shards import Shard, to_stored
from featcache.store.strings import Strings

NOT_FINITE = "the backbone gave NaN or infinite features for it"


@dataclass(frozen=True, eq=False)
class ExtractedShard:
    """A shard and what is not in it.

    Attributes:
        shard: rows and remembered skips.
        unusable: why each empty slot is empty, the ones not remembered included.
    """

    shard: Shard
    unusable: dict[Slot, Unusable]


def extract_shard(
    engine: Engine,
    pixels: Iterator[Pixels | Unusable],
    slots: Sequence[Slot],
    stream: Stream,
    shape: tuple[int, ...],
    *,
    size: tuple[int, int],
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> ExtractedShard:
    """Compute the rows of one shard.

    Batches never cross shards and are always full: the last one is padded with zeros, and an empty
    slot is computed as zeros and dropped, so that no row depends on its neighbours' fate.

    Args:
        engine: runs the stem; must be entered.
        pixels: gives the pixels of `slots` next, in order.
        slots: what the shard is to hold.
        stream: for the stored dtype.
        shape: of one row.
        size: (height, width) of the network's input.
        batch_size: rows a forward pass.
        on_batch: called with the number of slots done.
    """
    features = np.full((len(slots), *shape), np.nan, np.float32)
    unusable: dict[int, Unusable] = {}
    for start in range(0, len(slots), batch_size):
        batch = np.zeros((batch_size, *size, 3), np.uint8)
        stop = min(start + batch_size, len(slots))
        for i in range(start, stop):
            outcome = next(pixels)
            if isinstance(outcome, Unusable):
                unusable[i] = outcome
            else:
                batch[i - start] = outcome
        features[start:stop] = engine.run(batch)[: stop - start]
        if on_batch:
            on_batch(stop - start)
    finite = np.isfinite(features).reshape(len(slots), -1).all(axis=1)
    for i in np.flatnonzero(~finite).tolist():
        unusable.setdefault(i, Unusable(NOT_FINITE))
    return ExtractedShard(
        _assemble(features, slots, unusable, stream),
        {slots[i]: why for i, why in sorted(unusable.items())},
    )


def _assemble(
    features: npt.NDArray[np.float32],
    slots: Sequence[Slot],
    unusable: dict[int, Unusable],
    stream: Stream,
) -> Shard:
    kept = [i for i in range(len(slots)) if i not in unusable]
    remembered = [i for i in sorted(unusable) if unusable[i].permanent]
    return Shard(
        features=to_stored(features[kept], stream),
        hashes=hashes_of(slots[i].content for i in kept),
        skipped=hashes_of(slots[i].content for i in remembered),
        reasons=Strings.of(unusable[i].reason for i in remembered),
    )
