"""The unit of work: the rows of one shard of each stream of a pass. Idempotent, whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.engines import Engine
from featcache.extraction.kept import outputs_of, views_of
from featcache.extraction.pipeline import Slot, Unusable
from featcache.recipe import Stream
from featcache.store.index import hashes_of
from featcache.store.shards import Shard, to_stored
from featcache.store.strings import Strings

NOT_FINITE = "the backbone gave NaN or infinite features for it"


@dataclass(frozen=True, eq=False)
class ExtractedShard:
    """A shard of each stream and what is not in them.

    Attributes:
        shards: rows and remembered skips, stream by stream.
        unusable: why each slot is empty that is so in any stream, the ones not remembered included.
    """

    shards: tuple[Shard, ...]
    unusable: dict[Slot, Unusable]


def extract_shard(
    engine: Engine,
    inputs: Iterator[npt.NDArray[Any] | Unusable],
    slots: Sequence[Slot],
    shapes: Mapping[Stream, tuple[int, ...]],
    *,
    blank: npt.NDArray[Any],
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> ExtractedShard:
    """Compute the rows of one shard of each of some streams, in one pass.

    Batches never cross shards and are always full: the last one is padded with zeros, and an empty
    slot is computed as zeros and dropped, so that no row depends on its neighbours' fate. Nor does
    a row depend on which other streams are computed beside its own.

    Args:
        engine: runs what gives the outputs of these streams; must be entered.
        inputs: gives what the engine takes of `slots` next, in order: (V, ...), pixels or
            activations of each view of these streams.
        slots: what the shards are to hold.
        shapes: of one row, by stream.
        blank: what the engine takes of one empty slot, all zeros.
        batch_size: rows a forward pass.
        on_batch: called with the number of slots done.
    """
    features = {
        stream: np.full((len(slots), *shape), np.nan, np.float32)
        for stream, shape in shapes.items()
    }
    outputs, views = outputs_of(shapes), views_of(shapes)
    unusable: dict[int, Unusable] = {}
    for start in range(0, len(slots), batch_size):
        batches = np.zeros((len(views), batch_size, *blank.shape), blank.dtype)
        stop = min(start + batch_size, len(slots))
        for i in range(start, stop):
            outcome = next(inputs)
            if isinstance(outcome, Unusable):
                unusable[i] = outcome
            else:
                batches[:, i - start] = outcome
        for view, batch in zip(views, batches, strict=True):
            given = dict(zip(outputs, engine.run_all(batch), strict=True))
            for stream in (stream for stream in shapes if stream.view == view):
                rows = given[stream.cut, stream.pooling]
                features[stream][start:stop] = rows[: stop - start]
        if on_batch:
            on_batch(stop - start)
    empty = {stream: _not_finite(rows) | unusable for stream, rows in features.items()}
    return ExtractedShard(
        tuple(_assemble(rows, slots, empty[stream], stream) for stream, rows in features.items()),
        {slots[i]: why for each in empty.values() for i, why in sorted(each.items())},
    )


def _not_finite(features: npt.NDArray[np.float32]) -> dict[int, Unusable]:
    finite = np.isfinite(features).reshape(len(features), -1).all(axis=1)
    return {i: Unusable(NOT_FINITE) for i in np.flatnonzero(~finite).tolist()}


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
