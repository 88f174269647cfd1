"""Where the time of work in threads goes."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager


class Clock:
    """Seconds by name, added up over threads.

    Attributes:
        cpu: seconds that threads computed, by stage.
        waited: seconds that passed while a thread waited, by what for.
        elsewhere: of `cpu`, seconds that other processes computed.
    """

    def __init__(self) -> None:
        self.cpu, self.waited = defaultdict[str, float](float), defaultdict[str, float](float)
        self.elsewhere = 0.0
        self._lock = threading.Lock()

    def add(self, cpu: Mapping[str, float]) -> None:
        """Count what another process computed, by stage."""
        with self._lock:
            for stage, seconds in cpu.items():
                self.cpu[stage] += seconds
                self.elsewhere += seconds

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Within it the calling thread's CPU time counts for a stage; stages don't nest."""
        return self._timing(self.cpu, name, time.thread_time)

    def waiting(self, name: str) -> AbstractContextManager[None]:
        """Within it the time that passes counts as waited."""
        return self._timing(self.waited, name, time.perf_counter)

    @contextmanager
    def _timing(
        self, seconds: defaultdict[str, float], name: str, now: Callable[[], float]
    ) -> Generator[None, None, None]:
        started = now()
        try:
            yield
        finally:
            with self._lock:
                seconds[name] += now() - started
