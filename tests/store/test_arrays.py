"""Rows of a cache are what an array of them would be, and no copy where none is needed."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import CacheIncompleteError
from featcache.store.arrays import FeatureRows, Located, rows_of
from featcache.store.cache import Cache

KEYS: dict[str, Any] = {
    "a row": 3,
    "the last row": -1,
    "numpy's number": np.int64(2),
    "a slice": slice(1, 4),
    "backwards": slice(None, None, -2),
    "a list": [4, 0, 0],
    "a table": np.array([[0, 1], [3, 2]]),
    "a mask": np.array([True, False, True, True, False, False]),
    "nothing": np.array([], np.int64),
    "all": slice(None),
    "dots": ...,
    "an axis": None,
    "an empty tuple": (),
    "a cell": (2, 1),
    "columns": (slice(None), slice(1, 3)),
    "columns by number": (slice(1, 5), [2, 0]),
    "cells": ([0, 1], [2, 3]),
    "a row's columns": (1, [0, 4]),
    "rows, then columns": (np.array([True] * 3 + [False] * 3), slice(2)),
    "the last column": (..., -1),
    "a new axis": (slice(2), None, 1),
}


def located(cache: Path, make: Any, names: list[int]) -> tuple[Located, np.ndarray]:
    hashes = make.hashes(names)
    return Located.of(Cache(cache).stream(), hashes), make.rows(hashes)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_indexing_is_that_of_an_array(cache_folder: Path, make: Any, key: Any) -> None:
    view, array = located(cache_folder, make, [7, 0, 9, 4, 1, 7])
    plain = FeatureRows([view], stacked=False)
    stacked = FeatureRows([view] * 5, stacked=True)
    np.testing.assert_array_equal(plain[key], array[key])
    np.testing.assert_array_equal(stacked[key], np.stack([array] * 5, axis=1)[key])
    assert plain[key].shape == array[key].shape


@pytest.mark.parametrize("key", [6, -7, [0, 6], (0, 5), np.zeros(5, bool), "rows", 1.5])
def test_what_an_array_refuses_is_refused(cache_folder: Path, make: Any, key: Any) -> None:
    view, array = located(cache_folder, make, [7, 0, 9, 4, 1, 7])
    with pytest.raises((IndexError, TypeError)) as expected:
        array[key]
    with pytest.raises(expected.type):
        FeatureRows([view], stacked=False)[key]


def test_it_is_an_array_to_numpy(cache_folder: Path, make: Any) -> None:
    view, array = located(cache_folder, make, [7, 0, 9, 4])
    rows = FeatureRows([view], stacked=False)
    assert (rows.shape, rows.dtype, rows.ndim, len(rows)) == (array.shape, array.dtype, 2, 4)
    np.testing.assert_array_equal(np.asarray(rows), array)
    assert np.asarray(rows, np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.mean(rows, axis=0), array.mean(axis=0))
    np.testing.assert_array_equal(np.stack(list(rows)), array)
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks(3))), array)
    assert max(len(block) for block in rows.blocks(2)) <= 2
    stacked = FeatureRows([view] * 2, stacked=True)
    assert [block.shape for block in stacked.blocks(3)] == [(3, 2, 5), (1, 2, 5)]
    with pytest.raises(ValueError, match="copy"):
        np.array(rows, copy=False) if np.__version__ < "2" else np.asarray(rows, copy=False)


def test_rows_side_by_side_in_one_file_are_its_map(cache_folder: Path, make: Any) -> None:
    reader = Cache(cache_folder).stream()
    first, second, *_ = reader.shards()
    part = rows_of(Located.of(reader, second.hashes[1:3]))
    assert isinstance(part, np.ndarray)
    assert np.shares_memory(part, second.features)
    assert not part.flags.writeable
    assert is_mapped(part)
    np.testing.assert_array_equal(part, make.rows(second.hashes[1:3]))
    across = np.concatenate([first.hashes, second.hashes])
    assert isinstance(rows_of(Located.of(reader, across)), FeatureRows)
    assert isinstance(rows_of(Located.of(reader, second.hashes[[1, 0]])), FeatureRows)
    assert isinstance(rows_of(Located.of(reader, second.hashes[[0, 2]])), FeatureRows)
    np.testing.assert_array_equal(rows_of(Located.of(reader, across)), make.rows(across))
    assert rows_of(Located.of(reader, second.hashes[:0])).shape == (0, make.width)


@pytest.mark.parametrize("most", [1, 3, 4096])
def test_blocks_are_parts_of_the_maps(cache_folder: Path, make: Any, most: int) -> None:
    reader = Cache(cache_folder).stream()
    rows = FeatureRows([Located.of(reader, reader.hashes)], stacked=False)
    blocks = list(rows.blocks(most))
    assert all(is_mapped(block) and not block.flags.writeable for block in blocks)
    ends = set(np.cumsum([entry.rows for entry in reader.entry.shards]).tolist())
    assert len(blocks) == len(ends | set(range(most, len(rows), most)))
    np.testing.assert_array_equal(np.concatenate(blocks), make.rows(reader.hashes))
    holes = FeatureRows([Located.of(reader, reader.hashes[::2])], stacked=False)
    np.testing.assert_array_equal(np.concatenate(list(holes.blocks())), rows[::2])


def is_mapped(array: Any) -> bool:
    """Whether what an array is a part of, in the end, is a memory map."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return isinstance(array, mmap.mmap) or isinstance(getattr(array, "obj", None), mmap.mmap)


def test_rows_that_were_never_computed_are_refused(cache_folder: Path, make: Any) -> None:
    with pytest.raises(CacheIncompleteError, match="1 of 2 rows were never computed"):
        located(cache_folder, make, [7, 12345])
