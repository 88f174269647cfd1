"""Leases: one writer at a time where a file system has no locks, as some of networks have none.

A lease is a file `.lease-<number>`, and the highest number is in force. Creating one that must not
be there yet is what every file system does for one process only, so of all that want to follow on
lease n, one gets n + 1. Its holder writes a new count into it every few seconds. Who waits sees it
change, and only when it has not for long, by his own clock, does he follow on it: clocks of two
machines are never compared, and no process is known by its number. The file stays when it is
released, so that the numbers go on.

A holder that was stopped for longer than that has lost its lease, and finds so at its next check,
which comes before each change. Only if it is stopped between check and change do two write; then
what is in force is still one manifest, and a shard that is not its own is found by its hash.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import threading
import time
from pathlib import Path

from featcache.errors import CacheBusyError, StoreError
from featcache.store.files import naming

LEASE = ".lease-"

BEAT_SECONDS = 5.0
"""Between two counts of a holder."""

EXPIRES_SECONDS = 30.0
"""Without a new count, after which a lease is followed on."""

_FREE = b"free\n"
_MOST_BYTES = 1000


class Lease:
    """The right to write a folder, as long as its count goes on; made by `acquire`."""

    def __init__(self, path: Path, token: str, holder: str) -> None:
        self._path, self._token, self._holder, self._count = path, token, holder, 0
        self._ended, self._beating = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._go_on, name="featcache-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Count once more, and refuse to go on if the lease is not this one's any more.

        Raises:
            StoreError: someone else has followed on it.
        """
        with naming(self._path):
            if self._beat():
                return
        raise StoreError(
            f"{self._path.parent}: this process gave no sign of life for {EXPIRES_SECONDS:g} s, "
            "and another took the cache over; what was finished is kept. Run again"
        )

    def release(self) -> None:
        """Let others follow at once."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if self._is_ours():
                self._path.write_bytes(_FREE)

    def _go_on(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the next one may pass; a check tells the rest
                if not self._beat():
                    return

    def _beat(self) -> bool:
        """Write a new count; false if someone else has followed."""
        with self._beating:
            if not self._is_ours():
                return False
            self._count += 1
            with self._path.open("r+b") as file:  # it may be gone: never made anew
                file.write(_content(self._token, self._count, self._holder))
            return True

    def _is_ours(self) -> bool:
        return _read(self._path).startswith(self._token.encode())


def acquire(folder: Path, wait: float) -> Lease:
    """Take a folder's lease.

    Args:
        folder: an existing folder.
        wait: seconds; where someone holds it, at least until it is seen whether he lives.

    Raises:
        CacheBusyError: its holder lives; says who it is.
    """
    deadline = time.monotonic() + wait
    seen, since = None, 0.0
    while True:
        number = _highest(folder)
        found = number, _read(_place(folder, number))
        expired = found == seen and time.monotonic() - since >= EXPIRES_SECONDS
        if number == 0 or found[1] == _FREE or expired:
            if (lease := _follow(folder, number)) is not None:
                return lease
        elif found != seen:
            if seen is not None and time.monotonic() >= deadline:
                raise busy(folder, found[1].decode(errors="replace").partition("\n")[2].strip())
            seen, since = found, time.monotonic()
        time.sleep(BEAT_SECONDS / 50)


def are_used(folder: Path) -> bool:
    """Whether a folder was ever written by lease."""
    return _highest(folder) > 0


def busy(folder: Path, holder: str) -> CacheBusyError:
    """What to raise where another process writes."""
    return CacheBusyError(
        f"{folder}: {holder or 'another process'} is writing this cache; wait for it, or use "
        "another --out"
    )


def whoami() -> str:
    """This process, for people to find."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"another process ({os.getpid()} on {socket.gethostname()}, since {now})"


def _follow(folder: Path, number: int) -> Lease | None:
    """Make the lease after one; None if someone else did."""
    token, holder, path = secrets.token_hex(8), whoami(), _place(folder, number + 1)
    try:
        with path.open("xb") as file:
            file.write(_content(token, 0, holder))
    except FileExistsError:
        return None
    except OSError:
        path.unlink(missing_ok=True)
        raise
    if _highest(folder) > number + 1:  # listed while others came and went
        path.unlink(missing_ok=True)
        return None
    for earlier in _numbers(folder) - {number + 1}:
        with contextlib.suppress(OSError):
            _place(folder, earlier).unlink()
    return Lease(path, token, holder)


def _content(token: str, count: int, holder: str) -> bytes:
    return f"{token} {count:012d}\n{holder}\n".encode()


def _read(path: Path) -> bytes:
    """What a lease says; nothing if it is gone. Opened anew, since networks cache what is open."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(_MOST_BYTES) or b""
    except FileNotFoundError:
        return b""


def _numbers(folder: Path) -> set[int]:
    found = (re.fullmatch(rf"{re.escape(LEASE)}(\d+)", path.name) for path in folder.iterdir())
    return {int(match[1]) for match in found if match}


def _highest(folder: Path) -> int:
    return max(_numbers(folder), default=0)


def _place(folder: Path, number: int) -> Path:
    return folder / f"{LEASE}{number:06d}"
