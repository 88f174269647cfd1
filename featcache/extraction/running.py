"""Scan, plan, compute, commit: one extraction from start to end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.backbones.registry import Backbone
from featcache.engines import Engine, make_engine, versions
from featcache.errors import EngineError, PictureError
from featcache.extraction.agreement import refuse_disagreement, what_changed
from featcache.extraction.pipeline import Slot, Unusable, stream_pixels
from featcache.extraction.scanning import Changes, Scan, compare, first_paths, scan
from featcache.extraction.shards import extract_shard
from featcache.images.sources import Source
from featcache.recipe import StoredDtype, Stream
from featcache.store import journal
from featcache.store import plan as plans
from featcache.store.cache import Writer, check_file, writing
from featcache.store.index import Index, opaque, read_index
from featcache.store.manifest import Manifest, Plan, StreamEntry

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); stages are "hash" and "extract"."""

DEFAULT_BATCH = 32


@dataclass(frozen=True)
class Job:
    """What is to be extracted, and how.

    Attributes:
        folder: the cache.
        source: where the samples are.
        backbone: the network; decides the recipe.
        dtype: stored dtype.
        engine, device: "auto" or a name.
        batch_size: rows a forward pass; None takes the open plan's, else `DEFAULT_BATCH`.
        threads: decoding threads; None takes all cores. Never changes a byte.
        shard_rows: slots a shard; None lets the plan decide.
        strict: an unreadable picture is an error.
        verify_content: read every file again, whatever its stat key says.
        replace_source: let this source take the place of the cache's own.
    """

    folder: Path
    source: Source
    backbone: Backbone
    dtype: StoredDtype = "float32"
    engine: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    shard_rows: int | None = None
    strict: bool = False
    verify_content: bool = False
    replace_source: bool = False


@dataclass(frozen=True, eq=False)
class Extraction:
    """What an extraction did.

    Attributes:
        index: the index now in force.
        stream: key of the stream that was extended.
        shape: of one row.
        computed: rows computed now. processed: pictures that went through, skips included.
        reused: samples served by rows there before.
        skipped: (path, reason) of samples without a row.
        changes: against the index before, None at the first extraction.
        passed_over, warnings: from the scan.
        seconds: of the whole, `compute_seconds` of decoding and forward passes.
        engine: name, device, threads, batch size.
    """

    index: Index
    stream: str
    shape: tuple[int, ...]
    computed: int
    processed: int
    reused: int
    skipped: list[tuple[str, str]]
    changes: Changes | None
    passed_over: dict[str, int]
    warnings: tuple[str, ...]
    seconds: float
    compute_seconds: float
    engine: dict[str, str | int] = field(default_factory=dict[str, str | int])


def run(job: Job, progress: Progress | None = None) -> Extraction:
    """Bring a cache up to date with its source.

    Raises:
        SourceError, StoreError, EngineError, PictureError (strict): each says what to do.
    """
    started = time.perf_counter()
    recipe = job.backbone.recipe()
    stream = Stream(recipe.key, dtype=job.dtype)
    backbone = {"name": job.backbone.name, "locator": job.backbone.locator}
    with writing(
        job.folder, recipe, backbone, job.source.locator, replace_source=job.replace_source
    ) as writer:
        before = _committed_index(writer)
        found = _scan(job, writer, before, progress)
        _refuse_skips(job, zip(found.index.skip_paths, found.index.skip_reasons, strict=True))
        manifest = writer.with_index(found.index, job.source.locator)
        computing = _Computing(job, writer, stream, found, manifest, progress)
        computing.run()
        journal.note(
            job.folder,
            "extract",
            seconds=round(time.perf_counter() - started, 3),
            computed=computing.computed,
        )
        return _summary(job, writer, stream, found, before, computing, started)


def _committed_index(writer: Writer) -> Index | None:
    entry = writer.manifest.index
    if entry is None:
        return None
    check_file(writer.folder / entry.file, entry.sha256)
    return read_index(writer.folder / entry.file)


def _scan(job: Job, writer: Writer, before: Index | None, progress: Progress | None) -> Scan:
    """Scan the source; which stat keys may be trusted depends on when the last scan began."""
    last = journal.last(job.folder, "scan")
    entry = writer.manifest.index
    same_index = last is not None and entry is not None and last.get("index") == entry.sha256
    same_source = writer.manifest.source == job.source.locator
    trusted = same_index and same_source and not job.verify_content
    return scan(
        job.source,
        before,
        settled_before_ns=int(last["started_ns"]) if trusted and last else None,
        progress=(lambda done, total: progress("hash", done, total)) if progress else None,
    )


def _refuse_skips(job: Job, skips: Iterator[tuple[str, str]]) -> None:
    if job.strict:
        for path, reason in skips:
            raise PictureError(
                f"{path}: {reason}; mend or remove it, or leave out --strict to skip it"
            )


