"""Mapped rows are the rows, however they are indexed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.store import mapped
from featcache.store.cache import Cache


@pytest.mark.parametrize("block", [2, 4096])
def test_indexing_is_that_of_an_array(
    cache_folder: Path, make: Any, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(mapped, "_ROWS", block)
    reader = Cache(cache_folder).stream()
    hashes = make.hashes([7, 0, 9, 4, 1])
    rows = mapped.MappedRows(reader, reader.positions(hashes))
    array = make.rows(hashes)
    assert (rows.shape, rows.dtype, rows.ndim, len(rows)) == (array.shape, array.dtype, 2, 5)
    some = np.array([True, False, True, True, False])
    for key in (slice(None), slice(1, 4), np.array([4, 0, 0]), some, np.array([], np.int64)):
        np.testing.assert_array_equal(rows[key], array[key])
        np.testing.assert_array_equal(rows[key, 1:2], array[key][:, 1:2])
