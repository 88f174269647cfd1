"""Calls behind: in order, one at a time, and nothing that was begun is lost."""

from __future__ import annotations

import threading

import pytest

from featcache.extraction.behind import Behind


def test_calls_run_beside_the_caller_in_order() -> None:
    done: list[int] = []
    gate = threading.Event()

    def first() -> None:
        assert gate.wait(10)
        done.append(0)

    with Behind() as behind:
        behind.do(first)
        assert done == []  # it waits for the gate, and nobody waits for it
        gate.set()
        for number in range(1, 5):
            behind.do(lambda number=number: done.append(number))
            assert number - 1 in done
    assert done == [0, 1, 2, 3, 4]


def test_an_error_comes_out_at_the_next_call_and_nothing_after_it_is_begun() -> None:
    done: list[int] = []

    def two_calls() -> None:
        with Behind() as behind:
            behind.do(lambda: done.append(1 // 0))
            behind.do(lambda: done.append(1))

    with pytest.raises(ZeroDivisionError):
        two_calls()
    assert done == []


def test_the_end_waits_and_tells_of_an_error() -> None:
    with pytest.raises(ZeroDivisionError), Behind() as behind:
        behind.do(lambda: [][1 // 0])


def test_an_interruption_waits_for_what_was_begun() -> None:
    done: list[int] = []
    gate = threading.Event()

    def call() -> None:
        assert gate.wait(10)
        done.append(1)

    def interrupted() -> None:
        with Behind() as behind:
            behind.do(call)
            gate.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [1]
