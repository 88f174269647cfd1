"""Pictures that are files: which ones count, their stat keys, their bytes."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePath

from featcache.errors import PictureError, SourceMissingError
from featcache.images.listing import StatKey
from featcache.naming import shown

PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"),
    *(".bmp", ".dib", ".tif", ".tiff", ".gif"),
)

MAX_BYTES = 1 << 31
"""Files of more bytes are not read: more than the largest picture takes at 64 bits a pixel."""

_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def absolute(path: str | os.PathLike[str]) -> str:
    """Absolute path without `..`; links are left as they are, since their names are the user's."""
    return os.path.normpath(Path(path).expanduser().absolute())


def stat_key(status: os.stat_result) -> StatKey:
    """The part of a stat that tells whether a file has changed."""
    return StatKey(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def os_reason(error: OSError | ValueError) -> str:
    """Why a file can't be used, as the reason of a skip."""
    if isinstance(error, FileNotFoundError):
        return "missing: there is no such file"
    return f"unreadable: {getattr(error, 'strerror', None) or error}"


def regular_stat(path: str | Path) -> os.stat_result:
    """Stat of a regular file, which opens nothing.

    Raises:
        PictureError: there is none, or it is a folder, FIFO, socket or device.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - see `read_file`
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise PictureError(os_reason(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise PictureError("not a regular file")
    return status


def read_file(root: str, path: str) -> bytes:
    """Bytes of a picture; `path` is relative to `root` or absolute.

    Raises:
        SourceMissingError: the root is gone.
        PictureError: this file can't be read; the text is the reason.
    """
    # all pictures come by here, and where many are hashed, Path took a fifth of the time
    place = os.path.join(root, path)  # noqa: PTH118
    try:
        regular_stat(place)
        return _read_regular(place)
    except PictureError as error:
        if not Path(root).is_dir():
            raise root_missing(root) from error
        raise
    except OSError as error:
        raise PictureError(os_reason(error)) from error
    except MemoryError as error:
        raise PictureError("too large: it does not fit in memory") from error


def read_below(root: str, path: str) -> bytes:
    """Bytes of a picture that lies below a folder, as `read_file` reads them.

    Where a source names its pictures by their place below it, a path that leads elsewhere is
    not its own: an index of a stranger could hold one.

    Raises:
        SourceMissingError, PictureError: see `read_file`.
    """
    if os.path.isabs(path) or (  # noqa: PTH117 - see `read_file`
        ".." in path and ".." in PurePath(path).parts
    ):
        raise PictureError("not below the folder of pictures")
    return read_file(root, path)


def _read_regular(place: str) -> bytes:
    """Bytes of a regular file; what took its place since it was looked at cannot block."""
    with os.fdopen(os.open(place, os.O_RDONLY | _AT_ONCE), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise PictureError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise PictureError(f"too large: {status.st_size:,} bytes, the limit is {MAX_BYTES:,}")
        content = file.read(status.st_size + 1) or b""  # None: there is nothing just now
    if len(content) > status.st_size:
        raise PictureError("it grew while it was read; run extract again")
    return content


def root_missing(root: str) -> SourceMissingError:
    """The error to raise where a source's folder or file is gone."""
    return SourceMissingError(
        f"{shown(root)}: the pictures are no longer there; put them back or mount the disk, "
        "or extract from their new place with --replace-source"
    )