class _Computing:
    """The part of an extraction that computes what is missing."""

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
        self.unusable: dict[Slot, Unusable] = {}
        self._job, self._writer, self._stream = job, writer, stream
        self._found, self._index, self._manifest = found, found.index, manifest
        self._progress = progress

    def run(self) -> None:
        """Commit index and plan, then compute and commit the plan's shards."""
        entry, plan = self._resumable()
        pending = self._writer.pending(self._index, self._stream.key, plan)
        if not len(pending):
            self._commit(self._manifest)
            return
        with self._engine(plan) as engine:
            if plan is None:
                plan = self._new_plan(entry, pending, engine)
                self._refuse_disagreement(entry, plan, engine)
                entry = replace(entry, plans=(*entry.plans, plan))
            self.plan = plan
            self._commit(self._manifest.with_stream(entry))
            started = time.perf_counter()
            self._compute(plan, pending, engine)
            self.seconds = time.perf_counter() - started

    def _commit(self, manifest: Manifest) -> None:
        """Put the index and the plan in force; from then on the scan's stat keys can vouch."""
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

    def _new_plan(self, entry: StreamEntry, pending: npt.NDArray[np.void], engine: Engine) -> Plan:
        job = self._job
        batch = job.batch_size or DEFAULT_BATCH
        row_bytes = int(np.prod(entry.shape)) * np.dtype(self._stream.dtype).itemsize
        self._writer.check_space(len(pending), row_bytes)
        return Plan(
            first=entry.next_number,
            shard_rows=job.shard_rows or plans.shard_rows(len(pending), row_bytes, batch),
            pending=len(pending),
            pending_sha256=plans.digest(pending),
            batch_size=batch,
            engine=engine.name,
            device=engine.device,
            threads=engine.threads,
            versions=versions(),
        )

    def _refuse_disagreement(self, entry: StreamEntry, plan: Plan, engine: Engine) -> None:
        """Check a few rows if this plan would extend rows that something else computed."""
        if not entry.shards:
            return
        changed = what_changed(entry.plans[-1].provenance, plan.provenance)
        if changed:
            log.info("checking cached rows, since %s", "; ".join(changed))
            refuse_disagreement(
                self._job.folder,
                self._writer.reader(self._stream.key),
                self._index,
                self._job.source,
                self._job.backbone.preprocessing,
                engine,
                plan.batch_size,
                changed,
            )

    def _compute(self, plan: Plan, pending: npt.NDArray[np.void], engine: Engine) -> None:
        """Compute the shards of a plan that are not committed yet, in order."""
        job, entry = self._job, self._writer.manifest.streams[self._stream.key]
        committed = {s.number for s in entry.shards}
        paths = first_paths(self._index, pending)
        todo = [
            (number, [Slot(content.tobytes(), paths[content.tobytes()]) for content in run])
            for number, run in plans.runs(plan, pending)
            if number not in committed
        ]
        total = sum(len(slots) for _, slots in todo)
        pixels = stream_pixels(
            job.source,
            job.backbone.preprocessing,
            (slot for _, slots in todo for slot in slots),
            threads=job.threads or os.cpu_count() or 1,
            ahead=2 * plan.batch_size,
        )
        with closing(pixels):
            for number, slots in todo:
                extracted = extract_shard(
                    engine,
                    pixels,
                    slots,
                    self._stream,
                    entry.shape,
                    size=job.backbone.preprocessing.size,
                    batch_size=plan.batch_size,
                    on_batch=lambda n: self._report(n, total),
                )
                _refuse_skips(job, ((s.path, u.reason) for s, u in extracted.unusable.items()))
                last = number == plan.first + plan.shard_count - 1
                self._writer.commit_shard(self._stream, number, extracted.shard, last=last)
                self.unusable |= extracted.unusable
                self.computed += len(extracted.shard.features)

    def _report(self, slots: int, total: int) -> None:
        self.processed += slots
        if self._progress:
            self._progress("extract", self.processed, total)


def _summary(
    job: Job,
    writer: Writer,
    stream: Stream,
    found: Scan,
    before: Index | None,
    computing: _Computing,
    started: float,
) -> Extraction:
    index = found.index
    reader = writer.reader(stream.key)
    skipped = _skipped(index, reader.skips, computing.unusable)
    _refuse_skips(job, iter(skipped))
    used = computing.plan or reader.entry.plans[-1]
    return Extraction(
        index=index,
        stream=stream.key,
        shape=reader.shape,
        computed=computing.computed,
        processed=computing.processed,
        reused=len(index) + len(index.skip_paths) - len(skipped) - computing.computed,
        skipped=skipped,
        changes=compare(before, index) if before is not None else None,
        passed_over=found.passed_over,
        warnings=found.warnings,
        seconds=time.perf_counter() - started,
        compute_seconds=computing.seconds,
        engine={
            "name": used.engine,
            "device": used.device,
            "threads": used.threads,
            "batch_size": used.batch_size,
        },
    )


def _skipped(
    index: Index, skips: dict[bytes, str], unusable: dict[Slot, Unusable]
) -> list[tuple[str, str]]:
    """Samples without a row: unreadable at the scan, remembered in a shard, or unlucky just now."""
    listed = list(zip(index.skip_paths, index.skip_reasons, strict=True))
    reasons = skips | {slot.content: u.reason for slot, u in unusable.items() if not u.permanent}
    if reasons:
        contents = opaque(index.hashes)
        listed += [
            (path, reasons[content.tobytes()])
            for path, content in zip(index.paths, contents, strict=True)
            if content.tobytes() in reasons
        ]
    return listed
