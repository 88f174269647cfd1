"""Files are plain HDF5, contiguous, aligned, deterministic, and mapped read-only."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from featcache.errors import CacheDamagedError
from featcache.store.hdf5 import ALIGNMENT, encode, map_arrays, read_attributes

dtypes = st.sampled_from([np.float32, np.float16, np.uint8, np.int32, np.int64])
shapes = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)
contents = st.dictionaries(
    st.text("abcxyz_", min_size=1, max_size=8),
    dtypes.flatmap(lambda dtype: arrays.arrays(dtype, shapes)),
    max_size=5,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hdf5") / "arrays.h5"


@given(contents)
@settings(max_examples=60, deadline=None)
def test_a_round_trip_through_maps_and_through_h5py_alone(file: Path, originals) -> None:
    file.write_bytes(encode(originals, {"kind": "test"}))
    assert read_attributes(file) == {"kind": "test"}
    mapped = map_arrays(file)
    assert set(mapped) == set(originals)
    with h5py.File(file, "r") as plain:
        for name, original in originals.items():
            for found in (mapped[name], plain[name][...]):
                assert found.dtype == original.dtype
                assert found.shape == original.shape
                assert found.tobytes() == original.tobytes()
            assert not mapped[name].flags.writeable
            assert plain[name].chunks is None
            assert not plain[name].size or plain[name].id.get_offset() % ALIGNMENT == 0


@given(contents)
@settings(max_examples=30, deadline=None)
def test_equal_arrays_give_equal_bytes_whatever_their_order(originals) -> None:
    backwards = {name: originals[name].copy() for name in reversed(list(originals))}
    assert encode(originals, {"a": "1", "b": "2"}) == encode(backwards, {"b": "2", "a": "1"})


def test_another_process_at_another_time_gives_the_same_bytes() -> None:
    code = (
        "import hashlib, numpy as np; from featcache.store.hdf5 import encode; "
        "print(hashlib.sha256(encode({'x': np.arange(5000.0), 'y': np.zeros((0, 3), 'f4')}, "
        "{'kind': 'test'})).hexdigest())"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)]
    assert runs[0] == runs[1]


def test_big_endian_arrays_are_stored_little_endian(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(encode({"x": np.arange(4, dtype=">i8")}, {}))
    found = map_arrays(tmp_path / "x.h5")["x"]
    assert found.dtype == np.dtype("<i8")
    assert found.tolist() == [0, 1, 2, 3]


def test_types_that_are_not_of_fixed_size_are_refused() -> None:
    with pytest.raises(TypeError, match="names: object is not of fixed size"):
        encode({"names": np.array(["a", None], object)}, {})


def test_a_map_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(encode({"x": np.zeros(3)}, {}))
    found = map_arrays(tmp_path / "x.h5")["x"]
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


@pytest.mark.parametrize("size", [0, 10, 2000])
def test_a_torn_file_is_damage(tmp_path: Path, size: int) -> None:
    whole = encode({"x": np.zeros(5000)}, {})
    (tmp_path / "x.h5").write_bytes(whole[:size])
    with pytest.raises(CacheDamagedError, match=r"x\.h5"):
        map_arrays(tmp_path / "x.h5")


def test_a_file_of_another_makers_layout_is_damage(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=np.zeros(100), chunks=(10,), compression="gzip")
    with pytest.raises(CacheDamagedError, match="'x' is not a plain contiguous array"):
        map_arrays(tmp_path / "x.h5")


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    with pytest.raises(CacheDamagedError, match="gone"):
        map_arrays(tmp_path / "gone.h5")


def test_files_are_encoded_side_by_side() -> None:
    """As several caches write theirs: HDF5 refuses to open one name twice."""
    rows = {"rows": np.arange(200_000, dtype=np.int64)}
    alone = encode(rows, {"kind": "test"})
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: encode(rows, {"kind": "test"}), range(64))
        assert all(content == alone for content in found)
