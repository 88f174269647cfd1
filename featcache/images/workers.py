"""Decoding in processes of its own, where one interpreter's lock would keep many cores idle.

A worker is a Python that loads pictures and nothing else: it is sent one pickled function, then
chunks of items, and answers each with what the function makes of them. A thread here waits for
each, so whoever has threads do work can have workers do it. They are started, not forked: a fork
of a process that computes on a GPU or in threads may hang. That takes them a second, so they are
started as soon as it is known that they will be wanted. They end when their input does, however
this process ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, Any, Generic, Self, TypeVar, cast

from featcache.images.clock import Clock
from featcache.images.memory import DECODED, RESIZED, reused_memory

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

LARGE = 16_000_000
"""Pixels of a picture that a worker leaves to this process, where all large ones share a budget."""

_PIPE = 1 << 20
"""Bytes of a pipe, where the system lets it be so large: a few pictures."""

_START = "import sys; sys.path[:] = {path!r}; from featcache.images.workers import serve; serve()"

_GONE = (EOFError, OSError, pickle.UnpicklingError)
"""What talking to a worker that was killed raises."""


class Workers(Generic[Item, Loaded]):
    """Processes that load items; until they are there, and in the place of killed ones, this one.

    Within a `with` block: at its end they end.

    Args:
        load_one: what is done with an item; can be pickled, and takes a keyword `clock`.
        again: whether what a worker made of an item is to be made anew here.
    """

    def __init__(
        self,
        load_one: Callable[..., Loaded],
        *,
        again: Callable[[Loaded], bool],
    ) -> None:
        self._load_one, self._again = load_one, again
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._started = list[_Worker]()
        self._warned = False

    def __len__(self) -> int:
        return len(self._started)

    def start(self, count: int) -> None:
        """Have so many processes, and wait for none of them."""
        if len(self) >= count:
            return
        begin = pickle.dumps(self._load_one)
        with contextlib.suppress(OSError):  # the system allows no more: then those there are
            while len(self) < count:
                self._started.append(_Worker(begin, self._idle.put))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        started, self._started = self._started, []
        for worker in started:
            worker.kill()
        for worker in started:
            worker.close()

    def load(self, items: Sequence[Item], clock: Clock) -> list[Loaded]:
        """What is made of each item, by a worker if one is idle. Called from several threads.

        Args:
            items: what to load.
            clock: of the stages that `load_one` times.
        """
        here = partial(self._load_one, clock=clock)
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            return [here(item) for item in items]
        try:
            loaded, seconds = worker.ask(items)
        except _GONE:
            with contextlib.suppress(ValueError):
                self._started.remove(worker)  # the next `start` fills up
            worker.kill()
            worker.close()
            self._warn()
            return [here(item) for item in items]
        self._idle.put(worker)
        clock.add(seconds)
        return [
            here(item) if self._again(made) else made
            for item, made in zip(items, loaded, strict=True)
        ]

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning("a process that decodes pictures was ended; the others go on without it")


class _Worker:
    """One process, and the pipes to it.

    Args:
        begin: the pickled function.
        ready: called in a thread once the process can be asked.
    """

    def __init__(self, begin: bytes, ready: Callable[[_Worker], None]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pipesize=_PIPE,
            process_group=0 if os.name == "posix" else None,  # Ctrl-C is for this process
        )
        self._welcome = threading.Thread(target=self._begin, args=(begin, ready), daemon=True)
        self._welcome.start()

    def ask(self, items: Sequence[Any]) -> tuple[list[Any], dict[str, float]]:
        """What is made of items, and CPU seconds by stage; one thread at a time."""
        self._send(pickle.dumps(items))
        return self._receive()

    def kill(self) -> None:
        """End it, whatever it does; it has nothing to lose."""
        self._process.kill()

    def close(self) -> None:
        """Wait for its end, and let go of the pipes."""
        self._process.wait()
        self._welcome.join()  # its read ends with the process; nobody else reads any more
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was to be sent
                cast(IO[bytes], pipe).close()

    def _begin(self, begin: bytes, ready: Callable[[_Worker], None]) -> None:
        with contextlib.suppress(*_GONE):
            self._send(begin)
            self._receive()
            ready(self)

    def _send(self, message: bytes) -> None:
        pipe = cast(IO[bytes], self._process.stdin)
        pipe.write(message)
        pipe.flush()

    def _receive(self) -> Any:
        return pickle.load(cast(IO[bytes], self._process.stdout))


def serve() -> None:
    """What a worker runs, until its input ends."""
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints comes between the answers
    for budget in (DECODED, RESIZED):
        budget.refuse_over(LARGE)
    with contextlib.suppress(EOFError, OSError), reused_memory(1):
        load_one = pickle.load(incoming)
        _answer(outgoing, "ready")
        while True:
            items, clock = pickle.load(incoming), Clock()
            _answer(outgoing, ([load_one(item, clock=clock) for item in items], dict(clock.cpu)))


def _answer(outgoing: IO[bytes], message: Any) -> None:
    pickle.dump(message, outgoing, protocol=5)
    outgoing.flush()
