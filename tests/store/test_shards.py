"""Shards come back as they were written, and anyone can read them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from featcache.errors import CacheDamagedError, StoredOverflowError
from featcache.recipe import Stream
from featcache.store.hdf5 import ALIGNMENT
from featcache.store.index import hashes_of
from featcache.store.shards import Shard, encode_shard, map_shard, to_stored
from featcache.store.strings import Strings

STREAM = Stream("r" * 64)
contents = st.binary(min_size=32, max_size=32)


@st.composite
def shards(draw: st.DrawFn) -> tuple[Stream, Shard]:
    stream = replace(STREAM, dtype=draw(st.sampled_from(["float32", "float16"])))
    rows = draw(st.integers(0, 6))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, max_side=4))
    finite = st.floats(-100, 100, width=16)
    skipped = draw(st.lists(contents, max_size=3))
    return stream, Shard(
        features=draw(arrays.arrays(np.dtype(stream.dtype), (rows, *shape), elements=finite)),
        hashes=hashes_of(draw(st.lists(contents, min_size=rows, max_size=rows))),
        skipped=hashes_of(skipped),
        reasons=Strings.of(draw(st.text("ab é\n")) for _ in skipped),
    )


@given(shards())
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_round_trip_changes_nothing(tmp_path: Path, drawn: tuple[Stream, Shard]) -> None:
    stream, shard = drawn
    content = encode_shard(stream, shard)
    assert content == encode_shard(stream, shard)
    (tmp_path / "0.h5").write_bytes(content)
    shape = shard.features.shape[1:]
    found = map_shard(tmp_path / "0.h5", stream, shape, len(shard.hashes), len(shard.skipped))
    assert found.features.dtype == shard.features.dtype
    assert found.features.tobytes() == shard.features.tobytes()
    assert found.features.shape == shard.features.shape
    assert np.array_equal(found.hashes, shard.hashes)
    assert np.array_equal(found.skipped, shard.skipped)
    assert found.reasons == shard.reasons


def test_h5py_alone_reads_a_shard(tmp_path: Path, make) -> None:
    shard = make.shard(make.hashes(range(7)), {make.content(2)})
    (tmp_path / "0.h5").write_bytes(encode_shard(STREAM, shard))
    with h5py.File(tmp_path / "0.h5") as file:
        assert np.array_equal(file["features"], shard.features)
        assert np.array_equal(file["hashes"], shard.hashes)
        assert bytes(file["reasons_blob"][...]) == b"unreadable"
        assert json.loads(file.attrs["stream"]) == STREAM.to_dict()
        for dataset in file.values():
            assert dataset.chunks is None
            assert dataset.compression is None
            assert dataset.id.get_offset() % ALIGNMENT == 0


def test_a_shard_of_another_stream_is_damage(tmp_path: Path, make) -> None:
    shard = make.shard(make.hashes(range(3)))
    (tmp_path / "0.h5").write_bytes(encode_shard(STREAM, shard))
    map_shard(tmp_path / "0.h5", STREAM, (5,), 3, 0)
    for stream, *numbers in (
        (replace(STREAM, dtype="float16"), (5,), 3, 0),
        (STREAM, (1,), 3, 0),
        (STREAM, (5,), 2, 0),
        (STREAM, (5,), 3, 1),
    ):
        with pytest.raises(CacheDamagedError, match=r"not the \d+ rows and \d+ skips of stream"):
            map_shard(tmp_path / "0.h5", stream, *numbers)


def test_an_index_is_no_shard(tmp_path: Path, make) -> None:
    from featcache.store.index import write_index

    name, _ = write_index(tmp_path, make.index(range(3)))
    with pytest.raises(CacheDamagedError, match="is missing; not a shard of featcache"):
        map_shard(tmp_path / name, STREAM, (5,), 3, 0)


def test_float16_that_overflows_is_an_error_that_names_the_way_out() -> None:
    stream = replace(STREAM, dtype="float16", cut="layer3")
    features = np.array([[1.0, -70000.0]], np.float32)
    with pytest.raises(StoredOverflowError, match=r"7e\+04 at cut 'layer3'.*--store-dtype float32"):
        to_stored(features, stream)
    assert to_stored(features, STREAM).tolist() == features.tolist()
    assert to_stored(np.array([[65504.0]], np.float32), stream).tolist() == [[65504.0]]
