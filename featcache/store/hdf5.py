"""Plain HDF5 files of contiguous, aligned arrays of fixed-size types.

Written through HDF5's memory driver, so that the bytes on disk are written once, by `files`, and
are the same whenever the arrays are. Read by asking HDF5 where an array lies and mapping that part
of the file: zero-copy, in parallel, outside h5py's global lock. Anyone can open the files with
h5py alone.
"""

# h5py ships no types: what it returns is checked here and converted
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from featcache.errors import CacheDamagedError
from featcache.store.files import naming

Array = npt.NDArray[Any]

ALIGNMENT = 4096
"""Bytes; every array starts at a multiple of it, so that a memory map of it is aligned."""

_FIXED_KINDS = "biufS"


def encode(arrays: Mapping[str, Array], attributes: Mapping[str, str]) -> bytes:
    """The bytes of an HDF5 file that holds the arrays, contiguous and aligned.

    Args:
        arrays: by name, each of a fixed-size little-endian type.
        attributes: ASCII texts of the root group.
    """
    with h5py.File(
        "image",
        "w",
        driver="core",
        backing_store=False,
        alignment_threshold=1,
        alignment_interval=ALIGNMENT,
        track_order=False,
    ) as file:
        for name, text in sorted(attributes.items()):
            file.attrs[name] = np.bytes_(text.encode("ascii"))
        for name, array in sorted(arrays.items()):
            if array.dtype.kind not in _FIXED_KINDS:
                raise TypeError(f"{name}: {array.dtype} is not of fixed size")
            file.create_dataset(
                name,
                data=array.astype(array.dtype.newbyteorder("<"), copy=False),
                track_times=False,
            )
        file.flush()
        return file.id.get_file_image()


def read_attributes(path: Path) -> dict[str, str]:
    """The ASCII texts of the root group.

    Raises:
        CacheDamagedError: not an HDF5 file.
    """
    with _opened(path) as file:
        return {name: bytes(value).decode("ascii") for name, value in file.attrs.items()}


def map_arrays(path: Path) -> dict[str, Array]:
    """Every array of a file as a read-only memory map; nothing is read until it is used.

    Raises:
        CacheDamagedError: not an HDF5 file, or not one that `encode` wrote.
    """
    size = path.stat().st_size if path.exists() else 0
    with _opened(path) as file:
        places = {str(name): _place(path, str(name), file[str(name)], size) for name in file}
    with naming(path):
        return {
            name: _empty(shape, dtype)
            if offset is None
            else np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
            for name, (offset, shape, dtype) in places.items()
        }


@contextmanager
def _opened(path: Path) -> Generator[h5py.File, None, None]:
    """Open a file; whatever HDF5 stumbles over in it is damage."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except CacheDamagedError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise CacheDamagedError(
            f"{path}: not a readable HDF5 file ({error}); "
            "`featcache verify` lists what is damaged; extract again once it is removed"
        ) from error


def _place(
    path: Path, name: str, dataset: Any, size: int
) -> tuple[int | None, tuple[int, ...], np.dtype[Any]]:
    """Where an array lies in its file: (offset in bytes or None if empty, shape, dtype)."""
    ours = (
        isinstance(dataset, h5py.Dataset)
        and dataset.chunks is None
        and not dataset.external
        and not dataset.is_virtual
        and dataset.dtype.kind in _FIXED_KINDS
    )
    if not ours:
        raise CacheDamagedError(
            f"{path}: {name!r} is not a plain contiguous array; not written by featcache"
        )
    shape = tuple(int(s) for s in dataset.shape)
    offset: int | None = dataset.id.get_offset()
    length = math.prod(shape) * dataset.dtype.itemsize
    if length and (offset is None or offset + length > size):
        raise CacheDamagedError(f"{path}: {name!r} says it is longer than the file")
    return (offset if length else None), shape, dataset.dtype


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    array = np.empty(shape, dtype)
    array.flags.writeable = False
    return array
