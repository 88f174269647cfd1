"""One HDF5 file for others: numbers and texts in groups, as people expect, larger than memory.

Written by libhdf5 and never read by featcache. The file of a cache is another one: see `hdf5`.
"""

# h5py ships no types: what it returns is used here and nowhere else
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt


class PlainFile:
    """An HDF5 file that is being written; used as a context.

    Args:
        path: where there is none yet.
        attributes: texts of the root group.
    """

    def __init__(self, path: Path, attributes: Mapping[str, str]) -> None:
        self._path, self._attributes = path, attributes

    def __enter__(self) -> Self:
        self._file: Any = h5py.File(self._path, "x")
        self._file.attrs.update(self._attributes)
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def numbers(
        self,
        name: str,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        blocks: Iterable[npt.NDArray[Any]],
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Write an array by blocks of its rows, one after the other.

        Args:
            name: of the dataset, with "/" after each group.
            shape: of the whole.
            dtype: of its values.
            blocks: its rows, in order.
            attributes: texts of the dataset.
        """
        made = self._file.create_dataset(name, shape=tuple(shape), dtype=dtype)
        _fill(made, blocks)
        made.attrs.update(attributes or {})

    def texts(self, name: str, count: int, blocks: Iterable[Sequence[str]]) -> None:
        """Write texts as UTF-8 of any length; bytes of names that are not UTF-8 stay as they are.

        Args:
            name: of the dataset, with "/" after each group.
            count: how many there are.
            blocks: some of them, in order.
        """
        made = self._file.create_dataset(name, shape=(count,), dtype=h5py.string_dtype("utf-8"))
        _fill(made, (_encoded(block) for block in blocks))


def _fill(dataset: Any, blocks: Iterable[npt.NDArray[Any]]) -> None:
    start = 0
    for block in blocks:
        if len(block):  # nothing can be written to what has no rows
            dataset[start : start + len(block)] = block
        start += len(block)


def _encoded(texts: Sequence[str]) -> npt.NDArray[np.object_]:
    """As bytes; a NUL, which HDF5 takes for a text's end, is spelt out."""
    encoded = np.empty(len(texts), object)
    for i, text in enumerate(texts):
        encoded[i] = text.replace("\0", r"\x00").encode("utf-8", "surrogateescape")
    return encoded
