"""Memory of activations on a CPU: kept by the process from one layer to the next."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Options of glibc's `mallopt` (malloc.h)."""

_KEEP = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))

_BEFORE = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))
"""Where glibc's own adjustment ends once a process has freed a large block."""


class _Users:
    """How many contexts are open."""

    def __init__(self) -> None:
        self.lock, self.count = threading.Lock(), 0


_users = _Users()


@contextmanager
def kept_memory() -> Generator[None, None, None]:
    """Within it freed memory stays with the process; afterwards it goes back to the system.

    glibc hands blocks above 32 MB back at once and fetches them again page by page, each page
    zeroed by the system. Activations of a batch are such blocks: of a light network's time that is
    half. Elsewhere than on glibc nothing is done.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    with _users.lock:
        _users.count += 1
        _set(libc, _KEEP)
    try:
        yield
    finally:
        with _users.lock:
            _users.count -= 1
            if not _users.count:
                _set(libc, _BEFORE)
                libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, options: tuple[tuple[int, int], ...]) -> None:
    for option, value in options:
        libc.mallopt(option, value)


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    needed = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    return library if all(hasattr(library, name) for name in needed) else None
