"""One extraction from start to end: scan, compute, tell."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from featcache.engines import available_cores
from featcache.errors import SourceError
from featcache.extraction.calibrating import calibrated
from featcache.extraction.computing import Computing, note_scan, refuse_skips
from featcache.extraction.jobs import Job, Progress
from featcache.extraction.kept import Kept
from featcache.extraction.lowering import Lowering, compare_with_fp32
from featcache.extraction.pipeline import Decoders
from featcache.extraction.profiling import Profile, Watch
from featcache.extraction.scanning import Changes, Scan, compare, scan
from featcache.extraction.selecting import device_of
from featcache.heads.grid import differ
from featcache.images.sources import Source
from featcache.naming import shown
from featcache.store import journal
from featcache.store import manifest as manifests
from featcache.store.cache import StreamReader
from featcache.store.index import Index, opaque
from featcache.store.plan import without
from featcache.store.writing import Writer, writing

__all__ = ["Extraction", "Job", "Progress", "reindex", "run"]


@dataclass(frozen=True, eq=False)
class Extraction:
    """What an extraction did.

    Attributes:
        index: the index now in force.
        streams: keys of the streams that are now complete, the penultimate feature's first.
        computed: contents of which a row was computed now, in any stream. processed: pictures that
            went through, skips included; one that goes through two passes counts twice.
        reused: samples served by rows there before.
        skipped: (path, reason) of samples that lack a row in any of the streams. unread: of those,
            what might be read another time.
        changes: against the index before, None at the first extraction.
        passed_over, warnings: from the scan.
        seconds: of the whole. profile: where they went.
        engine: name, device, threads, batch size, and why it was taken.
        lowering: what a precision below fp32 changes; None at fp32, or where nothing was computed.
    """

    index: Index
    streams: tuple[str, ...]
    computed: int
    processed: int
    reused: int
    skipped: list[tuple[str, str]]
    unread: list[tuple[str, str]]
    changes: Changes | None
    passed_over: dict[str, int]
    warnings: tuple[str, ...]
    seconds: float
    profile: Profile
    engine: dict[str, str | int] = field(default_factory=dict[str, str | int])
    lowering: Lowering | None = None


def run(job: Job, progress: Progress | None = None) -> Extraction:
    """Bring a cache up to date with its source.

    Raises:
        SourceError, StoreError, EngineError, PictureError (strict): each says what to do.
    """
    running = steps(job, progress)
    while True:
        try:
            next(running)
        except StopIteration as end:
            return end.value


def steps(job: Job, progress: Progress | None = None) -> Generator[None, None, Extraction]:
    """`run` in steps, for one that takes turns with others; without a seat it is one step.

    Yields:
        Before the first batch of a pass, and after each; holds nothing then but its cache.
    """
    watch, profile = Watch(), Profile()
    job = calibrated(job)
    recipe, kept = job.recipe, Kept(job)
    backbone = {"name": job.backbone.name, "locator": job.backbone.locator}
    decoders = Decoders(job.source, job.threads or available_cores())
    with (
        writing(
            job.folder, recipe, backbone, job.source.locator, replace_source=job.replace_source
        ) as writer,
        decoders,
    ):
        if job.calibration is not None:
            writer.keep_calibration(job.calibration)
        before = writer.index()
        with profile.spent_on("scan"):
            found = _scan(job, writer, before, decoders, progress)
        refuse_skips(job, zip(found.index.skip_paths, found.index.skip_reasons, strict=True))
        _refuse_nothing(job.source, found.index)
        manifest = writer.with_index(found.index, job.source.locator, backbone)
        computing = Computing(job, kept, writer, found, manifest, decoders, profile, progress)
        for _ in computing.steps():
            with watch.paused():
                yield
        if job.seat:
            beyond = job.seat.waited_for_others(computing.profile.clock)
            watch.leave_out(beyond)
            computing.profile.seconds -= beyond
        there = writer.manifest.streams  # without those of views that no picture is to have
        readers = [writer.reader(s.key) for s in kept.shapes if s.key in there]
        lowering = None
        if job.compares_precision and job.precision != "fp32" and computing.processed:
            lowering = compare_with_fp32(job, kept, found.index, readers[0])
        done = _summary(job, readers, found, before, computing, watch)
        done = replace(done, lowering=lowering)
        beside = {"together": job.seat.together.size} if job.seat else {}
        seconds = round(done.seconds, 3)
        writer.note("extract", seconds=seconds, computed=done.computed, **beside)
        return done


def reindex(folder: Path, source: Source, progress: Progress | None = None) -> None:
    """Put an index of a source in force, in the place of one that is damaged; no row is computed.

    Raises:
        SourceError, StoreError: each says what to do.
    """
    manifest = manifests.load(folder)
    with writing(folder, manifest.recipe, manifest.backbone, manifest.source) as writer:
        found = scan(source, progress=partial(progress, "hash") if progress else None)
        _refuse_nothing(source, found.index)
        writer.commit(writer.with_index(found.index, source.locator, manifest.backbone))
        note_scan(writer, found)


def _scan(
    job: Job,
    writer: Writer,
    before: Index | None,
    decoders: Decoders,
    progress: Progress | None,
) -> Scan:
    """Scan the source; which stat keys may be trusted depends on when the last scan began.

    What a new cache reads now it decodes next: processes for it start meanwhile, but where engines
    are tried before, on cores that must be quiet.
    """
    if job.as_indexed and before is not None:
        return Scan(before, {}, (), 0, None)
    entry = writer.manifest.index
    fresh = job.seat.together.fresh if job.seat else None
    trusted = (
        entry is not None
        and writer.manifest.source == job.source.locator
        and not job.verify_content
    )

    def hashed(done: int, total: int) -> None:
        if done == 1 and before is None and not job.seat and device_of(job) != "cpu":
            decoders.expect(total)
        if progress:
            progress("hash", done, total)

    if trusted and entry:
        settled = journal.settled_before(job.folder, entry.sha256)
        found = scan(job.source, before, settled_before_ns=settled, progress=hashed)
    elif fresh is not None:
        settled = fresh.started_ns
        found = scan(job.source, fresh.index, settled_before_ns=settled, progress=hashed)
    else:
        found = scan(job.source, progress=hashed)
    if job.seat:
        job.seat.together.fresh = found
    return found


def _refuse_nothing(source: Source, index: Index) -> None:
    if not len(index):
        path, reason = next(zip(index.skip_paths, index.skip_reasons, strict=True))
        raise SourceError(
            f"{source.locator['location']}: none of its {len(index.skip_paths)} pictures can "
            f"be read, the first is {shown(path)} ({reason}); mend that, then run again"
        )


def _summary(
    job: Job,
    readers: list[StreamReader],
    found: Scan,
    before: Index | None,
    computing: Computing,
    watch: Watch,
) -> Extraction:
    index = found.index
    lacking = [_lacking(index, reader, computing) for reader in readers]
    reasons = {row: why for each in reversed(lacking) for row, why in each.items()}
    skipped = [
        *zip(index.skip_paths, index.skip_reasons, strict=True),
        *((index.paths[row], reasons[row]) for row in sorted(reasons)),
    ]
    refuse_skips(job, skipped)
    computed = len(without(computing.computed, opaque(index.hashes[sorted(reasons)])))
    used = computing.plan or readers[0].entry.plans[-1]
    first = computing.engines.first
    return Extraction(
        index=index,
        streams=tuple(reader.entry.stream.key for reader in readers),
        computed=computed,
        processed=computing.processed,
        reused=len(index) + len(index.skip_paths) - len(skipped) - computed,
        skipped=skipped,
        unread=[(slot.path, why.reason) for slot, why in computing.failed.items()],
        changes=compare(before, index) if before is not None else None,
        passed_over=found.passed_over,
        warnings=(
            *found.warnings,
            *dict.fromkeys(computing.engines.warnings),
            *(_alike(reader) for reader in readers if computed and _is_alike(reader)),
        ),
        seconds=watch.seconds,
        profile=computing.profile,
        engine={
            "name": used.engine,
            "device": used.device,
            "threads": used.threads,
            "batch_size": used.batch_size,
            "why": first.why if first else "as it was begun",
        },
    )


def _is_alike(reader: StreamReader) -> bool:
    """Whether a stream has several rows and all are equal, as those of a dead network are."""
    return len(reader) > 1 and not differ(shard.features for shard in reader.shards())


def _alike(reader: StreamReader) -> str:
    return (
        f"all {len(reader)} rows of {reader.entry.stream.cut!r} are equal: the network tells these "
        "pictures not apart; check its weights"
    )


def _lacking(index: Index, reader: StreamReader, computing: Computing) -> dict[int, str]:
    """Why samples lack a row in a stream, by row of the index: remembered, or unlucky just now."""
    reasons = reader.skips | {slot.content: why.reason for slot, why in computing.failed.items()}
    wanted = index.wanting(reader.entry.stream.view)
    without_row = np.flatnonzero(wanted & (reader.positions(index.hashes) < 0)).tolist()
    return {row: reasons[index.hashes[row].tobytes()] for row in without_row}
