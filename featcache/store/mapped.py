"""Rows of a stream that are read when they are indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.store.cache import StreamReader

_ROWS = 4096
"""Read at a time, before columns are chosen."""


class MappedRows:
    """Rows at positions of a stream, each flat; an array to whoever only indexes it by rows.

    Attributes:
        shape: (n, D). dtype: as stored. ndim: 2.
    """

    ndim = 2

    def __init__(self, reader: StreamReader, positions: npt.NDArray[np.int64]) -> None:
        """Take positions, all of which must be there."""
        self._reader, self._positions = reader, positions
        self.shape = (len(positions), int(np.prod(reader.shape)))
        self.dtype = np.dtype(reader.entry.stream.dtype)

    def __len__(self) -> int:
        return len(self._positions)

    def at(self, rows: npt.NDArray[np.int64]) -> MappedRows:
        """Some of the rows, not read yet."""
        return MappedRows(self._reader, self._positions[rows])

    def __getitem__(
        self, key: slice | npt.NDArray[Any] | tuple[slice | npt.NDArray[Any], slice]
    ) -> npt.NDArray[Any]:
        """Rows, or some columns of rows."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        chosen = self._positions[rows]
        parts = [
            self._reader.read(block).reshape(len(block), self.shape[1])[:, columns]
            for block in np.split(chosen, range(_ROWS, len(chosen), _ROWS))
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class StackedRows:
    """Several `MappedRows` of one width, one below the other; read when they are indexed, too.

    Attributes:
        shape: (n, D). dtype: as stored. ndim: 2.
    """

    ndim = 2

    def __init__(self, parts: Sequence[MappedRows]) -> None:
        """Take at least one."""
        self._parts, self._ends = parts, np.cumsum([len(part) for part in parts])
        self.shape = (int(self._ends[-1]), parts[0].shape[1])
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(
        self, key: slice | npt.NDArray[Any] | tuple[slice | npt.NDArray[Any], slice]
    ) -> npt.NDArray[Any]:
        """Rows, or some columns of rows."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        chosen = np.arange(len(self))[rows]
        found = np.empty((len(chosen), len(range(self.shape[1])[columns])), self.dtype)
        owners = np.searchsorted(self._ends, chosen, side="right")
        for i, part in enumerate(self._parts):
            here = owners == i
            if here.any():
                found[here] = part[chosen[here] - (self._ends[i] - len(part)), columns]
        return found
