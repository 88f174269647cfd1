"""Where the time of an extraction went."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from featcache.engines import available_cores
from featcache.images.clock import Clock

Item = TypeVar("Item")

STAGES = ("read", "decode", "transform", "write")
"""What is timed by itself; the forward pass is the rest of what the process computed."""


class Watch:
    """Seconds since it was made, pauses left out."""

    def __init__(self) -> None:
        self._started, self._paused = time.perf_counter(), 0.0

    @contextmanager
    def paused(self) -> Generator[None, None, None]:
        """Within it nothing is counted."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - began

    def leave_out(self, seconds: float) -> None:
        """Count so many less; where they are negative, more."""
        self._paused += seconds

    @property
    def seconds(self) -> float:
        """Until now."""
        return time.perf_counter() - self._started - self._paused


class Profile:
    """Time of passes over the pictures, and of what is done outside of them.

    Attributes:
        clock: of the passes' stages and waits.
        seconds: that passes took.
        outside: seconds that were spent on other things, by name.
    """

    def __init__(self) -> None:
        self.clock, self.outside = Clock(), defaultdict[str, float](float)
        self.seconds = self._cpu = 0.0

    @property
    def cpu(self) -> float:
        """Seconds that were computed, in all threads and processes."""
        return self._cpu + self.clock.elsewhere

    @contextmanager
    def running(self) -> Generator[None, None, None]:
        """Within it a step of a pass runs."""
        started, computed = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started
            self._cpu += time.process_time() - computed

    @contextmanager
    def spent_on(self, name: str) -> Generator[None, None, None]:
        """Within it, outside of passes, the time that passes counts for a name; they don't nest."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.outside[name] += time.perf_counter() - started

    def waited_for(self, items: Iterator[Item], name: str) -> Iterator[Item]:
        """Items, the time until each is there counted as waited."""
        while True:
            with self.clock.waiting(name):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def shares(self) -> dict[str, float]:
        """CPU seconds by stage; "idle" is what the cores had left."""
        stages = {stage: self.clock.cpu[stage] for stage in STAGES}
        forward = max(self.cpu - sum(stages.values()), 0.0)
        idle = max(available_cores() * self.seconds - self.cpu, 0.0)
        write = stages.pop("write")
        return {**stages, "forward": forward, "write": write, "idle": idle}
