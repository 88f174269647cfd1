"""Rows of streams as numpy takes them: a part of the map itself, or read when they are indexed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheIncompleteError
from featcache.store.cache import StreamReader

_ROWS = 4096
"""Read at a time where rows are gone through."""


@dataclass(frozen=True, eq=False)
class Located:
    """Rows of one stream.

    Attributes:
        reader: of the stream. positions: (n,) where the rows are, all of which must be there.
    """

    reader: StreamReader
    positions: npt.NDArray[np.int64]

    @classmethod
    def of(cls, reader: StreamReader, hashes: npt.NDArray[np.uint8]) -> Self:
        """The rows of contents (n, 32).

        Raises:
            CacheIncompleteError: a content has no row.
        """
        positions, stream = reader.positions(hashes), reader.entry.stream
        if skipped := int(reader.is_skipped(hashes).sum()):
            raise CacheIncompleteError(
                f"{skipped} of {len(hashes)} pictures could not be used at cut {stream.cut!r} "
                f"({stream.view}), so their rows cannot stand beside the others; `featcache info` "
                "says why"
            )
        reader.require(positions)
        return cls(reader, positions)

    def mapped(self) -> npt.NDArray[Any] | None:
        """(n, *shape) read-only part of a shard's map; None where they don't lie side by side."""
        n, first = len(self.positions), int(self.positions[0]) if len(self.positions) else 0
        if not np.array_equal(self.positions, np.arange(first, first + n)):
            return None
        for entry in self.reader.entry.shards:
            if first < entry.rows:
                within = first + n <= entry.rows
                return self.reader.shard(entry).features[first : first + n] if within else None
            first -= entry.rows
        return None

    def part(self, rows: slice) -> Located:
        """Some of the rows."""
        return Located(self.reader, self.positions[rows])

    def file_starts(self) -> list[int]:
        """Rows that lie in another file than the row before."""
        ends = np.cumsum([entry.rows for entry in self.reader.entry.shards])
        files = np.searchsorted(ends, self.positions, side="right")
        return (np.flatnonzero(np.diff(files)) + 1).tolist()


class FeatureRows:
    """Rows that are read when they are indexed: `rows[:100]`, `rows[mask]`, `np.asarray(rows)`.

    Before that nothing of them is in memory. They are indexed as an array is, and what comes out is
    an array of its own.

    Attributes:
        shape: (n, *row), or (n, V, *row) of V views. ndim, dtype: as those of an array.
    """

    def __init__(self, views: Sequence[Located], *, stacked: bool) -> None:
        """Take the same n pictures of one or several views, `stacked` on an axis of their own."""
        self._views, self._stacked = views, stacked
        reader, n = views[0].reader, len(views[0].positions)
        self.shape = (n, *((len(views),) if stacked else ()), *reader.shape)
        self.dtype = np.dtype(reader.entry.stream.dtype)

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape} {self.dtype}, read when indexed>"

    def __getitem__(self, key: Any) -> Any:
        """What an array of these rows would give; only the rows that are chosen are read."""
        keys = cast("tuple[Any, ...]", key) if isinstance(key, tuple) else (key,)
        if not keys or keys[0] is None or keys[0] is Ellipsis:
            return self._read(np.arange(len(self)))[key]
        first, *rest = keys
        chosen = np.arange(len(self))[first]
        if isinstance(first, slice):
            return self._read(chosen)[(slice(None), *rest)]
        places = np.arange(chosen.size).reshape(chosen.shape)
        return self._read(chosen.reshape(-1))[(places[()], *rest)]

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (row for block in self.blocks() for row in block)

    def blocks(self, rows: int = _ROWS) -> Iterator[npt.NDArray[Any]]:
        """All rows, at most so many at a time, for what is larger than memory.

        Those that lie side by side in a file are a part of its map, read-only.
        """
        for some in self._runs(rows):
            mapped = None if self._stacked else self._views[0].part(some).mapped()
            yield self[some] if mapped is None else mapped

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """All rows, read now."""
        if copy is False:
            raise ValueError("these rows lie in several files: an array of them is a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def _runs(self, most: int) -> Iterator[slice]:
        """Runs of rows, none of which goes on in another file."""
        cuts = set(range(0, len(self), most)) | {len(self)}
        if not self._stacked:
            cuts |= set(self._views[0].file_starts())
        yield from (slice(start, end) for start, end in pairwise(sorted(cuts)))

    def _read(self, chosen: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """(m, ...) rows, by number."""
        if not self._stacked:
            (only,) = self._views
            return only.reader.read(only.positions[chosen])
        found = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for number, view in enumerate(self._views):
            found[:, number] = view.reader.read(view.positions[chosen])
        return found


def rows_of(rows: Located) -> npt.NDArray[Any] | FeatureRows:
    """Rows without a copy: part of a shard's map, read-only, where they lie side by side in it."""
    mapped = rows.mapped()
    return FeatureRows([rows], stacked=False) if mapped is None else mapped
