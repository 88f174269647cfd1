"""The index comes back as it was written, under the name of its hash."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.errors import CacheDamagedError
from featcache.store import hdf5
from featcache.store.files import sha256_file
from featcache.store.index import Index, hashes_of, opaque, read_index, write_index
from featcache.store.strings import Strings

names = st.binary(max_size=10).map(os.fsdecode)


@st.composite
def indices(draw: st.DrawFn) -> Index:
    n = draw(st.integers(0, 8))
    labels = draw(st.lists(names, max_size=4, unique=True))
    code = st.integers(0, len(labels) - 1) if labels else st.nothing()
    codes = [
        draw(st.lists(code, max_size=3, unique=True) if labels else st.just([])) for _ in range(n)
    ]
    groups = draw(st.lists(names, max_size=3, unique=True))
    stat = st.tuples(*[st.integers(-1, 2**63 - 1)] * 4)
    skips = draw(st.lists(st.tuples(names, names), max_size=3))
    return Index(
        paths=Strings.of(draw(st.lists(names, min_size=n, max_size=n))),
        hashes=hashes_of(
            draw(st.lists(st.binary(min_size=32, max_size=32), min_size=n, max_size=n))
        ),
        label_names=Strings.of(labels),
        label_offsets=np.cumsum([0, *map(len, codes)], dtype=np.int64),
        label_codes=np.array([c for row in codes for c in row], np.int32),
        splits=np.array(draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)), np.int8),
        group_names=Strings.of(groups),
        groups=np.array(
            draw(st.lists(st.integers(-1, len(groups) - 1), min_size=n, max_size=n)), np.int64
        ),
        stats=np.array(draw(st.lists(stat, min_size=n, max_size=n)), np.int64).reshape(n, 4),
        skip_paths=Strings.of(path for path, _ in skips),
        skip_reasons=Strings.of(reason for _, reason in skips),
    )


@given(indices())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_round_trip_changes_nothing(tmp_path: Path, index: Index) -> None:
    name, sha256 = write_index(tmp_path, index)
    assert name == f"index-{sha256[:16]}.h5"
    assert sha256_file(tmp_path / name) == sha256
    found = read_index(tmp_path / name)
    for key, array in index.arrays().items():
        assert found.arrays()[key].dtype == array.dtype
        assert np.array_equal(found.arrays()[key], array), key
    assert [found.labels_of(i) for i in range(len(found))] == [
        index.labels_of(i) for i in range(len(index))
    ]


def test_unique_hashes_are_sorted_bytewise() -> None:
    contents = [bytes([200] * 32), bytes(32), bytes([3] * 31 + [255]), bytes(32)]
    index_hashes = hashes_of(contents)
    found = np.unique(opaque(index_hashes))
    assert [value.tobytes() for value in found] == sorted(set(contents))


def test_a_damaged_file_of_the_same_name_is_written_again(tmp_path: Path, make) -> None:
    index = make.index(range(3))
    name, sha256 = write_index(tmp_path, index)
    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / name).write_bytes(damaged)
    write_index(tmp_path, index)
    assert sha256_file(tmp_path / name) == sha256


def test_another_hdf5_file_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(hdf5.encode({"hashes": np.zeros(3)}, {}))
    with pytest.raises(CacheDamagedError, match=r"x\.h5: hashes are float64 \[3\]; not an index"):
        read_index(tmp_path / "x.h5")
    (tmp_path / "y.h5").write_bytes(hdf5.encode({"rows": np.zeros(3)}, {}))
    with pytest.raises(CacheDamagedError, match=r"y\.h5: 'hashes' is missing; not an index of"):
        read_index(tmp_path / "y.h5")
