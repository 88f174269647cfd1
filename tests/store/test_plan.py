"""The plan is a pure function, whose shards hold whole batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featcache.store import plan as plans
from featcache.store.index import hashes_of, opaque

counts = st.integers(1, 10**8)
contents = st.sets(st.binary(min_size=32, max_size=32), max_size=20)


@given(counts, st.integers(1, 10**8), st.integers(1, 4096), st.none() | st.integers(1, 10**6))
def test_a_batch_never_crosses_shards(
    pending: int, row_bytes: int, batch: int, asked: int | None
) -> None:
    rows = plans.shard_rows(pending, row_bytes, batch, asked)
    assert rows % batch == 0
    assert rows >= max(asked or 1, batch)
    assert rows == plans.shard_rows(pending, row_bytes, batch, asked)


def test_shards_stay_few_and_not_too_large() -> None:
    small, large = plans.shard_rows(1_000, 4096, 32), plans.shard_rows(1_300_000, 8192, 32)
    assert small == 256
    assert 1_300_000 / large < 1024
    assert plans.shard_rows(10_000, 50 << 20, 32) == 32


@given(contents, st.integers(1, 5), st.integers(0, 3), st.randoms())
def test_runs_cover_what_is_missing_once_in_order_of_hashes(
    make, pending: set[bytes], shard_rows: int, first: int, random
) -> None:
    shuffled = list(pending)
    random.shuffle(shuffled)
    hashes = np.unique(opaque(hashes_of(shuffled)))
    plan = make.plan(first, hashes, shard_rows)
    runs = list(plans.runs(plan, hashes))
    assert [number for number, _ in runs] == list(range(first, first + plan.shard_count))
    assert [c.tobytes() for _, run in runs for c in run] == sorted(pending)
    assert all(len(run) == shard_rows for _, run in runs[:-1])


@given(contents, contents)
def test_without_takes_away_and_keeps_the_order(some: set[bytes], known: set[bytes]) -> None:
    hashes = np.unique(opaque(hashes_of(some | known)))
    left = plans.without(hashes, opaque(hashes_of(known)))
    assert [c.tobytes() for c in left] == sorted(some - known)


def test_a_digest_tells_plans_apart(make) -> None:
    one, other = (np.unique(opaque(make.hashes(range(n)))) for n in (4, 5))
    assert plans.digest(one) == plans.digest(one.copy())
    assert plans.digest(one) != plans.digest(other)
