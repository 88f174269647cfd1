"""Several extractions of one source in one pass: each picture is read and decoded once for all.

They take turns in one thread, batch by batch, the one that is furthest behind next. What one asks
for is made for all that will ask for it; how much of it waits is bounded by how far one can be
ahead, a few batches. What an extraction computes, commits and resumes is its own: it asks for
pixels here instead of decoding itself, and knows no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from featcache.engines import available_cores
from featcache.engines.memory import kept_memory
from featcache.extraction.jobs import Job, Progress
from featcache.extraction.pipeline import Decoders, Pixels, Slot, Unusable
from featcache.extraction.running import Extraction, steps
from featcache.extraction.scanning import Scan
from featcache.images.clock import Clock
from featcache.images.loading import Kind
from featcache.images.memory import reused_memory
from featcache.images.sources import Source

Contents = npt.NDArray[np.void]
Loaded = Future[dict[Kind, Pixels | Unusable]]

_FIRST, _DONE = b"", b"\xff" * 33
"""Places before and after every content."""


def run_together(jobs: Sequence[Job], progress: Progress | None = None) -> list[Extraction]:
    """Bring the caches of several backbones up to date with one source.

    Args:
        jobs: of one source, with a folder each.
        progress: called with (stage, done, total), of all together.

    Raises:
        As `run`, for the first that fails; what all of them finished until then is kept.
    """
    told = _Told(progress)
    with ExitStack() as held:
        held.enter_context(kept_memory())
        together = held.enter_context(Together(jobs[0].source, jobs[0].threads))
        seats = [together.seat() for _ in jobs]
        runs = [
            steps(replace(job, seat=seat), told.of(number))
            for number, (job, seat) in enumerate(zip(jobs, seats, strict=True))
        ]
        for run in runs:
            held.callback(run.close)
        return _in_turn(runs, seats)


def _in_turn(
    runs: Sequence[Generator[None, None, Extraction]], seats: Sequence[Seat]
) -> list[Extraction]:
    """Until all are done: a step of the one that is furthest behind, by turns where several are."""
    found: dict[int, Extraction] = {}
    count, taken = len(runs), 0
    for number in range(count):  # all have said what they want before the first picture is read
        _step(runs, number, found)
    while len(found) < count:
        first = taken // count  # whoever goes first waits for pixels: not always the same one
        places = {n: (seats[n].place, (n - first) % count) for n in range(count) if n not in found}
        _step(runs, min(places, key=places.__getitem__), found)
        taken += 1
    return [found[number] for number in range(count)]


def _step(
    runs: Sequence[Generator[None, None, Extraction]], number: int, found: dict[int, Extraction]
) -> None:
    try:
        next(runs[number])
    except StopIteration as end:
        found[number] = end.value


class _Told:
    """Progress of all, added up."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._stages: dict[str, dict[int, tuple[int, int]]] = {}

    def of(self, number: int) -> Progress | None:
        """What one of them calls."""
        progress = self._progress
        if progress is None:
            return None

        def report(stage: str, done: int, total: int) -> None:
            each = self._stages.setdefault(stage, {})
            each[number] = done, total
            progress(stage, *(sum(numbers) for numbers in zip(*each.values(), strict=True)))

        return report


@dataclass(eq=False)
class Seat:
    """Where one of the extractions asks for pixels.

    Attributes:
        together: all of them.
        place: the content it asked for last; before the first and after the last one there is
            none, which is below and above all.
        kind: what it asks for now. wanted: sorted contents it asks for now. asked: how many of
            them it asked for already.
    """

    together: Together
    place: bytes = _FIRST
    kind: Kind | None = None
    wanted: Contents = field(default_factory=lambda: np.empty(0, "V32"))
    asked: int = 0

    def pixels(
        self,
        kind: Kind,
        wanted: Contents,
        slots: Iterable[Slot],
        *,
        ahead: int,
        clock: Clock,
    ) -> Generator[Pixels | Unusable, None, None]:
        """(V, H, W, 3) pixels of each slot in order, as `stream_pixels` gives them.

        Args:
            kind: what is made of each.
            wanted: the slots' contents, sorted as the slots are.
            slots: what to load.
            ahead: how many may be loaded before they are asked for.
            clock: of reading and decoding, for whoever was first to ask for a picture.
        """
        self.kind, self.wanted, self.asked, self.place = kind, wanted, 0, _FIRST
        self.together.watch(clock)
        return self._given(kind, slots, ahead, clock)

    def _given(
        self, kind: Kind, slots: Iterable[Slot], ahead: int, clock: Clock
    ) -> Generator[Pixels | Unusable, None, None]:
        queue: deque[Loaded] = deque()
        try:
            for slot in slots:
                queue.append(self.together.loaded(self, kind, slot, clock))
                if len(queue) > ahead:
                    yield queue.popleft().result()[kind]
            while queue:
                yield queue.popleft().result()[kind]
        finally:
            self.leave()

    def waited_for_others(self, clock: Clock) -> float:
        """Seconds that one waited for pixels beyond its equal part of what all did."""
        return self.together.waited_beyond(clock)

    def wants(self, content: bytes) -> bool:
        """Whether a content is still to be asked for."""
        at = int(np.searchsorted(self.wanted, _opaque(content)))
        return self.asked <= at < len(self.wanted) and self.wanted[at].tobytes() == content

    def take(self, content: bytes) -> None:
        """Note that a content is asked for."""
        self.asked, self.place = self.asked + 1, content

    def leave(self) -> None:
        """Nothing more is wanted."""
        self.place, self.asked = _DONE, len(self.wanted)
        self.together.forget(self)


