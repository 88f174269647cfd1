"""Plan, compute, commit: what an extraction does after it has scanned."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from featcache.engines import Engine, available_cores, make_engine, versions
from featcache.errors import EngineError, PictureError
from featcache.extraction.agreement import refuse_disagreement, what_changed
from featcache.extraction.jobs import DEFAULT_BATCH, Job, Progress
from featcache.extraction.pipeline import Slot, Unusable, stream_pixels
from featcache.extraction.scanning import Places, Scan
from featcache.extraction.shards import extract_shard
from featcache.recipe import Stream
from featcache.store import journal
from featcache.store import plan as plans
from featcache.store.index import hashes_of, opaque
from featcache.store.manifest import Manifest, Plan, StreamEntry
from featcache.store.writing import Writer

log = logging.getLogger(__name__)


class Computing:
    """The part of an extraction that computes what is missing.

    Args:
        job: what is asked.
        writer: holds the cache.
        stream: what is kept.
        found: the scan.
        manifest: the committed one, but with the scan's index.
        progress: see `Progress`.

    Attributes:
        computed: rows computed. processed: pictures that went through, skips included.
        seconds: of decoding and forward passes.
        plan: the last one that was carried out.
        failed: pictures that could not be used just now, and might be another time.
    """

    def __init__(
        self,
        job: Job,
        writer: Writer,
        stream: Stream,
        found: Scan,
        manifest: Manifest,
        progress: Progress | None,
    ) -> None:
        self.computed = self.processed = 0
        self.seconds = 0.0
        self.plan: Plan | None = None
        self.failed: dict[Slot, Unusable] = {}
        self._job, self._writer, self._stream = job, writer, stream
        self._found, self._index, self._manifest = found, found.index, manifest
        self._progress = progress

    def run(self) -> None:
        """Put the index in force; then compute and commit shards until nothing is missing.

        An open plan is carried out first. What it covers but failed to read when it was begun is
        missing still, and is planned anew.
        """
        entry, plan = self._resumable()
        if plan is not None:
            pending = self._writer.pending(self._index, self._stream.key, plan)
            self._carry_out(entry, plan, pending, self._engine(plan))
            entry = self._writer.manifest.streams[self._stream.key]
        missing = self._missing()
        if len(missing):
            engine = self._engine(None)
            plan = self._new_plan(entry, missing, engine)
            if not self._agrees(entry, plan, engine):
                log.info("dropping %d shards that no sample names any more", len(entry.shards))
                entry, missing = replace(entry, shards=()), self._index.unique_hashes
                plan = self._new_plan(entry, missing, engine)
            entry = replace(entry, plans=(*entry.plans, plan))
            self._carry_out(entry, plan, missing, engine)
        elif plan is None:
            self._commit(self._manifest)

    def _missing(self) -> npt.NDArray[np.void]:
        """Contents without a row or a remembered skip, but for those that failed just now."""
        pending = self._writer.pending(self._index, self._stream.key)
        return plans.without(pending, opaque(hashes_of(slot.content for slot in self.failed)))

    def _commit(self, manifest: Manifest) -> None:
        """Put the index and a plan in force; from then on the scan's stat keys can vouch."""
        self._writer.commit(manifest)
        if manifest.index:
            journal.note(
                self._job.folder,
                "scan",
                started_ns=self._found.started_ns,
                index=manifest.index.sha256,
            )

    def _resumable(self) -> tuple[StreamEntry, Plan | None]:
        """The stream's entry, and its open plan if it can be continued just as it was begun."""
        entry = self._writer.manifest.streams.get(self._stream.key)
        if entry is None:
            return StreamEntry(self._stream, (self._job.backbone.width,)), None
        plan = entry.open_plan
        if plan is None:
            return entry, None
        pending = self._writer.pending(self._index, self._stream.key, plan)
        if plans.digest(pending) == plan.pending_sha256 and self._suits(plan):
            return entry, plan
        return entry.settled(), None

    def _suits(self, plan: Plan) -> bool:
        job = self._job
        if plan.versions != versions() or job.batch_size not in (None, plan.batch_size):
            return False
        if job.engine not in ("auto", plan.engine) or job.device not in ("auto", plan.device):
            return False
        try:
            self._engine(plan)
        except EngineError:
            return False
        return True

    def _engine(self, plan: Plan | None) -> Engine:
        job = self._job
        return make_engine(
            plan.engine if plan else job.engine,
            job.backbone.stem,
            job.backbone.preprocessing,
            device=plan.device if plan else job.device,
            threads=plan.threads if plan else None,
        )

    def _new_plan(self, entry: StreamEntry, missing: npt.NDArray[np.void], engine: Engine) -> Plan:
        job = self._job
        batch = job.batch_size or DEFAULT_BATCH
        row_bytes = int(np.prod(entry.shape)) * np.dtype(self._stream.dtype).itemsize
        self._writer.check_space(len(missing), row_bytes)
        return Plan(
            first=entry.next_number,
            shard_rows=plans.shard_rows(len(missing), row_bytes, batch, job.shard_rows),
            pending=len(missing),
            pending_sha256=plans.digest(missing),
            batch_size=batch,
            engine=engine.name,
            device=engine.device,
            threads=engine.threads,
            versions=versions(),
        )

    def _agrees(self, entry: StreamEntry, plan: Plan, engine: Engine) -> bool:
        """Check a few rows if this plan would extend rows that something else computed.

        Rows of which none can be computed again, since no sample has their contents any more,
        must not come back beside those of other versions: then this is false.
        """
        if not entry.shards:
            return True
        changed = what_changed(entry.plans[-1].provenance, plan.provenance)
        if changed:
            log.info("checking cached rows, since %s", "; ".join(changed))
            with engine:
                return refuse_disagreement(
                    self._job.folder,
                    self._writer.reader(self._stream.key),
                    self._index,
                    self._job.source,
                    self._job.backbone.preprocessing,
                    engine,
                    plan.batch_size,
                    changed,
                )
        return True

    def _carry_out(
        self, entry: StreamEntry, plan: Plan, pending: npt.NDArray[np.void], engine: Engine
    ) -> None:
        """Commit a plan, then compute and commit those of its shards that are not there yet."""
        self.plan = plan
        committed = replace(self._manifest, streams=self._writer.manifest.streams)
        self._commit(committed.with_stream(entry))
        started = time.perf_counter()
        with engine:
            self._compute(entry, plan, pending, engine)
        self.seconds += time.perf_counter() - started

    def _compute(
        self, entry: StreamEntry, plan: Plan, pending: npt.NDArray[np.void], engine: Engine
    ) -> None:
        job, there = self._job, {s.number for s in entry.shards}
        todo = [(n, run) for n, run in plans.runs(plan, pending) if n not in there]
        total = self.processed + sum(len(run) for _, run in todo)
        places = Places(self._index)
        pixels = stream_pixels(
            job.source,
            job.backbone.preprocessing,
            (slot for _, run in todo for slot in places.slots(run)),
            threads=job.threads or available_cores(),
            ahead=2 * plan.batch_size,
        )
        with closing(pixels):
            for number, run in todo:
                extracted = extract_shard(
                    engine,
                    pixels,
                    places.slots(run),
                    self._stream,
                    entry.shape,
                    size=job.backbone.preprocessing.size,
                    batch_size=plan.batch_size,
                    on_batch=lambda n: self._report(n, total),
                )
                unusable = extracted.unusable.items()
                refuse_skips(job, ((slot.path, why.reason) for slot, why in unusable))
                last = number == plan.first + plan.shard_count - 1
                self._writer.commit_shard(self._stream, number, extracted.shard, last=last)
                self.failed |= {slot: why for slot, why in unusable if not why.permanent}
                self.computed += len(extracted.shard.features)

    def _report(self, slots: int, total: int) -> None:
        self.processed += slots
        if self._progress:
            self._progress("extract", self.processed, total)


def refuse_skips(job: Job, skips: Iterable[tuple[str, str]]) -> None:
    """Raise for the first (path, reason), if the job is strict.

    Raises:
        PictureError: names the path.
    """
    if job.strict:
        for path, reason in skips:
            raise PictureError(
                f"{path}: {reason}; mend or remove it, or leave out --strict to skip it"
            )
