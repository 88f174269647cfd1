"""The unit of work: the rows of one shard of each stream of a pass. Idempotent, whoever runs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.engines import Engine
from featcache.extraction.kept import outputs_of, views_of
from featcache.extraction.pipeline import Slot, Unusable
from featcache.recipe import Stream, View
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


def extract_shards(
    engine: Engine,
    inputs: Iterator[npt.NDArray[Any] | Unusable],
    shards: Iterable[Sequence[Slot]],
    shapes: Mapping[Stream, tuple[int, ...]],
    *,
    blank: npt.NDArray[Any],
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> Iterator[ExtractedShard | None]:
    """Compute the rows of shards of each of some streams, in one pass, batch by batch.

    Batches never cross shards and are always full: the last one is padded with zeros, and an empty
    slot is computed as zeros and dropped, so that no row depends on its neighbours' fate. Nor does
    a row depend on which other streams are computed beside its own.

    Args:
        engine: runs what gives the outputs of these streams; must be entered.
        inputs: gives what the engine takes of the shards' slots, in order: (V, ...), pixels or
            activations of each view of these streams.
        shards: what each is to hold.
        shapes: of one row, by stream.
        blank: what the engine takes of one empty slot, all zeros.
        batch_size: rows a forward pass.
        on_batch: called with the number of slots done.

    Yields:
        After each batch the shard that it completes, None where it completes none.
    """
    filling = _Filling(inputs, shapes, blank, batch_size)
    for outputs in engine.run_each(filling.batches(shards)):
        batch = filling.sent.popleft()
        batch.keep(outputs)
        if on_batch and batch.count:
            on_batch(batch.count)
        yield batch.shard.extracted() if batch.completes else None


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
    """The rows of a single shard of each of some streams; see `extract_shards`."""
    steps = extract_shards(
        engine, inputs, [slots], shapes, blank=blank, batch_size=batch_size, on_batch=on_batch
    )
    (shard,) = (step for step in steps if step is not None)
    return shard


class _Shard:
    """A shard of each stream while it is computed."""

    def __init__(self, slots: Sequence[Slot], shapes: Mapping[Stream, tuple[int, ...]]) -> None:
        self.slots = slots
        self.unusable: dict[int, Unusable] = {}
        self.features = {
            stream: np.full((len(slots), *shape), np.nan, np.float32)
            for stream, shape in shapes.items()
        }

    def extracted(self) -> ExtractedShard:
        """What was computed."""
        slots = self.slots
        empty = {s: _not_finite(rows) | self.unusable for s, rows in self.features.items()}
        return ExtractedShard(
            tuple(_assemble(rows, slots, empty[s], s) for s, rows in self.features.items()),
            {slots[i]: why for each in empty.values() for i, why in sorted(each.items())},
        )


@dataclass(frozen=True, eq=False)
class _Batch:
    """One view of some slots of a shard, on its way through an engine.

    Attributes:
        shard: which one. rows: of it.
        view: what the pixels are of.
        count: of slots that are done with it; 0 for all views but the last.
        completes: whether it is the last of its shard.
    """

    shard: _Shard
    rows: slice
    view: View
    count: int
    completes: bool

    def keep(self, outputs: Sequence[npt.NDArray[np.float32]]) -> None:
        """Put what an engine gave where it belongs."""
        features = self.shard.features
        given = dict(zip(outputs_of(features), outputs, strict=True))
        for stream in (stream for stream in features if stream.view == self.view):
            rows = features[stream][self.rows]
            rows[:] = given[stream.cut, stream.pooling][: len(rows)]


class _Filling:
    """Batches from what is loaded.

    Attributes:
        sent: what was handed to the engine and has not come back.
    """

    def __init__(
        self,
        inputs: Iterator[npt.NDArray[Any] | Unusable],
        shapes: Mapping[Stream, tuple[int, ...]],
        blank: npt.NDArray[Any],
        batch_size: int,
    ) -> None:
        self.sent = deque[_Batch]()
        self._inputs, self._shapes, self._blank, self._size = inputs, shapes, blank, batch_size
        self._views = views_of(shapes)

    def batches(self, shards: Iterable[Sequence[Slot]]) -> Iterator[npt.NDArray[Any]]:
        """(B, ...) of each view, batch by batch; each is noted in `sent`."""
        for slots in shards:
            shard = _Shard(slots, self._shapes)
            for start in range(0, len(slots), self._size):
                rows = slice(start, min(start + self._size, len(slots)))
                for view, batch in zip(self._views, self._loaded(shard, rows), strict=True):
                    last = view == self._views[-1]
                    count, completes = rows.stop - rows.start, rows.stop == len(slots)
                    noted = _Batch(shard, rows, view, last * count, completes=last and completes)
                    self.sent.append(noted)
                    yield batch

    def _loaded(self, shard: _Shard, rows: slice) -> npt.NDArray[Any]:
        """(V, B, ...) of some slots; zeros where there is none."""
        shape = (len(self._views), self._size, *self._blank.shape)
        batches = np.zeros(shape, self._blank.dtype)
        for place, i in enumerate(range(rows.start, rows.stop)):
            outcome = next(self._inputs)
            if isinstance(outcome, Unusable):
                shard.unusable[i] = outcome
            else:
                batches[:, place] = outcome
        return batches


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
