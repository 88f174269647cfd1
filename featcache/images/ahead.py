"""Work done ahead by threads, in order.

The order of what comes out is the order of what goes in: neither the number of threads nor their
luck can change a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def in_order(
    load_one: Callable[[Item], Loaded], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Loaded, None, None]:
    """What `load_one` makes of each item, in the items' order.

    Args:
        load_one: called in threads.
        items: what to load.
        threads: how many threads.
        ahead: how many items may be loaded before they are asked for; bounds the memory.
    """
    pool = ThreadPoolExecutor(threads, "featcache-ahead")
    queue: deque[Future[Loaded]] = deque()
    try:
        for item in items:
            queue.append(pool.submit(load_one, item))
            if len(queue) > ahead:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
