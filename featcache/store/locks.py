"""One writer at a time: a lock of the kernel's, which ends with the process that holds it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import filelock

from featcache.errors import CacheBusyError
from featcache.store.files import naming

LOCK = ".lock"


@contextmanager
def locked(folder: Path, *, wait: float = 0.0) -> Generator[None, None, None]:
    """Hold the write lock of a folder.

    Args:
        folder: an existing folder.
        wait: seconds to wait for another holder.

    Raises:
        CacheBusyError: another process holds it.
    """
    lock = filelock.FileLock(folder / LOCK)
    with naming(folder / LOCK):
        try:
            lock.acquire(timeout=wait)
        except filelock.Timeout as error:
            raise CacheBusyError(
                f"{folder}: another process is writing this cache; wait for it, or use another "
                "--out"
            ) from error
    try:
        yield
    finally:
        lock.release()
