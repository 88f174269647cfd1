"""What of a cache goes out: the samples that have features, and what is said of each, in blocks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from featcache.errors import ExportError
from featcache.images.sources import files_root
from featcache.store.cache import Cache, StreamReader
from featcache.store.index import NO_GROUP, NO_SPLIT, SPLITS
from featcache.store.strings import Strings

UNLABELLED = -1
"""The label of what has none, as scikit-learn marks it."""

LABEL_SEPARATOR = ";"
"""Between several labels in one text, as CSVs that are extracted have it."""

_BLOCK_BYTES = 32 << 20
_MOST_ROWS = 8192


class Samples:
    """Samples of a cache that have a row in every stream that goes out, in the index's order.

    Args:
        cache: where they are.
        streams: plain ones, at least one.

    Attributes:
        rows: (n,) int64, their rows in the index.
        classes: K names, of the labels that these samples have.
        several: whether one of them has several labels.
        skipped: samples of the index that have no features.

    Raises:
        CacheIncompleteError: rows were never computed (an interrupted extraction).
        ExportError: no sample has features.
    """

    def __init__(self, cache: Cache, streams: list[StreamReader]) -> None:
        index = cache.index
        usable = np.ones(len(index), np.bool_)
        for stream in streams:
            usable &= ~stream.is_skipped(index.hashes)
        self.rows = np.flatnonzero(usable)
        if not len(self.rows):
            raise ExportError(f"{cache.folder}: no picture of it has features; extract again")
        for stream in streams:
            stream.require(stream.positions(index.hashes[self.rows]))
        self.skipped = int((~usable).sum())
        self.several = bool((index.label_counts[self.rows] > 1).any())
        self._index, self._root = index, files_root(cache.manifest.source)
        owners = np.repeat(np.arange(len(index)), index.label_counts)
        present = np.unique(index.label_codes[usable[owners]])
        self.classes = tuple(index.label_names[int(code)] for code in present)
        self._codes = np.searchsorted(present, index.label_codes)

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, row_bytes: int = 1) -> Iterator[slice]:
        """Slices of the samples, of so many that features of so many bytes a row are few MB."""
        size = min(max(_BLOCK_BYTES // max(row_bytes, 1), 1), _MOST_ROWS)
        return (slice(i, min(i + size, len(self))) for i in range(0, len(self), size))

    def texts(self) -> dict[str, Callable[[slice], list[str]]]:
        """What is said of samples in words, by name; "" where nothing is.

        path: within the source. filepath: of the file, absolute. split, group. sha256: of the
        content, in hex. label: several are separated by ";".
        """
        return {
            "path": self.paths,
            "filepath": self._files,
            "split": self._splits,
            "group": self._groups,
            "sha256": self._hashes,
            "label": self._label_texts,
        }

    def hashes(self, block: slice) -> npt.NDArray[np.uint8]:
        """(b, 32) content hashes."""
        return self._index.hashes[self.rows[block]]

    def paths(self, block: slice) -> list[str]:
        """Names within the source, byte for byte (bytes that are not UTF-8 as surrogates)."""
        return _chosen(self._index.paths, self.rows[block])

    def labels(self, block: slice) -> npt.NDArray[Any]:
        """(b,) int64 positions in `classes`, or `UNLABELLED`; (b, K) bool where `several`."""
        if self.several:
            matrix = np.zeros((len(self.rows[block]), len(self.classes)), np.bool_)
            for i, codes in enumerate(self.label_lists(block)):
                matrix[i, codes] = True
            return matrix
        rows, codes = self.rows[block], np.full(len(self.rows[block]), UNLABELLED, np.int64)
        labelled = self._index.label_counts[rows] > 0
        codes[labelled] = self._codes[self._index.label_offsets[rows[labelled]]]
        return codes

    def label_lists(self, block: slice) -> list[list[int]]:
        """Positions in `classes` of each sample's labels."""
        starts, ends = (self._index.label_offsets[self.rows[block] + i].tolist() for i in (0, 1))
        return [self._codes[i:j].tolist() for i, j in zip(starts, ends, strict=True)]

    def _files(self, block: slice) -> list[str]:
        if self._root is None:
            return [""] * len(self.rows[block])
        return [os.path.join(self._root, path) for path in self.paths(block)]  # noqa: PTH118 - text

    def _splits(self, block: slice) -> list[str]:
        names = dict(enumerate(SPLITS)) | {NO_SPLIT: ""}
        return [names[code] for code in self._index.splits[self.rows[block]].tolist()]

    def _groups(self, block: slice) -> list[str]:
        codes = self._index.groups[self.rows[block]].tolist()
        return [self._index.group_names[c] if c != NO_GROUP else "" for c in codes]

    def _hashes(self, block: slice) -> list[str]:
        return [content.tobytes().hex() for content in self.hashes(block)]

    def _label_texts(self, block: slice) -> list[str]:
        lists = self.label_lists(block)
        return [LABEL_SEPARATOR.join(self.classes[code] for code in codes) for codes in lists]

    def not_utf8(self) -> int:
        """How many names within the source are not UTF-8."""
        return sum(not is_utf8(path) for block in self.blocks() for path in self.paths(block))


class Features:
    """Rows of one stream for some samples, read when they are asked for.

    Args:
        reader: the stream.
        samples: whose rows.

    Attributes:
        shape: of one row. dtype: as stored. row_bytes: of one row.
    """

    def __init__(self, reader: StreamReader, samples: Samples) -> None:
        self.stream = reader.entry.stream
        self.shape, self.dtype = reader.shape, np.dtype(reader.entry.stream.dtype)
        self.row_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self._reader, self._samples = reader, samples

    @property
    def skips(self) -> dict[bytes, str]:
        """Why a content has no row, by content hash."""
        return self._reader.skips

    def read(self, block: slice) -> npt.NDArray[Any]:
        """(b, *shape) in the stored dtype; NaN for samples that have no row (a view's, of test)."""
        positions = self._reader.positions(self._samples.hashes(block))
        there = positions >= 0
        if there.all():
            return self._reader.read(positions)
        rows = np.full((len(positions), *self.shape), np.nan, self.dtype)
        rows[there] = self._reader.read(positions[there])
        return rows

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """All rows in order, some at a time."""
        return (self.read(block) for block in self._samples.blocks(self.row_bytes))


def is_utf8(text: str) -> bool:
    """Whether a name has no bytes that are not UTF-8."""
    return text.isascii() or not any("\udc80" <= c <= "\udcff" for c in text)


def spelt_out(text: str) -> str:
    """A text whose bytes that are not UTF-8 are spelt out."""
    return text if is_utf8(text) else text.encode("utf-8", "backslashreplace").decode()


def _chosen(texts: Strings, rows: npt.NDArray[np.int64]) -> list[str]:
    return [texts[int(row)] for row in rows]


def described(cache: Cache, samples: Samples) -> dict[str, Any]:
    """Where it all comes from, as JSON's own types."""
    manifest = cache.manifest
    return {
        "featcache": version("featcache"),
        "cache": Path(cache.folder).absolute().name,
        "source": manifest.source,
        "backbone": manifest.backbone,
        "recipe": manifest.recipe.to_dict(),
        "classes": list(samples.classes),
        "multi_label": samples.several,
    }


def stream_described(features: Features) -> dict[str, Any]:
    """What a row of a stream is, as JSON's own types."""
    return cast(dict[str, Any], features.stream.to_dict()) | {"shape": list(features.shape)}
