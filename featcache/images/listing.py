"""What a source says about its pictures: samples, what was passed over, what is not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


class StatKey(NamedTuple):
    """What the file system says about a file; while it stays the same, the bytes are taken to be.

    Attributes:
        size: bytes.
        mtime_ns, ctime_ns: time of the last change of content and of the entry, in nanoseconds.
        inode: number of the file on its file system.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of a source.

    Attributes:
        path: relative to the source's root with "/" between folders (a CSV's pictures outside its
            folder: absolute); bytes that are no UTF-8 are kept as `os.fsdecode` keeps them.
        labels: none (unlabelled), one, or several.
        split: "train", "val", "test", or None where the source has no splits.
        group: pictures of one group (a person, a slide) must share a fold; None: one of its own.
        stat: None for what is no file (arrays).
    """

    path: str
    labels: tuple[str, ...]
    split: str | None
    group: str | None
    stat: StatKey | None


@dataclass(frozen=True)
class Listing:
    """Everything a scan found, in a deterministic order.

    Attributes:
        samples: folders sorted by the bytes of their paths, CSV and data sets in their own order.
        passed_over: what was not taken for a picture, counted by reason.
        skips: (path, reason) of pictures that are listed but can't be found or stat'ed.
        warnings: sentences about the data, with names.
    """

    samples: list[Sample]
    passed_over: dict[str, int]
    skips: list[tuple[str, str]]
    warnings: tuple[str, ...]


class Source(Protocol):
    """Where samples come from.

    Attributes:
        name: short, safe as part of a folder's name.
        locator: "kind" ("folder", "csv", "digits" or "torchvision") and "location" (an absolute
            path or a data set's name); enough to open the source again.
    """

    name: str
    locator: dict[str, str]

    def scan(self) -> Listing:
        """List the samples without opening any picture.

        Raises:
            SourceMissingError: the source is gone.
            SourceError: what is there can't be understood as (labelled) pictures.
        """
        ...

    def read(self, path: str) -> bytes | np.ndarray:
        """Content of one sample: a file's bytes, or an array (H, W) or (H, W, 3) uint8.

        Raises:
            SourceMissingError: the whole source is gone.
            PictureError: this picture can't be read; the text is the reason.
        """
        ...
