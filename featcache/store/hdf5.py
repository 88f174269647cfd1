"""Plain HDF5 files of contiguous, aligned arrays of fixed-size types.

Written through HDF5's memory driver, so that the bytes on disk are written once, by `files`, and
are the same whenever the arrays are. Read by `layout`, which knows no other files than these, and
never by HDF5: a file of a stranger cannot reach it. Arrays are parts of a memory map: zero-copy, in
parallel. Anyone can open the files with h5py alone.
"""

# h5py ships no types: what it returns is checked here and converted
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import mmap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from featcache.errors import CacheDamagedError
from featcache.store.files import naming, open_regular
from featcache.store.layout import Contents, Place, is_stored, read_layout

Array = npt.NDArray[Any]

ALIGNMENT = 4096
"""Bytes; every array starts at a multiple of it, so that a memory map of it is aligned."""


def encode(arrays: Mapping[str, Array], attributes: Mapping[str, str]) -> bytes:
    """The bytes of an HDF5 file that holds the arrays, contiguous and aligned.

    Safe to call from several threads: a file in memory has a name too, which only one may have.

    Args:
        arrays: by name, each of a fixed-size little-endian type.
        attributes: ASCII texts of the root group.
    """
    with h5py.File(
        f"image-{threading.get_ident()}",
        "w",
        driver="core",
        backing_store=False,
        alignment_threshold=1,
        alignment_interval=ALIGNMENT,
        track_order=False,
        libver="earliest",
    ) as file:
        for name, text in sorted(attributes.items()):
            file.attrs[name] = np.bytes_(text.encode("ascii"))
        for name, array in sorted(arrays.items()):
            plain = array.astype(array.dtype.newbyteorder("<"), copy=False)
            if not is_stored(plain.dtype):
                raise TypeError(f"{name}: {array.dtype} is not of fixed size")
            file.create_dataset(name, data=plain, track_times=False)
        file.flush()
        return file.id.get_file_image()


def read_attributes(path: Path) -> dict[str, str]:
    """The ASCII texts of the root group.

    Raises:
        CacheDamagedError: not an HDF5 file, or not one that `encode` wrote.
    """
    return _mapped(path)[1].attributes


def map_arrays(path: Path) -> dict[str, Array]:
    """Every array of a file, read-only; nothing of it is read until it is used.

    Raises:
        CacheDamagedError: not an HDF5 file, or not one that `encode` wrote.
    """
    content, contents = _mapped(path)
    return {name: _array(path, content, place) for name, place in contents.places.items()}


def _mapped(path: Path) -> tuple[mmap.mmap, Contents]:
    """A file's bytes, and what they are."""
    with naming(path):
        try:
            with open_regular(path) as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return content, read_layout(content)
        except FileNotFoundError as error:
            raise _damaged(path, "it is gone") from error
        except ValueError as error:
            raise _damaged(path, str(error)) from error


def _array(path: Path, content: mmap.mmap, place: Place) -> Array:
    """The part of a map that is an array."""
    array = np.frombuffer(content, place.dtype, place.size, place.offset).reshape(place.shape)
    if array.dtype == np.bool_ and array.view(np.uint8).max(initial=0) > 1:
        raise _damaged(path, "a truth value is neither 0 nor 1")
    return array


def _damaged(path: Path, problem: str) -> CacheDamagedError:
    return CacheDamagedError(
        f"{path}: not a file of arrays that featcache wrote ({problem}); `featcache verify` lists "
        "what is damaged, `featcache repair` mends what can be"
    )
