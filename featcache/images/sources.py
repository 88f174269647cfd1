"""Where samples come from: what the user typed becomes a `Source`.

    folder, CSV ──▶ files.py (stat keys, bytes)
    digits, torchvision's data sets ──▶ arrays or files

Each kind has its own file; this one chooses between them.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from featcache.errors import SourceError
from featcache.images.datasets import DATA_SETS, data_root, open_data_set
from featcache.images.digits import DigitsSource
from featcache.images.files import absolute, root_missing
from featcache.images.folders import FolderSource
from featcache.images.listing import Listing, Sample, Source, StatKey
from featcache.images.tables import CsvSource
from featcache.naming import shown

__all__ = [
    "Listing",
    "Sample",
    "Source",
    "StatKey",
    "content_hash",
    "open_source",
    "source_from_locator",
]

_OPENERS: dict[str, Callable[[str], Source]] = {
    "folder": FolderSource,
    "csv": CsvSource,
    "digits": DigitsSource,
    "torchvision": open_data_set,
}


def open_source(data: str | os.PathLike[str]) -> Source:
    """The source that the user typed.

    Args:
        data: a folder, a `.csv` file, `digits`, or a name in `DATA_SETS`. A name wins over a folder
            of that name, which is written `./digits`.

    Raises:
        SourceError: it is none of these.
    """
    if data == "digits":
        return DigitsSource()
    if isinstance(data, str) and data in DATA_SETS:
        return open_data_set(data)
    path = Path(absolute(data))
    if path.is_dir():
        return FolderSource(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return CsvSource(path)
    raise SourceError(_not_understood(os.fspath(data), path))


def source_from_locator(locator: Mapping[str, str], *, fetch: bool = True) -> Source:
    """The source that a cache was made from.

    Args:
        locator: of the source.
        fetch: whether a public data set that is not there is fetched when it is read.

    Raises:
        SourceMissingError: its folder or CSV is gone.
        SourceError: the locator is of a kind that this version doesn't know.
    """
    kind, location = locator.get("kind", ""), locator.get("location", "")
    if kind not in _OPENERS:
        raise SourceError(f"source of kind {kind!r}; this version knows {', '.join(_OPENERS)}")
    if kind in ("folder", "csv") and not Path(location).exists():
        raise root_missing(location)
    return (
        open_data_set(location, fetch=fetch) if kind == "torchvision" else _OPENERS[kind](location)
    )


def files_root(locator: Mapping[str, str]) -> str | None:
    """The folder below which a source's paths are files; None where its pictures are arrays."""
    kind, location = locator.get("kind", ""), locator.get("location", "")
    if kind == "torchvision":
        return data_root() if location in DATA_SETS and DATA_SETS[location].files else None
    return {"folder": location, "csv": os.path.dirname(location)}.get(kind)  # noqa: PTH120 - text


def content_hash(content: bytes | np.ndarray) -> bytes:
    """32 bytes (sha256) that name a picture's content, wherever it lies and whatever it is called.

    Args:
        content: a file's bytes, or an array, which counts with its dtype and shape.
    """
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    digest = hashlib.sha256(f"array {content.dtype.str} {content.shape}\n".encode())
    digest.update(content.tobytes())
    return digest.digest()


def _not_understood(data: str, path: Path) -> str:
    names = ["digits", *DATA_SETS]
    if path.is_file():
        problem = "is a file, but not a .csv"
    elif close := difflib.get_close_matches(data, names, n=1):
        problem = f"is no folder or file; did you mean {close[0]}?"
    else:
        problem = "is no folder or file"
    return (
        f"{shown(data)} {problem}. Give a folder of class folders (or of train/val/test with class "
        f"folders), a CSV with path,label[,split][,group], or a data set: {', '.join(names)}"
    )
