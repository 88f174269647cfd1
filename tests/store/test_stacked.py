"""Mapped rows one below the other are indexed as their concatenation is."""

from __future__ import annotations

import numpy as np
import pytest

from featcache.store.mapped import MappedRows, StackedRows


class Reader:
    """The part of a `StreamReader` that mapped rows ask of it."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape = rows, rows.shape[1:]
        stream = type("Stream", (), {"dtype": str(rows.dtype)})
        self.entry = type("Entry", (), {"stream": stream})

    def read(self, positions: np.ndarray) -> np.ndarray:
        return self.rows[positions]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_any_index_gives_what_the_concatenation_gives(dtype: type) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 2, 3)).astype(dtype) for n in (5, 1, 7)]
    chosen = [rng.permutation(len(rows)) for rows in parts]
    stacked = StackedRows(
        [MappedRows(Reader(rows), at) for rows, at in zip(parts, chosen, strict=True)]
    )
    whole = np.concatenate(
        [r[at].reshape(len(at), -1) for r, at in zip(parts, chosen, strict=True)]
    )
    assert (stacked.shape, len(stacked), stacked.dtype) == ((13, 6), 13, dtype)
    for rows in (slice(None), slice(4, 9), rng.integers(13, size=20), np.empty(0, np.int64)):
        np.testing.assert_array_equal(stacked[rows], whole[rows])
        np.testing.assert_array_equal(stacked[rows, 1:4], whole[rows][:, 1:4])
