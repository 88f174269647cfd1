"""Work done ahead by threads, in order.

The order of what comes out is the order of what goes in: neither the number of threads nor their
luck can change a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def in_order(
    load_one: Callable[[Item], Loaded],
    items: Iterable[Item],
    *,
    threads: int,
    ahead: int,
    at_once: int = 1,
) -> Generator[Loaded, None, None]:
    """What `load_one` makes of each item, in the items' order.

    Args:
        load_one: called in threads.
        items: what to load.
        threads: how many threads.
        ahead: how many items may be loaded before they are asked for; bounds the memory.
        at_once: items that a thread loads before it hands them over: handing over short work item
            by item, threads wait for the interpreter's lock for longer than the work takes. What is
            raised for one of them stands for them all.
    """

    def load_some(some: list[Item]) -> list[Loaded]:
        return [load_one(item) for item in some]

    most = max((ahead + 1) // at_once - 1, 0)  # beside those that are handed over
    pool = ThreadPoolExecutor(threads, "featcache-ahead")
    queue: deque[Future[list[Loaded]]] = deque()
    left = iter(items)
    try:
        while some := list(islice(left, at_once)):
            queue.append(pool.submit(load_some, some))
            if len(queue) > most:
                yield from _handed_over(queue.popleft().result())
        while queue:
            yield from _handed_over(queue.popleft().result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _handed_over(loaded: list[Loaded]) -> Generator[Loaded, None, None]:
    """One by one, and kept no longer than until then."""
    loaded.reverse()
    while loaded:
        yield loaded.pop()
