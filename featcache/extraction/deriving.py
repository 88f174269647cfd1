"""Activations at a cut, computed from the cached ones of a deeper cut instead of from pixels.

The frozen units in between run on rows that the cache holds: the pictures need not be there, and
nothing below the deeper cut is run again. What is derived says so in its key, since rows in half
precision give what pixels give up to rounding only. Index and skips stay as they are; plan, shards
and commits are those of an extraction, with the same guarantees.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.backbones.pooling import between
from featcache.backbones.registry import Backbone
from featcache.backbones.tracing import Traced
from featcache.engines import Engine, make_engine, versions
from featcache.errors import CacheIncompleteError, EngineError
from featcache.extraction import passes
from featcache.extraction.agreement import refuse_disagreement, what_changed
from featcache.extraction.jobs import DEFAULT_BATCH, Progress
from featcache.extraction.kept import outputs_of, traced_of
from featcache.extraction.pipeline import Slot, Unusable
from featcache.extraction.scanning import Places
from featcache.extraction.shards import ExtractedShard, extract_shard
from featcache.recipe import Stream
from featcache.store import manifest as manifests
from featcache.store import plan as plans
from featcache.store.cache import StreamReader
from featcache.store.index import hashes_of
from featcache.store.manifest import Plan, StreamEntry
from featcache.store.writing import Writer, check_space, writing

GONE = "the activation that it was derived from is gone"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Means:
    """How rows are derived.

    Attributes:
        device: "auto" or a name.
        batch_size: rows a forward pass; None takes the open plan's, else `DEFAULT_BATCH`, or as
            many as are missing.
        shard_rows: slots a shard, rounded up to whole batches; None lets the plan decide.
    """

    device: str = "auto"
    batch_size: int | None = None
    shard_rows: int | None = None


def derived(parent: Stream, cut: str) -> Stream:
    """The activation at a cut, in half precision, derived from that of a deeper cut."""
    return replace(parent, cut=cut, dtype="float16", parent=parent.key)


def derive(
    folder: Path,
    backbone: Backbone,
    streams: Sequence[Stream],
    means: Means = Means(),
    progress: Progress | None = None,
) -> int:
    """Compute the rows that derived streams lack and that their parents have.

    Args:
        folder: the cache.
        backbone: its network.
        streams: what is to be there; see `derived`.
        means: how.
        progress: called with ("derive", done, total).

    Returns:
        Rows computed, of all streams together.

    Raises:
        BackboneError: a cut is not above its parent's.
        CacheMismatchError: the cache is of another network, or derived rows do not agree any more.
        StoredOverflowError, StoreError, EngineError: each says what to do.
    """
    started = time.perf_counter()
    manifest = manifests.load(folder)
    recipe = backbone.recipe_like(manifest.recipe)
    with writing(folder, recipe, manifest.backbone, manifest.source) as writer:
        deriving = Deriving(writer, traced_of(backbone), streams, means, progress)
        deriving.run()
        seconds = round(time.perf_counter() - started, 3)
        writer.note("derive", seconds=seconds, computed=deriving.computed)
    return deriving.computed


class Deriving:
    """The computation of what derived streams lack.

    Args:
        writer: holds the cache.
        traced: its network.
        streams: derived ones; their parents must be in the cache.
        means: how.
        progress: see `derive`.

    Attributes:
        computed: rows of all streams together.
    """

    def __init__(
        self,
        writer: Writer,
        traced: Traced,
        streams: Sequence[Stream],
        means: Means,
        progress: Progress | None,
    ) -> None:
        index = writer.index()
        if index is None:
            raise CacheIncompleteError(
                f"{writer.folder}: nothing was extracted yet; run `featcache extract`"
            )
        self.computed = 0
        self._writer, self._traced, self._means = writer, traced, means
        self._index, self._places, self._progress = index, Places(index), progress
        self._shapes = {s: traced.shape(traced.ends[s.cut]) for s in streams}
        self._processed = 0

    def run(self) -> None:
        """Compute and commit shards until no parent has a row that its stream lacks.

        Open plans are carried out first.
        """
        while going_on := passes.resumed(self._resumable()):
            for begun in going_on:
                self._carry_out(begun)
        groups = passes.grouped(self._lacking())
        size = sum(len(missing) * passes.row_bytes(entries) for entries, missing in groups)
        check_space(self._writer.folder, size)
        for entries, missing in groups:
            self._carry_out(self._planned(entries, missing))

    def _resumable(self) -> Iterator[passes.Lack]:
        """Streams of which an open plan can be continued just as it was begun, and its contents."""
        for stream in self._shapes:
            entry = self._entry(stream)
            for plan in entry.open_plans:
                candidates = self._writer.candidates(self._index, stream, plan)
                pending = plans.covered(plan, (self._of_parent(stream, c) for c in candidates))
                if pending is not None and self._suits(stream, plan):
                    yield entry.going_on(plan), pending
                    break

    def _suits(self, stream: Stream, plan: Plan) -> bool:
        means = self._means
        if plan.versions != versions() or means.batch_size not in (None, plan.batch_size):
            return False
        if means.device not in ("auto", plan.device):
            return False
        try:
            self._engine((stream,), plan)
        except EngineError:
            return False
        return True

    def _lacking(self) -> Iterator[passes.Lack]:
        """Each stream's entry, ready to be extended, and the contents it lacks."""
        for stream in self._shapes:
            entry = self._entry(stream).settled()
            missing = self._of_parent(stream, self._writer.pending(self._index, stream))
            if len(missing) and not self._agrees(entry):
                log.info("dropping %d shards that nothing vouches for", len(entry.shards))
                entry = replace(entry, shards=())
                missing = self._of_parent(stream, self._index.contents(stream.view))
            yield entry, missing

    def _of_parent(self, stream: Stream, contents: passes.Contents) -> passes.Contents:
        """Those contents of which the parent has a row, or remembers why it has none."""
        parent = self._parent(stream)
        return contents[np.isin(contents, parent.known())]

    def _parent(self, stream: Stream) -> StreamReader:
        if stream.parent is None:
            raise ValueError(f"the stream at cut {stream.cut!r} is not derived")
        return self._writer.reader(stream.parent)

    def _entry(self, stream: Stream) -> StreamEntry:
        entry = self._writer.manifest.streams.get(stream.key)
        return entry or StreamEntry(stream, self._shapes[stream])

    def _engine(self, streams: Sequence[Stream], plan: Plan | None = None) -> Engine:
        """What runs the units between a parent and some streams derived from it."""
        cuts = [cut for cut, _ in outputs_of(streams)]
        return make_engine(
            "torch",
            between(self._traced, self._parent(streams[0]).entry.stream.cut, cuts),
            None,
            device=plan.device if plan else self._means.device,
            threads=plan.threads if plan else None,
            precision=self._writer.manifest.recipe.precision,
        )

    def _planned(self, entries: tuple[StreamEntry, ...], missing: passes.Contents) -> passes.Pass:
        return passes.begun(
            entries,
            missing,
            self._engine([entry.stream for entry in entries]),
            versions(),
            batch_size=self._means.batch_size or min(DEFAULT_BATCH, len(missing)),
            shard_rows=self._means.shard_rows,
        )

    def _agrees(self, entry: StreamEntry) -> bool:
        """Check a few rows if this run would extend rows that something else computed."""
        if not entry.shards:
            return True
        engine = self._engine((entry.stream,))
        now = {"engine": engine.name, "device": engine.device, "versions": versions()}
        changed = what_changed(entry.plans[-1].provenance, now)
        if not changed:
            return True
        log.info("checking derived rows, since %s", "; ".join(changed))
        with engine:
            return refuse_disagreement(
                self._writer.folder,
                self._writer.reader(entry.stream.key),
                self._index,
                lambda slots: self._shard(
                    engine, slots, {entry.stream: entry.shape}, batch_size=DEFAULT_BATCH
                ),
                changed,
                self._writer.manifest.recipe.precision,
            )

    def _carry_out(self, begun: passes.Pass) -> None:
        """Commit plans, then compute and commit those of their shards that are not there yet."""
        self._writer.commit(begun.within(self._writer.manifest))
        plan, todo = begun.plan, begun.todo()
        total = self._processed + sum(len(run) for _, run in todo)
        with self._engine(list(begun.shapes), plan) as engine:
            for number, run in todo:
                slots = self._places.slots(run)
                extracted = self._shard(
                    engine, slots, begun.shapes, batch_size=plan.batch_size, total=total
                )
                self._keep(begun, number, extracted)

    def _shard(
        self,
        engine: Engine,
        slots: list[Slot],
        shapes: Mapping[Stream, tuple[int, ...]],
        *,
        batch_size: int,
        total: int | None = None,
    ) -> ExtractedShard:
        """Rows of streams of one parent; told of if there is a total."""
        parent = self._parent(next(iter(shapes)))
        return extract_shard(
            engine,
            _rows_of(parent, slots, batch_size),
            slots,
            shapes,
            blank=np.zeros(parent.shape, parent.entry.stream.dtype),
            batch_size=batch_size,
            on_batch=(lambda n: self._report(n, total)) if total is not None else None,
        )

    def _keep(self, begun: passes.Pass, number: int, extracted: ExtractedShard) -> None:
        """Commit the shards of a pass that were computed together."""
        numbers = begun.numbers(number).items()
        shards = {s: (n, x) for (s, n), x in zip(numbers, extracted.shards, strict=True)}
        self._writer.commit_shards(shards, last=number == begun.last)
        self.computed += sum(len(shard.hashes) for shard in extracted.shards)

    def _report(self, slots: int, total: int) -> None:
        self._processed += slots
        if self._progress:
            self._progress("derive", self._processed, total)


def _rows_of(
    reader: StreamReader, slots: Sequence[Slot], block: int
) -> Iterator[npt.NDArray[Any] | Unusable]:
    """(1, *shape) the row of each slot, or why it has none; read a block at a time."""
    for start in range(0, len(slots), block):
        here = slots[start : start + block]
        positions = reader.positions(hashes_of(slot.content for slot in here))
        rows = iter(reader.read(positions[positions >= 0]))
        for slot, position in zip(here, positions.tolist(), strict=True):
            if position < 0:
                yield Unusable(reader.skips.get(slot.content, GONE), slot.content in reader.skips)
            else:
                yield next(rows)[None]
