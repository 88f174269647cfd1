"""Memory of pictures that threads decode side by side: how much at once, and its reuse."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

from PIL import Image


class Budget:
    """A number of pixels that may be in memory at once, shared by threads.

    Args:
        pixels: the number. A picture of more is let in when it is alone.

    Attributes:
        free: how many are not held just now.
    """

    def __init__(self, pixels: int) -> None:
        self.free = self._all = pixels
        self._refuses = False
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def held(self, pixels: int) -> Generator[None, None, None]:
        """Hold so many pixels, once they are free; who came first goes first, however large.

        Raises:
            MemoryError: more than are ever held here; see `refuse_over`.
        """
        if self._refuses and pixels > self._all:
            raise MemoryError(f"{pixels:,} pixels")
        share = min(pixels, self._all)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self.free >= share)
            self.free -= share
        try:
            yield
        finally:
            with self._changed:
                self.free += share
                self._changed.notify_all()

    def refuse_over(self, pixels: int) -> None:
        """From now on hold no more than so many, not even alone: others have a share as large."""
        self.free = self._all = pixels
        self._refuses = True


class _Reuse:
    """Who asked Pillow to keep memory, and what was set before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = self.before = 0


_reuse = _Reuse()

_BLOCKS = 8
"""Blocks of 16 MiB that are kept for each thread: what 12 megapixels take, turned upright too."""

DECODED = Budget(max(128_000_000, 16_000_000 * (os.cpu_count() or 1)))
"""Pixels that are decoded and not yet resized, in the whole process; each takes 4 to 8 bytes."""

RESIZED = Budget(DECODED.free)
"""Pixels of resized pictures that are not yet cropped: of a strip there are more than before. Only
who holds decoded ones waits for these, so that nobody waits in a circle."""


@contextmanager
def reused_memory(threads: int) -> Generator[None, None, None]:
    """Within it Pillow keeps the memory of large pictures that are gone for those that come.

    New pages cost the system half of what decoding costs: without this 12 megapixels take half as
    long again. The setting is the process's; the last one out restores it.
    """
    core = Image.core
    with _reuse.lock:
        if not _reuse.users:
            _reuse.before = core.get_blocks_max()
        _reuse.users += 1
        core.set_blocks_max(max(_BLOCKS * threads, core.get_blocks_max()))
    try:
        yield
    finally:
        with _reuse.lock:
            _reuse.users -= 1
            if not _reuse.users:
                core.set_blocks_max(_reuse.before)
