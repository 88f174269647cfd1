"""Work done one step behind by a thread: what is finished is written while the next is computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Self


class Behind:
    """Calls in a thread, one at a time and in order; used as a context.

    An error of a call comes out at the next one, or at the end. The end waits for the last call,
    also where an error or an interruption brings it about, so that what is finished is kept.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "featcache-behind")
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        interrupted = False
        while self._last is not None and not self._last.done():
            try:
                wait([self._last])
            except KeyboardInterrupt:  # what is being written holds the cache until it is there
                interrupted = True
        self._pool.shutdown()
        if kind is None:
            self.wait()
        if interrupted:
            raise KeyboardInterrupt

    def do(self, call: Callable[[], None]) -> None:
        """Begin a call, after the one before it is done."""
        self.wait()
        self._last = self._pool.submit(call)

    def wait(self) -> None:
        """Until the last call is done; raises its error."""
        last, self._last = self._last, None
        if last is not None:
            last.result()
