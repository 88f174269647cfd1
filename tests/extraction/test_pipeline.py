"""Decoded in threads, in order, no further ahead than asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from featcache.errors import SourceMissingError
from featcache.images.ahead import in_order


def decoding_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("featcache-decode")]


def slow_at_first(item: int) -> int:
    time.sleep(0.02 if item % 3 == 0 else 0)
    return item * item


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_comes_out_has_the_order_of_what_goes_in(threads: int) -> None:
    found = list(in_order(slow_at_first, range(20), threads=threads, ahead=7))
    assert found == [i * i for i in range(20)]
    assert decoding_threads() == []


def test_no_more_than_asked_is_loaded_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(100):
            taken += 1
            yield i

    with closing(in_order(lambda i: i, items(), threads=2, ahead=4)) as loaded:
        assert [next(loaded) for _ in range(10)] == list(range(10))
        assert taken == 14


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
