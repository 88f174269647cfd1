"""Decoded in threads, in order, no further ahead than asked."""

from __future__ import annotations

import errno
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from featcache.errors import SourceMissingError
from featcache.images.ahead import in_order
from featcache.store.writing import Writer


def decoding_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("featcache-ahead")]


def slow_at_first(item: int) -> int:
    time.sleep(0.02 if item % 3 == 0 else 0)
    return item * item


@pytest.mark.parametrize("at_once", [1, 3, 50])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_comes_out_has_the_order_of_what_goes_in(threads: int, at_once: int) -> None:
    ordered = in_order(slow_at_first, range(20), threads=threads, ahead=7, at_once=at_once)
    found = list(ordered)
    assert found == [i * i for i in range(20)]
    assert decoding_threads() == []


@pytest.mark.parametrize(("at_once", "ahead"), [(1, 4), (2, 5), (2, 4), (3, 4), (7, 4)])
def test_no_more_than_asked_is_loaded_ahead(at_once: int, ahead: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(100):
            taken += 1
            yield i

    ordered = in_order(lambda i: i, items(), threads=2, ahead=ahead, at_once=at_once)
    with closing(ordered) as loaded:
        for number in range(40):
            assert next(loaded) == number
            assert taken - (number + 1) <= max(ahead, at_once - 1)
            if at_once == 1:
                assert taken == number + 1 + ahead


@pytest.mark.parametrize("at_once", [1, 3])
def test_what_was_handed_over_is_not_kept(at_once: int) -> None:
    with closing(
        in_order(lambda _: np.empty(1), range(9), threads=1, ahead=2, at_once=at_once)
    ) as loaded:
        for each in loaded:
            handed_over = weakref.ref(each)
            del each
            assert handed_over() is None


def test_leaving_early_ends_the_threads() -> None:
    with closing(in_order(slow_at_first, range(100), threads=3, ahead=50)) as loaded:
        next(loaded)
    assert decoding_threads() == []


def test_an_error_of_the_source_comes_through() -> None:
    def gone(item: int) -> int:
        raise SourceMissingError("gone")

    with pytest.raises(SourceMissingError, match="gone"):
        list(in_order(gone, range(10), threads=2, ahead=3))
    assert decoding_threads() == []


def test_a_shard_is_written_while_the_next_is_computed(
    make_lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(range(12))  # three shards of two batches
    commit, waited = Writer.commit_shards, list[bool]()

    def commit_late(self: Writer, *args: Any, **options: Any) -> None:
        if not waited:
            deadline = time.monotonic() + 20
            while lab.stem.batches <= 2 and time.monotonic() < deadline:
                time.sleep(0.001)
            waited.append(lab.stem.batches > 2)
        commit(self, *args, **options)

    monkeypatch.setattr(Writer, "commit_shards", commit_late)
    lab.run()
    assert waited == [True]
    lab.assert_right()


def test_a_shard_that_cannot_be_written_ends_it_and_the_ones_before_are_kept(
    make_lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(range(12))
    write, written = Writer.write_shard, list[int]()

    def full(self: Writer, stream: Any, number: int, shard: Any) -> Any:
        if number == 1:
            raise OSError(errno.ENOSPC, "no space left")
        written.append(number)
        return write(self, stream, number, shard)

    monkeypatch.setattr(Writer, "write_shard", full)
    with pytest.raises(OSError, match="no space left"):
        lab.run()
    assert written == [0]
    monkeypatch.undo()
    assert lab.run().computed == 8
    lab.assert_right()
