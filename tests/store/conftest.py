"""Caches to test with: made of random rows by the store alone, with no network and no pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.recipe import Preprocessing, Recipe, Stream
from featcache.store import plan as plans
from featcache.store.index import NO_STAT, Index, hashes_of
from featcache.store.manifest import Plan, StreamEntry
from featcache.store.shards import Shard
from featcache.store.strings import Strings
from featcache.store.writing import Writer, writing

RECIPE = Recipe(
    weights="a" * 64,
    architecture="test/net",
    preprocessing=Preprocessing((8, 8), (8,), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
)
STREAM = Stream(RECIPE.key)


@dataclass(frozen=True)
class Maker:
    """Makes what a cache is made of; a name stands for a picture's content."""

    recipe: Recipe = RECIPE
    stream: Stream = STREAM
    width: int = 5
    backbone: Mapping[str, Any] = field(
        default_factory=lambda: {"name": "net", "locator": {"kind": "embedded"}}
    )
    source: Mapping[str, str] = field(
        default_factory=lambda: {"kind": "folder", "location": "/pictures"}
    )

    def content(self, name: object) -> bytes:
        return hashlib.sha256(str(name).encode()).digest()

    def hashes(self, names: Iterable[object]) -> np.ndarray:
        return hashes_of(self.content(name) for name in names)

    def rows(self, hashes: np.ndarray) -> np.ndarray:
        """(n, width) float32: each row is decided by its content alone."""
        seeds = [int.from_bytes(content[:8].tobytes(), "little") for content in hashes]
        rows = [np.random.default_rng(seed).normal(size=self.width) for seed in seeds]
        return np.array(rows, np.float32).reshape(len(rows), self.width)

    def index(self, names: Iterable[object]) -> Index:
        names = list(names)
        n = len(names)
        return Index(
            paths=Strings.of(f"{name}.jpg" for name in names),
            hashes=self.hashes(names),
            label_names=Strings.of(["a"]),
            label_offsets=np.arange(n + 1, dtype=np.int64),
            label_codes=np.zeros(n, np.int32),
            splits=np.full(n, -1, np.int8),
            group_names=Strings.of([]),
            groups=np.full(n, -1, np.int64),
            stats=np.array([NO_STAT] * n, np.int64).reshape(n, 4),
        )

    def shard(self, hashes: np.ndarray, skip: Collection[bytes] = ()) -> Shard:
        usable = np.array([content.tobytes() not in skip for content in hashes], np.bool_)
        return Shard(
            features=self.rows(hashes[usable]),
            hashes=hashes[usable],
            skipped=hashes[~usable],
            reasons=Strings.of(["unreadable"] * int((~usable).sum())),
        )

    def plan(self, first: int, pending: np.ndarray, shard_rows: int) -> Plan:
        return Plan(
            first=first,
            shard_rows=shard_rows,
            pending=len(pending),
            pending_sha256=plans.digest(pending),
            batch_size=2,
            engine="torch",
            device="cpu",
            threads=1,
            versions={"torch": "2"},
        )

    def fill(
        self,
        writer: Writer,
        names: Iterable[object],
        *,
        shard_rows: int = 4,
        skip: Iterable[object] = (),
    ) -> int:
        """What an extraction does with a writer: index and plan, then shard after shard.

        Returns the number of rows that were missing.
        """
        index, unusable = self.index(names), {self.content(name) for name in skip}
        pending = writer.pending(index, self.stream)
        manifest = writer.with_index(index, self.source, self.backbone)
        entry = manifest.streams.get(self.stream.key, StreamEntry(self.stream, (self.width,)))
        plan = self.plan(entry.next_number, pending, shard_rows)
        if len(pending):
            entry = replace(entry, plans=(*entry.plans, plan))
        writer.commit(manifest.with_stream(entry))
        for number, run in plans.runs(plan, pending):
            shard = self.shard(run.view(np.uint8).reshape(-1, 32), unusable)
            last = number == plan.first + plan.shard_count - 1
            writer.commit_shards({self.stream: (number, shard)}, last=last)
        return len(pending)


@pytest.fixture(scope="session")
def make() -> Maker:
    return Maker()


@pytest.fixture
def hold(tmp_path: Path, make: Maker) -> Callable[..., AbstractContextManager[Writer]]:
    """Holds the cache in `tmp_path / "cache"` for writing."""

    def held(
        recipe: Recipe = RECIPE, source: Mapping[str, str] = make.source, **options: bool
    ) -> AbstractContextManager[Writer]:
        return writing(tmp_path / "cache", recipe, make.backbone, source, **options)

    return held


@pytest.fixture
def cache_folder(tmp_path: Path, make: Maker, hold: Callable[..., Any]) -> Path:
    """A cache of samples 0 to 9 in 3 shards; sample 3 is skipped."""
    with hold() as writer:
        make.fill(writer, range(10), skip=[3])
    return tmp_path / "cache"
