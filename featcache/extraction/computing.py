"""Plan, compute, commit: what an extraction does after it has scanned."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from featcache.engines import Engine, versions
from featcache.engines.choosing import Choice
from featcache.errors import EngineError, PictureError
from featcache.extraction import passes
from featcache.extraction.agreement import refuse_disagreement, what_changed
from featcache.extraction.behind import Behind
from featcache.extraction.jobs import DEFAULT_BATCH, Job, Progress
from featcache.extraction.kept import Kept, views_of
from featcache.extraction.pipeline import (
    Decoders,
    Pixels,
    Slot,
    Unusable,
    blank_pixels,
    stream_pixels,
)
from featcache.extraction.profiling import Profile
from featcache.extraction.scanning import Places, Scan
from featcache.extraction.selecting import Engines
from featcache.extraction.shards import ExtractedShard, extract_shard, extract_shards
from featcache.images.loading import Kind
from featcache.naming import shown
from featcache.recipe import Stream
from featcache.store import plan as plans
from featcache.store.index import hashes_of, opaque
from featcache.store.manifest import Manifest, Plan, StreamEntry
from featcache.store.writing import Writer, check_space

log = logging.getLogger(__name__)
sizes = logging.getLogger(f"{__name__}.sizes")


class Computing:
    """The part of an extraction that computes what is missing.

    Args:
        job: what is asked.
        kept: its streams.
        writer: holds the cache.
        found: the scan.
        manifest: the committed one, but with the scan's index.
        decoders: of its pictures.
        profile: where its time is counted.
        progress: see `Progress`.

    Attributes:
        processed: pictures that went through a pass, skips included.
        engines: that were chosen from.
        profile: of engines, decoding, forward passes and writing.
        plan: the last one that was carried out.
        failed: pictures that could not be used just now, and might be another time.
    """

    def __init__(
        self,
        job: Job,
        kept: Kept,
        writer: Writer,
        found: Scan,
        manifest: Manifest,
        decoders: Decoders,
        profile: Profile,
        progress: Progress | None,
    ) -> None:
        self.processed = 0
        self.profile = profile
        self.plan: Plan | None = None
        self.failed: dict[Slot, Unusable] = {}
        self._job, self._kept, self._writer = job, kept, writer
        self._found, self._index, self._manifest = found, found.index, manifest
        self.engines = Engines(job, kept, found.index)
        self._decoders, self._progress = decoders, progress
        self._computed: list[npt.NDArray[np.uint8]] = []

    @property
    def computed(self) -> passes.Contents:
        """Contents of which at least one row was computed, each once."""
        return np.unique(opaque(np.concatenate([hashes_of(()), *self._computed])))

    def steps(self) -> Iterator[None]:
        """Put the index in force; then compute and commit shards until nothing is missing.

        Open plans are carried out first. What they cover but failed to read when they were begun
        is missing still, and is planned anew.

        Yields:
            Before the first batch of a pass and after each, where the job takes turns with others.
        """
        while going_on := [p for p in passes.resumed(self._resumable()) if self._vouched(p)]:
            for begun in going_on:
                yield from self._carry_out(begun)
        groups = passes.grouped(self._lacking())
        size = sum(len(missing) * passes.row_bytes(entries) for entries, missing in groups)
        if size and self._job.cuts and not self._job.as_indexed:  # on demand, it was told before
            sizes.info("%s: %.2f GB of activations are to be written", self._job.folder, size / 1e9)
        check_space(self._writer.folder, size)
        for entries, missing in groups:
            yield from self._carry_out(self._planned(entries, missing))
        if self.plan is None:
            self._commit(self._manifest)

    def _resumable(self) -> Iterator[passes.Lack]:
        """Streams of which an open plan can be continued just as it was begun, and its contents."""
        for stream in self._kept.shapes:
            entry = self._entry(stream)
            for plan in entry.open_plans:
                candidates = self._writer.candidates(self._index, stream, plan)
                pending = plans.covered(plan, candidates)
                if pending is not None and self._suits(plan):
                    yield entry.going_on(plan), pending
                    break

    def _suits(self, plan: Plan) -> bool:
        job = self._job
        return (
            plan.versions == self._versions(plan.engine)
            and job.batch_size in (None, plan.batch_size)
            and job.device in ("auto", plan.device)
        )

    def _versions(self, engine: str) -> dict[str, str]:
        return versions(engine, quantised=self._job.precision == "int8")

    def _vouched(self, begun: passes.Pass) -> bool:
        """Whether the engine of an open plan is the one that would be taken, and can go on."""
        streams, plan = begun.shapes, begun.plan
        try:
            if self._job.engine not in ("auto", plan.engine):  # it may have been refused then
                return self._choice(streams, begun.pending).engine.name == plan.engine
            with self.profile.spent_on("engine"):
                self.engines.vouch(streams, plan, begun.pending)
        except EngineError as error:
            log.warning("%s; what it began is planned anew", error)
            return False
        return True

    def _lacking(self) -> Iterator[passes.Lack]:
        """Each stream's entry, ready to be extended, and the contents it lacks.

        Contents with a row or a remembered skip are not missing, nor those that failed just now.
        """
        failed = opaque(hashes_of(slot.content for slot in self.failed))
        for stream in self._kept.shapes:
            entry = self._entry(stream).settled()
            missing = plans.without(self._writer.pending(self._index, stream), failed)
            if len(missing) and not self._agrees(entry, missing):
                log.info("dropping %d shards that no sample names any more", len(entry.shards))
                entry = replace(entry, shards=())
                missing = plans.without(self._index.contents(stream.view), failed)
            yield entry, missing

    def _entry(self, stream: Stream) -> StreamEntry:
        entry = self._writer.manifest.streams.get(stream.key)
        return entry or StreamEntry(stream, self._kept.shapes[stream])

    def _planned(self, entries: tuple[StreamEntry, ...], missing: passes.Contents) -> passes.Pass:
        """A pass for streams that lack the same contents, with a plan for each."""
        choice = self._choice([entry.stream for entry in entries], missing)
        log.info("engine %s: %s", choice.engine.name, choice.why)
        return passes.begun(
            entries,
            missing,
            choice.engine,
            self._versions(choice.engine.name),
            batch_size=self._job.batch_size or min(DEFAULT_BATCH, len(missing)),
            shard_rows=self._job.shard_rows,
        )

    def _choice(self, streams: Collection[Stream], missing: passes.Contents) -> Choice:
        """What is to compute some contents of some streams."""
        with self.profile.spent_on("engine"):
            return self.engines.choose(streams, missing)

    def _agrees(self, entry: StreamEntry, missing: passes.Contents) -> bool:
        """Check a few rows if this run would extend rows that something else computed.

        Rows of which none can be computed again, since no sample has their contents any more,
        must not come back beside those of other versions: then this is false.
        """
        if not entry.shards:
            return True
        engine = self._choice((entry.stream,), missing).engine
        now = {
            "engine": engine.name,
            "device": engine.device,
            "versions": self._versions(engine.name),
        }
        changed = what_changed(entry.plans[-1].provenance, now)
        if changed:
            log.info("checking cached rows, since %s", "; ".join(changed))
            with engine:
                return refuse_disagreement(
                    self._job.folder,
                    self._writer.reader(entry.stream.key),
                    self._index,
                    lambda slots: self._again(entry, engine, slots),
                    changed,
                    self._job.precision,
                )
        return True

    def _again(self, entry: StreamEntry, engine: Engine, slots: list[Slot]) -> ExtractedShard:
        """Rows of a stream as they are computed now."""
        source, recipe, views = self._job.source, self._job.recipe, (entry.stream.view,)
        pixels = stream_pixels(source, recipe, views, slots, threads=1, ahead=len(slots))
        with closing(pixels):
            return extract_shard(
                engine,
                pixels,
                slots,
                {entry.stream: entry.shape},
                blank=blank_pixels(recipe.preprocessing),
                batch_size=self._job.batch_size or DEFAULT_BATCH,
            )

    def _commit(self, manifest: Manifest) -> None:
        """Put the index and plans in force; from then on the scan's stat keys can vouch."""
        self._writer.commit(manifest)
        note_scan(self._writer, self._found)

    def _carry_out(self, begun: passes.Pass) -> Iterator[None]:
        """Commit plans, then compute and commit those of their shards that are not there yet."""
        self.plan = begun.plan
        committed = replace(self._manifest, streams=self._writer.manifest.streams)
        self._commit(begun.within(committed))
        with self.profile.spent_on("engine"):
            engine = self.engines.of(begun.shapes, begun.plan.engine, begun.plan)
        yield from self._compute(begun, engine)
        self.engines.forget()

    def _compute(self, begun: passes.Pass, engine: Engine) -> Iterator[None]:
        """Compute a pass: alone in one go; else by turns, the engine in force in its own alone."""
        numbers, by_turns = (number for number, _ in begun.todo()), self._job.seat is not None
        with ExitStack() as held:
            pixels = held.enter_context(closing(self._pixels(begun)))
            behind = held.enter_context(Behind())
            batches = self._batches(begun, engine, pixels)
            if by_turns:
                held.push(engine)  # not entered; its end waits for what was begun
                yield
            else:
                held.enter_context(engine)
                self._warm(engine, begun)
            for shard in self._timed(batches, engine.turn if by_turns else nullcontext):
                if shard is not None:
                    with self.profile.clock.waiting("writing"):
                        behind.do(partial(self._keep, begun, next(numbers), shard))
                if by_turns:
                    yield
            with self.profile.running(), self.profile.clock.waiting("writing"):
                behind.wait()

    def _warm(self, engine: Engine, begun: passes.Pass) -> None:
        """Have a GPU do once what takes it long the first time, while processes that decode start.

        It takes half a second or more, and nothing of what it gives is kept.
        """
        if engine.device != "cpu" and self._decoders.processes:
            blank = blank_pixels(self._job.backbone.preprocessing)
            with self.profile.running():
                engine.run_all(np.stack([blank] * begun.plan.batch_size))

    def _pixels(self, begun: passes.Pass) -> Generator[Pixels | Unusable, None, None]:
        """Of the slots of a pass, in order: decoded here, or for all who take turns."""
        job, todo, clock = self._job, begun.todo(), self.profile.clock
        places, views = Places(self._index), views_of(begun.shapes)
        slots = (slot for _, run in todo for slot in places.slots(run))
        ahead = 2 * begun.plan.batch_size
        kind = Kind.of(job.recipe, views)
        if job.seat is not None:
            wanted = np.concatenate([run for _, run in todo])
            return job.seat.pixels(kind, wanted, slots, ahead=ahead, clock=clock)
        self._decoders.expect(sum(len(run) for _, run in todo))
        return self._decoders.stream(kind, slots, ahead=ahead, clock=clock)

    def _batches(
        self,
        begun: passes.Pass,
        engine: Engine,
        pixels: Generator[Pixels | Unusable, None, None],
    ) -> Iterator[ExtractedShard | None]:
        """After each batch the shard that it completes, or None."""
        places, todo = Places(self._index), begun.todo()
        total = self.processed + sum(len(run) for _, run in todo)
        return extract_shards(
            engine,
            self.profile.waited_for(pixels, "pixels"),
            (places.slots(run) for _, run in todo),
            begun.shapes,
            blank=blank_pixels(self._job.backbone.preprocessing),
            batch_size=begun.plan.batch_size,
            on_batch=lambda n: self._report(n, total),
        )

    def _timed(
        self,
        batches: Iterator[ExtractedShard | None],
        turn: Callable[[], AbstractContextManager[object]],
    ) -> Iterator[ExtractedShard | None]:
        """Batch by batch, each computed in a turn of its own."""
        while True:
            with self.profile.running(), turn():
                try:
                    shard = next(batches)
                except StopIteration:
                    return
            yield shard

    def _keep(self, begun: passes.Pass, number: int, extracted: ExtractedShard) -> None:
        """Commit the shards of a pass that were computed together."""
        unusable = extracted.unusable.items()
        refuse_skips(self._job, ((slot.path, why.reason) for slot, why in unusable))
        numbers = begun.numbers(number).items()
        shards = {s: (n, x) for (s, n), x in zip(numbers, extracted.shards, strict=True)}
        with self.profile.clock.stage("write"):
            self._writer.commit_shards(shards, last=number == begun.last)
        self.failed |= {slot: why for slot, why in unusable if not why.permanent}
        self._computed += (shard.hashes for shard in extracted.shards)

    def _report(self, slots: int, total: int) -> None:
        self.processed += slots
        if self._progress:
            self._progress("extract", self.processed, total)


def note_scan(writer: Writer, found: Scan) -> None:
    """Note when the scan began that made the index in force."""
    index = writer.manifest.index
    if index and found.started_ns is not None:
        writer.note("scan", started_ns=found.started_ns, index=index.sha256)


def refuse_skips(job: Job, skips: Iterable[tuple[str, str]]) -> None:
    """Raise for the first (path, reason), if the job is strict.

    Raises:
        PictureError: names the path.
    """
    if job.strict:
        for path, reason in skips:
            raise PictureError(
                f"{shown(path)}: {reason}; mend or remove it, or leave out --strict to skip it"
            )
