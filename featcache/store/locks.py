"""One writer at a time.

A lock of the kernel's, which ends with the process that holds it, however it ends: nothing is stale
after a kill, and no process is known by a number that another might have by now. Where a file
system has no locks, a lease stands in its place; where both are seen, both are needed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from featcache.errors import CacheBusyError, StoreError
from featcache.store import leases
from featcache.store.files import naming
from featcache.store.leases import Lease

LOCK = ".lock"

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What file systems say that have no locks."""

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_POLL_SECONDS = 0.05
_NAMED_WITHIN_SECONDS = 1.0
"""A holder without a name has only just come, or is about to let go."""
_MOST_BYTES = 1000

_held: set[int] = set()

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond what is read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _close_inherited() -> None:
        """A forked child holds nothing: else a lock would outlive the process that took it."""
        for descriptor in _held:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        _held.clear()

    os.register_at_fork(after_in_child=_close_inherited)


class Hold:
    """The right to write a folder, until it is released."""

    def __init__(self, folder: Path, descriptor: int | None, lease: Lease | None) -> None:
        self._folder, self._descriptor, self._lease = folder, descriptor, lease

    def check(self) -> None:
        """Refuse to go on where someone else may write by now; called before each change.

        Raises:
            StoreError: the folder is not the one that was taken, or a lease ran out.
        """
        if self._descriptor is not None and not _is_at(self._folder / LOCK, self._descriptor):
            raise StoreError(
                f"{self._folder}: the folder was moved, removed or replaced while it was written; "
                "see what is there now, then run again"
            )
        if self._lease is not None:
            self._lease.check()

    def release(self) -> None:
        """Let others write."""
        if self._lease is not None:
            self._lease.release()
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            _let_go(self._descriptor)


@contextmanager
def locked(folder: Path, *, wait: float = 0.0) -> Generator[Hold, None, None]:
    """Hold the write lock of a folder.

    Args:
        folder: an existing folder.
        wait: seconds to wait for another holder.

    Raises:
        CacheBusyError: another process holds it; says which.
    """
    with naming(folder / LOCK):
        hold = _take(folder, wait)
    try:
        yield hold
    finally:
        hold.release()


def _take(folder: Path, wait: float) -> Hold:
    """What is needed here: a lock, a lease where there are no locks, both where there were none.

    Whoever has a lock names himself in it before he looks for leases, and whoever has a lease looks
    for a name after he took it: of two who take both ways at once, one at least sees the other.
    """
    place = folder / LOCK
    descriptor = _locked(folder, wait)
    if descriptor is None:
        lease = leases.acquire(folder, wait)
        if name := _holder(place):
            lease.release()
            raise CacheBusyError(
                f"{folder}: {name} seems to write this cache, and its file system gives no locks "
                f"to be sure; wait for it, or if it is no more, remove {place}"
            )
        return Hold(folder, None, lease)
    hold = Hold(folder, descriptor, None)
    try:
        _name_holder(descriptor)
        if leases.are_used(folder):
            return Hold(folder, descriptor, leases.acquire(folder, wait))
    except BaseException:
        hold.release()
        raise
    return hold


def _locked(folder: Path, wait: float) -> int | None:
    """A descriptor that holds the kernel's lock; None where there is no such thing."""
    place, deadline = folder / LOCK, time.monotonic() + wait
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in NO_LOCKS:
                return None
            if error.errno not in _BUSY:
                raise
            late, name = time.monotonic() - deadline, _holder(place)
            if late >= 0 and (name or late >= _NAMED_WITHIN_SECONDS):
                raise leases.busy(folder, name) from error
            time.sleep(_POLL_SECONDS)
        else:
            _held.add(descriptor)
            if _is_at(place, descriptor):
                return descriptor
            _let_go(descriptor)  # who held it before removed the folder


def _let_go(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _is_at(place: Path, descriptor: int) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(place.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _name_holder(descriptor: int) -> None:
    """Leave word of who holds it; a full disk can be pruned all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, leases.whoami().encode())


def _holder(place: Path) -> str:
    """Who left word in a lock; nobody if it cannot be read."""
    with contextlib.suppress(OSError), place.open("rb") as file:
        return file.read(_MOST_BYTES).decode(errors="replace").strip()
    return ""