@dataclass(eq=False)
class _Entry:
    """A picture that is being made, and the seats that have not asked for it yet."""

    future: Loaded
    awaited_by: set[int]


class Together:
    """What extractions of one source share; used as a context.

    Args:
        source: where the samples are.
        threads: that decode; None takes all cores.

    Attributes:
        decoders: of the pictures of all.
        fresh: the last scan that one of them made, whose stat keys vouch for the next.
    """

    def __init__(self, source: Source, threads: int | None) -> None:
        self._threads = threads or available_cores()
        self.decoders = Decoders(source, self._threads)
        self.fresh: Scan | None = None
        self._seats: list[Seat] = []
        self._entries: dict[bytes, _Entry] = {}
        self._clocks: list[Clock] = []
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(self.decoders)
        self._held.enter_context(reused_memory(self._threads))
        self._pool = ThreadPoolExecutor(self._threads, "featcache-together")
        self._held.callback(self._pool.shutdown, wait=True, cancel_futures=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._held.close()

    @property
    def size(self) -> int:
        """How many extractions there are."""
        return len(self._seats)

    @property
    def waiting(self) -> int:
        """Pictures that somebody is still to ask for."""
        return len(self._entries)

    def watch(self, clock: Clock) -> None:
        """Count what is waited for by a clock."""
        if not any(known is clock for known in self._clocks):
            self._clocks.append(clock)

    def waited_beyond(self, clock: Clock) -> float:
        """See `Seat.waited_for_others`; negative for one that others waited for."""
        if not any(known is clock for known in self._clocks):
            return 0.0
        waits = [known.waited.get("pixels", 0.0) for known in self._clocks]
        return clock.waited.get("pixels", 0.0) - sum(waits) / len(waits)

    def seat(self) -> Seat:
        """A place for one more."""
        self._seats.append(Seat(self))
        return self._seats[-1]

    def loaded(self, seat: Seat, kind: Kind, slot: Slot, clock: Clock) -> Loaded:
        """A picture, made for all who still want it where nobody asked for it before."""
        content = slot.content
        entry = self._entries.get(content)
        if entry is None or id(seat) not in entry.awaited_by:
            entry = self._begun(seat, kind, slot, clock)
        seat.take(content)
        entry.awaited_by.discard(id(seat))
        if not entry.awaited_by:
            self._entries.pop(content, None)
        return entry.future

    def forget(self, seat: Seat) -> None:
        """Wait no longer for a seat."""
        for content, entry in list(self._entries.items()):
            entry.awaited_by.discard(id(seat))
            if not entry.awaited_by:
                del self._entries[content]

    def _begun(self, seat: Seat, kind: Kind, slot: Slot, clock: Clock) -> _Entry:
        self.decoders.expect(max(len(s.wanted) for s in self._seats))  # now that all have chosen
        others = [s for s in self._seats if s is not seat and s.wants(slot.content)]
        kinds = list(dict.fromkeys([kind, *(s.kind for s in others if s.kind)]))
        future = self._pool.submit(self._made, kinds, slot, clock)
        entry = _Entry(future, {id(s) for s in others})
        if others:
            self._entries[slot.content] = entry
        return entry

    def _made(
        self, kinds: Sequence[Kind], slot: Slot, clock: Clock
    ) -> dict[Kind, Pixels | Unusable]:
        return dict(zip(kinds, self.decoders.load(kinds, slot, clock), strict=True))


def _opaque(content: bytes) -> np.void:
    return np.frombuffer(content, "V32")[0]
