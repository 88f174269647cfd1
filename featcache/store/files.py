"""Durable writing: a file is there whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Generator
from pathlib import Path

from featcache.errors import CacheDamagedError, DiskSpaceError, StoreError

TEMPORARY = ".tmp-"
"""Prefix of names that no reader looks at; what a killed writer leaves behind starts with it."""

_BLOCK = 1 << 20


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable (a no-op where folders cannot be opened)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes | memoryview) -> str:
    """Write a file under a temporary name, check it, and rename it into place.

    The bytes are flushed and fsynced, read back and compared, renamed, and the folder is
    fsynced: after this returns, a crash no longer costs the file.

    Returns:
        Hex sha256 of the bytes.

    Raises:
        CacheDamagedError: what was read back is not what was written.
        DiskSpaceError: the disk is full.
        StoreError: any other fault of the file system, by path.
    """
    expected = hashlib.sha256(content).hexdigest()
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    with naming(path):
        try:
            _write_and_check(temporary, content, expected)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    return expected


def _write_and_check(path: Path, content: bytes | memoryview, expected: str) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if sha256_file(path) != expected:
        raise CacheDamagedError(
            f"{path}: the bytes read back are not those written; check the disk, then run again"
        )


@contextlib.contextmanager
def naming(path: Path) -> Generator[None, None, None]:
    """Turn an operating system's error into one that names the file and says what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskSpaceError(
                f"{path}: the disk is full; what was finished is kept. Free some space, run again"
            ) from error
        raise StoreError(
            f"{path}: {error.strerror or error}; what was finished is kept. "
            "Check the folder and its permissions, then run again"
        ) from error


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, each durable."""
    if folder.is_dir():
        return
    with naming(folder):
        if not folder.parent.is_dir():
            make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def remove_leftovers(*folders: Path) -> int:
    """Remove what killed writers left in folders (not below them); returns how many files."""
    leftovers = [path for folder in folders for path in folder.glob(f"{TEMPORARY}*")]
    for path in leftovers:
        with naming(path):
            path.unlink(missing_ok=True)
    return len(leftovers)
