"""Durable writing: a file is there whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Generator
from io import FileIO
from pathlib import Path

from featcache.errors import CacheDamagedError, DiskSpaceError, FeatcacheError, StoreError

TEMPORARY = ".tmp-"
"""Prefix of names that no reader looks at; what a killed writer leaves behind starts with it."""

_BLOCK = 1 << 20
_PLAINLY = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
)
"""Flags of opening what may be anything; those that a system does not know are left out."""

_OF_THE_NAME = 50
"""Characters of a name that a temporary one ends with: both must fit 255 bytes."""

_ABANDONED_SECONDS = 24 * 3600
"""Nobody takes so long to write a file."""

_NO_SUCH_THING = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What file systems say that cannot sync a folder."""

_OUT_OF_REACH = (errno.EACCES, errno.EPERM, errno.EROFS)

_ADVICE = {
    errno.EIO: "Check the disk",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "Raise the system's limit of open files, or close what holds them",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.ESTALE: "Mount the network's file system again",
}

_settled: set[Path] = set()
"""Folders that this process knows to be durable."""


def open_regular(path: Path) -> FileIO:
    """Open a file of a cache for reading: never a link, a pipe or a device, and without waiting.

    Raises:
        CacheDamagedError: it is one of these.
        OSError: it cannot be opened; a folder cannot.
    """
    try:
        descriptor = os.open(path, _PLAINLY)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise _not_regular(path) from error
        raise
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return FileIO(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _not_regular(path)


def read_regular(path: Path, most: int) -> bytes:
    """A file's bytes, as `open_regular` opens it.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        CacheDamagedError: it is no regular file, or larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > most else file.read(most + 1)
    if max(size, len(content)) > most:
        raise CacheDamagedError(
            f"{path}: {size / 1e6:.0f} MB, and featcache reads {most / 1e6:.0f} MB of such a file "
            "at most; it is not of featcache's making, so remove it"
        )
    return content


def refuse_links(folder: Path) -> None:
    """Refuse a cache that holds anything but folders and regular files, however deep.

    What a link leads to is no part of the cache: it would be read, overwritten or pruned as if it
    were. The cache's folder itself may be reached by one.

    Raises:
        CacheDamagedError: names the first link, pipe or device.
        StoreError: a folder cannot be read.
    """
    folders = [folder]
    for inner in folders:  # which grow; another process may have removed one
        with naming(inner), contextlib.suppress(FileNotFoundError), os.scandir(inner) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    raise _not_regular(Path(entry.path))


def _not_regular(path: Path) -> CacheDamagedError:
    return CacheDamagedError(
        f"{path}: a link, a pipe or a device, and a cache is made of files and folders only; put "
        "the file itself there, or remove it"
    )


def sha256_file(path: Path) -> str:
    """Hex sha256 of a regular file's bytes."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable (a no-op where folders cannot be opened or synced)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_THING:
            raise
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """A name beside a file's that no one else uses, and that no reader looks at."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name[-_OF_THE_NAME:]}")


def write_durably(
    path: Path, content: bytes | memoryview, check: Callable[[Path], None] | None = None
) -> str:
    """Write a file under a temporary name, check it, and rename it into place.

    The bytes are flushed and fsynced, read back and compared, renamed, and the folder is
    fsynced: after this returns, a crash no longer costs the file.

    Args:
        path: where it is to be.
        content: its bytes.
        check: called with where it is before it is put in place; what it raises keeps it out.

    Returns:
        Hex sha256 of the bytes.

    Raises:
        CacheDamagedError: what was read back is not what was written.
        DiskSpaceError: the disk is full.
        StoreError: any other fault of the file system, by path.
    """
    expected = hashlib.sha256(content).hexdigest()
    temporary = temporary_name(path)
    try:
        with naming(path):
            _write_and_compare(temporary, content, expected)
        if check:
            check(temporary)
        with naming(path):
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    with naming(path):
        sync_folder(path.parent)
    return expected


def _write_and_compare(path: Path, content: bytes | memoryview, expected: str) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if sha256_file(path) != expected:
        raise CacheDamagedError(
            f"{path}: the bytes read back are not those written; check the disk, then run again"
        )


def fill_durably(path: Path, fill: Callable[[Path], None]) -> None:
    """Have a file of any size written under a temporary name, and rename it into place.

    It is fsynced before it is renamed, and the folder after: once this returns, a crash no longer
    costs the file.

    Args:
        path: where it is to be.
        fill: writes and checks it where it is told; what it raises leaves nothing behind.

    Raises:
        DiskSpaceError: the disk is full.
        StoreError: any other fault of the file system, by path.
    """
    temporary = temporary_name(path)
    try:
        with naming(path):
            fill(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    with naming(path):
        sync_folder(path.parent)


@contextlib.contextmanager
def naming(path: Path) -> Generator[None, None, None]:
    """Turn an operating system's error into one that names the file and says what to do."""
    try:
        yield
    except FeatcacheError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskSpaceError(
                f"{path}: the disk is full; what was finished is kept. Free some space, run again"
            ) from error
        advice = _ADVICE.get(error.errno or 0, "Check the folder and its permissions")
        raise StoreError(
            f"{path}: {error.strerror or error}; what was finished is kept. {advice}, then run "
            "again"
        ) from error


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, each durable.

    One that is there is synced too, when a process meets it first: who made it may have been killed
    before. Each is synced before anything is made in it, so its parents are.
    """
    folder = folder.absolute()
    there = folder.is_dir()
    if there and folder in _settled:
        return
    with naming(folder):
        if there:
            _sync_within_reach(folder.parent)
        else:
            make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
    _settled.add(folder)


def _sync_within_reach(folder: Path) -> None:
    """Sync a folder that may be someone else's; what cannot be written has nothing to sync."""
    try:
        sync_folder(folder)
    except OSError as error:
        if error.errno not in _OUT_OF_REACH:
            raise


def remove_leftovers(*folders: Path) -> int:
    """Remove what killed writers left in folders (not below them); returns how many files."""
    leftovers = [path for folder in folders for path in folder.glob(f"{TEMPORARY}*")]
    for path in leftovers:
        with naming(path):
            path.unlink(missing_ok=True)
    return len(leftovers)


def remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of writing one file, where no lock tells who is at it."""
    before = time.time() - _ABANDONED_SECONDS
    for left in path.parent.glob(f"{TEMPORARY}*-{glob.escape(path.name[-_OF_THE_NAME:])}"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < before:
                left.unlink()
