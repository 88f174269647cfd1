"""A file layer that sees every change made below a folder, and can fail it or stop there.

The calls by which Python reaches the file system are replaced while it is entered. Each change is
shown to `before`, which may raise or end the process; then it is made and noted. A write is always
two: the first half of its bytes, then, as after any short write, the rest. Syncing is noted and not
passed on: what would last is `power.Disk`'s to say, and waiting for a real disk says nothing.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

CREATE, WRITE, CUT, SYNC = "create", "write", "truncate", "sync"
RENAME, REMOVE, FOLDER, REMOVE_FOLDER = "rename", "remove", "make folder", "remove folder"


@dataclass(frozen=True)
class Change:
    """One change, or a sync; paths are relative to the watched folder.

    Attributes:
        target: the new name, of a rename. offset, data: of a write; offset is also where a file is
            cut off.
    """

    kind: str
    path: str
    target: str = ""
    offset: int = 0
    data: bytes = b""


Before = Callable[[int, Change], None]
"""Called with a change and how many came before it."""


def nothing(number: int, change: Change) -> None:
    """Let every change pass."""


def killing(at: int) -> Before:
    """End the process as kill -9 does, before a change."""

    def before(number: int, change: Change) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return before


def failing(at: int, error: int, *, ever_after: bool = False) -> Before:
    """Fail a change, or it and all that follow, with an error of the system."""

    def before(number: int, change: Change) -> None:
        if number == at or (ever_after and number > at):
            raise OSError(error, os.strerror(error), change.path)

    return before


class Watched:
    """A folder whose changes are seen; used as a context.

    Attributes:
        changes: that were made. met: how many were tried.
    """

    def __init__(self, root: Path, before: Before = nothing) -> None:
        self.changes: list[Change] = []
        self.met = 0
        self._root, self._before = Path(os.path.realpath(root)), before
        self._patch = pytest.MonkeyPatch()
        self._short: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        for name in ("open", "fsync", "write", "ftruncate", "mkdir", "rmdir"):
            self._patch.setattr(os, name, getattr(self, f"_{name}"))
        for name in ("rename", "replace"):
            self._patch.setattr(os, name, self._rename)
        for name in ("unlink", "remove"):
            self._patch.setattr(os, name, self._unlink)
        for module in (io, builtins):
            self._patch.setattr(module, "open", self._open_file)
        return self

    def __exit__(self, *exception: object) -> None:
        self._patch.undo()

    def make(self, change: Change, call: Callable[[], Any]) -> Any:
        """Make a change, unless it is stopped."""
        number, self.met = self.met, self.met + 1
        self._before(number, change)
        result = call()
        self.changes.append(change)
        return result

    def _name(self, path: Any, dir_fd: int | None = None) -> str | None:
        """A path within the watched folder; None for any other."""
        if isinstance(path, int):
            place = Path(f"/proc/self/fd/{path}").readlink()
        else:
            folder = Path.cwd() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").resolve()
            place = folder / os.fsdecode(path)
            place = Path(os.path.realpath(place.parent)) / place.name
        if place == self._root or not place.is_relative_to(self._root):
            return "." if place == self._root else None
        return str(place.relative_to(self._root))

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = self._name(path, dir_fd)
        opened = lambda: _REAL["open"](path, flags, mode, dir_fd=dir_fd)  # noqa: E731
        there = name is not None and os.path.lexists(path)
        if name is not None and flags & os.O_CREAT and not there:
            return self.make(Change(CREATE, name), opened)
        if name is not None and flags & os.O_TRUNC and there:
            return self.make(Change(CUT, name), opened)
        return opened()

    def _open_file(self, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options):
        writes = set(mode) & set("wax+")
        name = None if isinstance(file, int) or not writes else self._name(file)
        if name is None:
            return _REAL["open_file"](file, mode, buffering, *args, **options)
        raw = _File(self, name, file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **options)

    def written(self, name: str, offset: int, data: bytes, write: Callable[[bytes], int]) -> int:
        """Write half of some bytes, as a short write does; what follows on such a one, whole."""
        goes_on = self._short == (name, offset)
        some = data if goes_on else data[: -(-len(data) // 2)]
        self._short = None if goes_on else (name, offset + len(some))
        return self.make(Change(WRITE, name, offset=offset, data=some), lambda: write(some))

    def _write(self, descriptor: int, data: Any) -> int:
        name = self._named_file(descriptor)
        write = lambda some: _REAL["write"](descriptor, some)  # noqa: E731
        if name is None:
            return write(data)
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        return self.written(name, offset, bytes(data), write)

    def _ftruncate(self, descriptor: int, length: int) -> None:
        name = self._named_file(descriptor)
        call = lambda: _REAL["ftruncate"](descriptor, length)  # noqa: E731
        return call() if name is None else self.make(Change(CUT, name, offset=length), call)

    def _named_file(self, descriptor: int) -> str | None:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return self._name(descriptor) if regular else None

    def _fsync(self, descriptor: int) -> None:
        name = self._name(descriptor)
        if name is not None:
            self.make(Change(SYNC, name), lambda: None)

    def _rename(self, source: Any, target: Any, **options: Any) -> None:
        old, new = self._name(source), self._name(target)
        call = lambda: _REAL["rename"](source, target, **options)  # noqa: E731
        return call() if old is None or new is None else self.make(Change(RENAME, old, new), call)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._change(REMOVE, path, dir_fd, lambda: _REAL["unlink"](path, dir_fd=dir_fd))

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._change(FOLDER, path, dir_fd, lambda: _REAL["mkdir"](path, mode, dir_fd=dir_fd))

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._change(REMOVE_FOLDER, path, dir_fd, lambda: _REAL["rmdir"](path, dir_fd=dir_fd))

    def _change(self, kind: str, path: Any, dir_fd: int | None, call: Callable[[], None]) -> None:
        name = self._name(path, dir_fd)
        changes = os.path.lexists(path) != (kind == FOLDER) or dir_fd is not None
        if name is None or not changes:
            call()
        else:
            self.make(Change(kind, name), call)


class _File(io.FileIO):
    """A file opened for writing below a watched folder."""

    def __init__(self, watched: Watched, name: str, path: Any, mode: str) -> None:
        self._watched, self._name_within = watched, name
        super().__init__(path, mode, opener=lambda place, flags: os.open(place, flags, 0o666))

    def truncate(self, size: int | None = None) -> int:
        change = Change(CUT, self._name_within, offset=self.tell() if size is None else size)
        return self._watched.make(change, lambda: super(_File, self).truncate(size))

    def write(self, data: Any) -> int:
        offset = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        return self._watched.written(self._name_within, offset, bytes(data), super().write)


_REAL: dict[str, Callable[..., Any]] = {
    "open_file": io.open,
    **{
        name: getattr(os, name)
        for name in ("open", "write", "ftruncate", "rename", "unlink", "mkdir", "rmdir")
    },
}
