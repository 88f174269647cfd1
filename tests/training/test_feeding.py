"""Batches: every picture once an epoch, one view each, whatever memory there is."""

from __future__ import annotations

import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import TrainingError
from featcache.images.ahead import in_order
from featcache.training.examples import Examples
from featcache.training.feeding import Feed, Layout, batch_edges, epoch_order


class Counted:
    """Rows that hold their own position, and know how many were read at once and in all."""

    def __init__(self, rows: int, width: int = 4, pause: float = 0.0) -> None:
        self.shape, self.dtype, self.pause = (rows, width), np.dtype(np.float16), pause
        self.reads: list[np.ndarray] = []

    def __getitem__(self, key: np.ndarray) -> np.ndarray:
        time.sleep(self.pause)
        self.reads.append(key)
        return np.repeat(key.astype(np.float16)[:, None], self.shape[1], axis=1)


def examples(rows: Counted, n: int, V: int = 1, **fields: object) -> Examples:
    positions = np.arange(n * V).reshape(V, n).T
    return Examples(rows, positions, np.zeros(n, np.int64), **fields)


@given(
    n=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    memory=st.integers(1, 4000),
    V=st.integers(1, 3),
    width=st.integers(1, 6),
    made=st.booleans(),
    epoch=st.integers(1, 5),
)
def test_every_picture_comes_once_with_one_of_its_views(
    n, batch_size, memory, V, width, made, epoch
) -> None:
    rows = Counted(n * V, width)
    feed = Feed(examples(rows, n, V, made=made), batch_size, memory)
    batches = list(feed.epoch(epoch))
    assert len(batches) == feed.steps == -(-n // batch_size)
    sizes = {len(batch.pictures) for batch in batches}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    seen = np.concatenate([batch.pictures for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(n))
    for batch in batches:
        assert batch.activations.shape == (len(batch.pictures), width)
        np.testing.assert_array_equal(batch.activations[:, 0] % n, batch.pictures)
    plain = list(feed.in_order())
    np.testing.assert_array_equal(np.concatenate([b.pictures for b in plain]), np.arange(n))
    np.testing.assert_array_equal(np.concatenate([b.activations[:, 0] for b in plain]), range(n))


@given(
    n=st.integers(1, 500),
    batch_size=st.integers(1, 50),
    window=st.integers(1, 8),
    block=st.integers(1, 60),
)
def test_an_order_holds_every_number_once_at_any_block_size(n, batch_size, window, block) -> None:
    layout = Layout(batch_edges(n, batch_size), window, block)
    order = epoch_order(n, layout, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


@pytest.mark.parametrize("memory", [1 << 20, 512])
def test_the_same_seed_gives_the_same_batches_however_slow_the_disk_is(memory) -> None:
    def drawn(seed: int, pause: float) -> list[list[int]]:
        feed = Feed(examples(Counted(60, pause=pause), 20, 3), 4, memory, seed)
        return [b.activations[:, 0].tolist() for e in (1, 2) for b in feed.epoch(e)]

    assert drawn(0, 0.0) == drawn(0, 0.005)
    assert drawn(0, 0.0) != drawn(1, 0.0)
    first, second = drawn(0, 0.0)[:5], drawn(0, 0.0)[5:]
    assert first != second


def test_what_fits_is_read_once_and_shuffled_uniformly() -> None:
    rows = Counted(6)
    feed = Feed(examples(rows, 6), 2, 1 << 20)
    orders = [tuple(np.concatenate([b.pictures for b in feed.epoch(e)])) for e in range(1, 600)]
    assert sum(len(read) for read in rows.reads) == 6
    counts = np.zeros((6, 6))
    for order in orders:
        counts[np.arange(6), order] += 1
    assert np.abs(counts / len(orders) - 1 / 6).max() < 0.07  # 4.6 standard deviations
    assert len(set(orders)) > 350  # of 720; 406 are expected


def test_what_does_not_fit_is_read_in_windows_within_the_budget() -> None:
    width, n, memory = 512, 4000, 1 << 20  # rows of 1 KiB, 4 MiB in all
    rows = Counted(n, width)
    feed = Feed(examples(rows, n), 32, memory)
    seen = np.concatenate([batch.pictures for batch in feed.epoch(1)])
    np.testing.assert_array_equal(np.sort(seen), np.arange(n))
    assert max(len(read) for read in rows.reads) * 1024 <= memory // 4
    assert all((np.diff(read) > 0).all() for read in rows.reads), "not read front to back"
    # neighbours are not left together: blocks of 256 rows, windows of 224
    jumps = np.abs(np.diff(seen))
    assert np.mean(jumps == 1) < 0.02


def test_memory_stays_within_the_budget() -> None:
    budget, n, width = 8 << 20, 16_000, 2048  # 64 MiB of rows
    feed = Feed(examples(Counted(n, width), n), 32, budget)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in feed.epoch(1):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert budget / 4 < peak - before < 1.25 * budget


def test_rows_of_maps_are_dealt_nearly_one_by_one_where_memory_is_short() -> None:
    rows = Counted(400, 150_528)  # 300 kB; 1024 x 14 x 14 in half precision are 400 kB
    feed = Feed(examples(rows, 400), 16, 32 << 20)
    first = np.concatenate([next(feed.epoch(epoch)).pictures for epoch in range(1, 9)])
    assert np.mean(np.abs(np.diff(first)) == 1) < 0.03
    np.testing.assert_allclose(first.mean() / 400, 0.5, atol=0.1)


def test_views_come_up_once_each_before_any_comes_again() -> None:
    n, V = 50, 4
    feed = Feed(examples(Counted(n * V), n, V), 8, 1 << 20)

    def views(epoch: int) -> np.ndarray:
        taken = np.empty(n, int)
        for batch in feed.epoch(epoch):
            taken[batch.pictures] = batch.activations[:, 0] // n
        return taken

    for turn in (0, 1):
        table = np.stack([views(V * turn + step + 1) for step in range(V)], axis=1)
        np.testing.assert_array_equal(np.sort(table, axis=1), np.tile(np.arange(V), (n, 1)))
    assert len(np.unique(views(1))) == V, "pictures do not take their views together"


def test_made_rows_are_made_for_the_batch_that_needs_them() -> None:
    rows = Counted(40)
    feed = Feed(examples(rows, 40, made=True), 8, 1 << 30)
    next(feed.epoch(1))
    assert sum(map(len, rows.reads)) <= 8 * 4
    list(feed.epoch(2))
    assert max(map(len, rows.reads)) == 8


def test_flat_rows_get_their_shape_back() -> None:
    rows = np.arange(48, dtype=np.float32).reshape(4, 12)
    given = Examples(rows, np.arange(4), np.zeros(4, np.int64), shape=(3, 2, 2))
    (batch,) = Feed(given, 4, 1 << 20).in_order()
    np.testing.assert_array_equal(batch.activations, rows.reshape(4, 3, 2, 2))


def test_batches_are_copies() -> None:
    rows = np.zeros((4, 2), np.float32)
    feed = Feed(Examples(rows, np.arange(4), np.zeros(4, np.int64)), 2, 1 << 20)
    for batch in [*feed.epoch(1), *feed.in_order()]:
        batch.activations[:] = 1
    assert (rows == 0).all()


def test_what_fails_in_the_thread_is_raised_and_the_thread_ends() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise OSError("disk gone")
        return item

    with pytest.raises(OSError, match="disk gone"):
        list(in_order(read, [0, 1, 2, 3], threads=1, ahead=2))
    reader = in_order(read, [0, 1], threads=1, ahead=1)
    assert next(reader) == 0
    reader.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("featcache-feed")]


@pytest.mark.parametrize(
    ("positions", "n", "said"),
    [
        (np.arange(3), 4, r"positions of shape \(3,\) for 4 targets"),
        (np.array([0, 9]), 2, "positions from 0 to 9 of 5 rows"),
        (np.array([-1, 0]), 2, "positions from -1"),
        (np.empty(0, int), 0, "there is no picture to train on or to judge by; give some"),
    ],
)
def test_positions_that_cannot_be_are_refused(positions, n, said) -> None:
    with pytest.raises(TrainingError, match=said):
        Examples(np.zeros((5, 2), np.float32), positions, np.zeros(n, int))
