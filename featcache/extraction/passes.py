"""A pass: streams that lack the same rows, computed together from one reading of each picture."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from featcache.engines import Engine
from featcache.recipe import Stream, canonical_json
from featcache.store import plan as plans
from featcache.store.manifest import Manifest, Plan, StreamEntry

Contents = npt.NDArray[np.void]
Lack = tuple[StreamEntry, Contents]
"""A stream's entry, and the contents it lacks."""


@dataclass(frozen=True, eq=False)
class Pass:
    """Streams whose open plans are alike, and what these cover.

    Attributes:
        entries: as they are to be committed: alike in their last plan and in which of its shards
            are there, but for the number of its first shard.
        pending: sorted contents that the plans cover.
    """

    entries: tuple[StreamEntry, ...]
    pending: Contents

    @property
    def plan(self) -> Plan:
        """The first stream's plan, which stands for all."""
        return self.entries[0].plans[-1]

    @property
    def shapes(self) -> dict[Stream, tuple[int, ...]]:
        """Shape of one row, by stream."""
        return {entry.stream: entry.shape for entry in self.entries}

    def numbers(self, number: int) -> dict[Stream, int]:
        """Each stream's number of the shard that has this number in the first one."""
        ahead = number - self.plan.first
        return {entry.stream: entry.plans[-1].first + ahead for entry in self.entries}

    def todo(self) -> list[tuple[int, Contents]]:
        """Shards that are not committed yet: number in the first stream, contents of its slots."""
        there = {shard.number for shard in self.entries[0].shards}
        return [run for run in plans.runs(self.plan, self.pending) if run[0] not in there]

    @cached_property
    def last(self) -> int:
        """The number in the first stream of the shard that is committed last."""
        return self.todo()[-1][0]

    def within(self, manifest: Manifest) -> Manifest:
        """A manifest with these entries in it."""
        for entry in self.entries:
            manifest = manifest.with_stream(entry)
        return manifest


def resumed(open_plans: Iterable[Lack]) -> list[Pass]:
    """Passes that go on with open plans: those that were begun together go on together."""

    def progress(entry: StreamEntry) -> Hashable:
        plan = entry.plans[-1]
        done = tuple(s.number - plan.first for s in entry.shards if s.number in plan.numbers)
        return canonical_json(asdict(replace(plan, first=0))), done, entry.stream.parent

    return [Pass(*alike) for alike in _grouped((e, p, progress(e)) for e, p in open_plans)]


def grouped(lacking: Iterable[Lack]) -> list[tuple[tuple[StreamEntry, ...], Contents]]:
    """Streams that lack the same contents, and these; those that lack none are left out.

    Streams of one group are computed from the same: from pixels, or from one parent.
    """
    return list(_grouped((e, p, (plans.digest(p), e.stream.parent)) for e, p in lacking if len(p)))


def begun(
    entries: tuple[StreamEntry, ...],
    missing: Contents,
    engine: Engine,
    versions: Mapping[str, str],
    *,
    batch_size: int,
    shard_rows: int | None,
) -> Pass:
    """A pass for streams that lack the same contents, with a plan for each.

    Args:
        entries: with no plan open.
        missing: what they lack.
        engine: what will compute.
        versions: of the libraries, by name.
        batch_size: rows a forward pass.
        shard_rows: slots a shard; None lets the plan decide.
    """
    plan = Plan(
        first=0,
        shard_rows=plans.shard_rows(len(missing), row_bytes(entries), batch_size, shard_rows),
        pending=len(missing),
        pending_sha256=plans.digest(missing),
        batch_size=batch_size,
        engine=engine.name,
        device=engine.device,
        threads=engine.threads,
        versions=dict(versions),
    )
    with_plans = (
        replace(entry, plans=(*entry.plans, replace(plan, first=entry.next_number)))
        for entry in entries
    )
    return Pass(tuple(with_plans), missing)


def row_bytes(entries: Iterable[StreamEntry]) -> int:
    """Bytes that one picture takes in all of some streams."""
    return sum(math.prod(e.shape) * np.dtype(e.stream.dtype).itemsize for e in entries)


def _grouped(
    keyed: Iterable[tuple[StreamEntry, Contents, Hashable]],
) -> Iterator[tuple[tuple[StreamEntry, ...], Contents]]:
    groups: dict[Hashable, list[Lack]] = {}
    for entry, contents, key in keyed:
        groups.setdefault(key, []).append((entry, contents))
    for alike in groups.values():
        yield tuple(entry for entry, _ in alike), alike[0][1]
