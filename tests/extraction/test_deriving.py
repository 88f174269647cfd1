"""What is derived from cached activations is what pixels give, with a cache's every guarantee."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.backbones.pooling import between
from featcache.backbones.tracing import trace
from featcache.errors import (
    BackboneError,
    CacheMismatchError,
    DiskSpaceError,
    StoredOverflowError,
)
from featcache.extraction import deriving
from featcache.extraction.deriving import Means, derive, derived
from featcache.extraction.shards import NOT_FINITE
from featcache.images.policies import views_of
from featcache.recipe import View
from featcache.store.cache import Cache, StreamReader
from featcache.store.upkeep import prune_files, verify_files

SMALL = Means(batch_size=2, shard_rows=4)
VIEWS = views_of("standard", 3)


def streams_of(lab, cuts=("middle",), parent: str = "low", views=VIEWS[:1]):
    """Streams at cuts, derived from the unpooled one of another cut."""
    cache = Cache(lab.folder)
    parents = [cache.stream(parent, view, "none").entry.stream for view in views]
    return [derived(stream, cut) for stream in parents for cut in cuts]


def derive_all(lab, cuts=("middle",), parent: str = "low", views=VIEWS[:1], progress=None) -> int:
    streams = streams_of(lab, cuts, parent, views)
    return derive(lab.folder, lab.backbone, streams, SMALL, progress)


def reader_of(lab, cut: str, view: View = VIEWS[0], parent: str = "low") -> StreamReader:
    """The stream derived for a cut."""
    cache = Cache(lab.folder)
    return cache.reader(derived(cache.stream(parent, view, "none").entry.stream, cut).key)


def rows_by_path(lab, reader: StreamReader) -> dict[str, np.ndarray]:
    cache = Cache(lab.folder)
    positions = reader.positions(cache.index.hashes)
    there = np.flatnonzero(positions >= 0)
    rows = reader.read(positions[there])
    return {cache.index.paths[int(i)]: row for i, row in zip(there, rows, strict=True)}


def shards_of(lab, cut: str) -> dict[str, bytes]:
    key = reader_of(lab, cut).entry.stream.key
    return {p.name: p.read_bytes() for p in (lab.folder / "shards" / key[:16]).iterdir()}


def assert_right(lab, cut: str, view: View = VIEWS[0]) -> None:
    """Rows are what the units in between give for the parent's, one picture at a time."""
    parent = rows_by_path(lab, Cache(lab.folder).stream("low", view, "none"))
    found = rows_by_path(lab, reader_of(lab, cut, view))
    assert set(found) == set(parent)
    part = between(trace(lab.stem, (4, 4)), "low", [cut])
    for path, row in parent.items():
        with torch.no_grad():
            (expected,) = part(torch.from_numpy(np.array(row))[None].float())
        np.testing.assert_allclose(found[path], expected[0].numpy(), rtol=1e-3)
        assert found[path].dtype == np.float16


def test_rows_are_what_the_units_in_between_give_and_close_to_those_from_pixels(make) -> None:
    lab, pixels = make(range(11)), make(range(11))
    lab.run(cuts=("low",), pooling="none")
    assert derive_all(lab, ("middle",)) == 11
    assert_right(lab, "middle")
    pixels.run(cuts=("middle",), pooling="none")
    found = rows_by_path(lab, reader_of(lab, "middle"))
    for path, row in rows_by_path(pixels, Cache(pixels.folder).stream("middle")).items():
        np.testing.assert_allclose(found[path], row, rtol=2e-3, atol=1e-4)
    assert derive_all(lab, ("middle",)) == 0


def test_no_picture_is_read_and_nothing_below_the_parents_cut_is_run(make) -> None:
    lab = make(range(5))
    lab.run(cuts=("low",), pooling="none")
    trace(lab.stem, (4, 4))
    lab.source.pictures.clear()
    before, reads = lab.stem.batches, len(lab.source.reads)
    trace(lab.stem, (4, 4))
    tracing = lab.stem.batches - before
    assert derive_all(lab) == 5
    assert lab.stem.batches == before + 2 * tracing
    assert len(lab.source.reads) == reads


def test_no_more_of_the_parent_is_read_at_a_time_than_a_batch_and_each_row_once(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(range(23))
    lab.run(cuts=("low",), pooling="none")
    read, sizes = StreamReader.read, []
    monkeypatch.setattr(StreamReader, "read", lambda r, at: sizes.append(len(at)) or read(r, at))
    assert derive_all(lab, ("middle", "high")) == 46
    assert max(sizes) == SMALL.batch_size
    assert sum(sizes) == 23


def test_several_cuts_of_one_parent_are_those_of_a_derivation_each(make) -> None:
    together, alone = make(range(9)), make(range(9))
    for lab in (together, alone):
        lab.run(cuts=("low",), pooling="none")
    assert derive_all(together, ("middle", "high")) == 18
    for cut in ("high", "middle"):
        derive_all(alone, (cut,))
        assert shards_of(alone, cut) == shards_of(together, cut)


def test_each_view_is_derived_from_the_same_view(make) -> None:
    lab = make(range(7), splits={"00": "test"})
    lab.run(cuts=("low",), pooling="none", views=VIEWS)
    assert derive_all(lab, views=VIEWS) == 7 + 2 * 6
    for view in VIEWS:
        assert_right(lab, "middle", view)
    cache = Cache(lab.folder)
    plain = cache.stream("middle", pooling="none").entry.stream
    assert tuple(cache.views_of(plain)) == VIEWS[1:]


def test_what_the_parent_skipped_is_skipped_for_the_same_reason(make) -> None:
    lab = make({"a": 1, "white": -1, "broken": b"no picture"})
    lab.run(cuts=("low",), pooling="none", dtype="float32")
    lab.source.pictures |= {"white": 2}  # not looked at
    assert derive_all(lab, ("high",)) == 1
    reader = reader_of(lab, "high")
    assert set(rows_by_path(lab, reader)) == {"a"}
    cache = Cache(lab.folder)
    hashes = dict(zip(cache.index.paths, cache.index.hashes, strict=True))
    reasons = {path: reader.skips.get(content.tobytes()) for path, content in hashes.items()}
    assert reasons == {"a": None, "white": NOT_FINITE, "broken": "truncated: a few bytes only"}
    assert cache.missing(reader) == 0
    assert derive_all(lab, ("high",)) == 0


def test_what_does_not_fit_half_precision_is_an_error(make) -> None:
    lab = make({"white": -1})
    lab.run(cuts=("low",), pooling="none", dtype="float32")
    with pytest.raises(StoredOverflowError, match=r"cut 'middle'.*float16.*--store-dtype float32"):
        derive_all(lab, ("middle",))
    assert len(reader_of(lab, "middle")) == 0
    assert verify_files(lab.folder)[2] == []


def test_only_what_was_added_is_derived_and_only_once_the_parent_has_it(make) -> None:
    lab = make(range(6))
    lab.run(cuts=("low",), pooling="none")
    derive_all(lab)
    before = shards_of(lab, "middle")
    lab.source.pictures |= {"x": 50, "y": 51}
    lab.run()
    assert derive_all(lab) == 0
    assert shards_of(lab, "middle") == before
    assert Cache(lab.folder).missing(reader_of(lab, "middle")) == 2
    lab.run(cuts=("low",), pooling="none")
    assert derive_all(lab) == 2
    assert before.items() <= shards_of(lab, "middle").items()
    assert_right(lab, "middle")


def interrupted(lab, batch: int, **options) -> bool:
    """Derive until after a batch, from 1; whether that came."""
    done = 0

    def stop(stage: str, _done: int, _total: int) -> None:
        nonlocal done
        assert stage == "derive"
        done += 1
        if done == batch:
            raise lab.Interrupted

    try:
        derive_all(lab, progress=stop, **options)
    except lab.Interrupted:
        return True
    return False


@given(st.lists(st.integers(1, 14), max_size=6), st.sampled_from([("middle",), ("middle", "high")]))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_interruptions_change_no_byte(make, interruptions, cuts) -> None:
    present = {f"{i:02d}": i for i in range(13)} | {"x": b"no picture", "y": 99}
    whole, torn = make(present), make(present)
    for lab in (whole, torn):
        lab.run(cuts=("low",), pooling="none", views=VIEWS[:2])
    derive_all(whole, cuts, views=VIEWS[:2])
    for batch in interruptions:
        if not interrupted(torn, batch, cuts=cuts, views=VIEWS[:2]):
            break
    derive_all(torn, cuts, views=VIEWS[:2])
    assert torn.bytes() == whole.bytes()


steps = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 9), min_size=1),
        st.booleans(),
        st.none() | st.integers(1, 5),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@given(steps)
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_of_changes_interruptions_and_prunes_leaves_no_row_missing_or_stale(
    make, steps
) -> None:
    lab = make({})
    for present, deep, interruption, prune in steps:
        lab.source.pictures = present
        lab.run(cuts=("low",) if deep else (), pooling="none")
        if "low" not in {s.stream.cut for s in Cache(lab.folder).manifest.streams.values()}:
            continue
        if interruption:
            interrupted(lab, interruption)
        if prune:
            prune_files(lab.folder)
        derive_all(lab)
        assert derive_all(lab) == 0
        if deep:
            assert set(rows_by_path(lab, reader_of(lab, "middle"))) == set(present)
        assert_right(lab, "middle")
    assert verify_files(lab.folder)[2] == []


def test_rows_of_other_versions_are_derived_again_before_they_are_extended(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(range(5))
    lab.run(cuts=("low",), pooling="none")
    derive_all(lab)
    lab.source.pictures["new"] = 40
    lab.run(cuts=("low",), pooling="none")
    monkeypatch.setattr(deriving, "versions", lambda engine="torch": {"torch": "99"})
    assert derive_all(lab) == 1
    assert_right(lab, "middle")
    lab.source.pictures["newer"] = 41
    lab.run(cuts=("low",), pooling="none")
    monkeypatch.setattr(deriving, "versions", lambda engine="torch": {"torch": "100"})
    lab.stem.middle.scale = 0.6
    with pytest.raises(CacheMismatchError, match=r"rows computed again differ.*torch.*100"):
        derive_all(lab)


def test_a_plan_of_other_versions_is_not_resumed_but_made_anew(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(range(9))
    lab.run(cuts=("low",), pooling="none")
    assert interrupted(lab, 3)
    monkeypatch.setattr(deriving, "versions", lambda engine="torch": {"torch": "99"})
    assert derive_all(lab) == 9 - 4
    plans = reader_of(lab, "middle").entry.plans
    assert [plan.versions == {"torch": "99"} for plan in plans] == [False, True]
    assert_right(lab, "middle")


def test_another_network_is_refused(make) -> None:
    lab = make(range(3))
    lab.run(cuts=("low",), pooling="none")
    lab.weights = "e" * 64
    with pytest.raises(CacheMismatchError, match="weights"):
        derive_all(lab)


def test_a_cut_below_its_parent_is_refused_before_anything_is_written(make) -> None:
    lab = make(range(3))
    lab.run(cuts=("middle",), pooling="none")
    before = lab.bytes()
    with pytest.raises(BackboneError, match="'low' does not stand above 'middle'"):
        derive_all(lab, ("low",), parent="middle")
    assert lab.bytes() == before


def test_space_is_reckoned_before_anything_is_written(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(range(10))
    lab.run(cuts=("low",), pooling="none")
    before = lab.bytes()
    free = (64 << 20) + 2 * 10 * 3 * 4 * 4 * 2 - 1
    usage = SimpleNamespace(total=free, used=0, free=free)
    monkeypatch.setattr("featcache.store.writing.shutil.disk_usage", lambda _folder: usage)
    with pytest.raises(DiskSpaceError):
        derive_all(lab, ("middle", "high"))
    assert lab.bytes() == before
    assert derive_all(lab, ("middle",)) == 10


def test_what_came_from_pixels_is_preferred_unless_it_lacks_rows(make) -> None:
    lab = make(range(6))
    lab.run(cuts=("low",), pooling="none")
    derive_all(lab)
    assert Cache(lab.folder).stream("middle").entry.stream.parent is not None
    lab.run(cuts=("middle",), pooling="none")
    assert Cache(lab.folder).stream("middle").entry.stream.parent is None
    lab.source.pictures["new"] = 40
    lab.run(cuts=("low",), pooling="none")
    derive_all(lab)
    assert Cache(lab.folder).stream("middle").entry.stream.parent is not None


def test_views_derived_from_different_cuts_are_not_mixed(make) -> None:
    lab = make(range(6))
    lab.run(cuts=("low", "middle"), pooling="none", views=VIEWS)
    derive_all(lab, ("high",), "low", VIEWS[:2])
    derive_all(lab, ("high",), "middle", VIEWS)
    cache = Cache(lab.folder)
    for parent, views in (("low", VIEWS[1:2]), ("middle", VIEWS[1:])):
        plain = reader_of(lab, "high", parent=parent).entry.stream
        readers = cache.views_of(plain)
        assert tuple(readers) == views
        assert {cache.parent_of(r.entry.stream).cut for r in readers.values()} == {parent}


def test_prune_and_verify_know_what_is_derived(make) -> None:
    lab = make(range(6))
    lab.run(cuts=("low",), pooling="none")
    derive_all(lab)
    del lab.source.pictures["00"]
    lab.run()
    assert prune_files(lab.folder).rows == 3  # the feature, the activation, and what is derived
    assert set(rows_by_path(lab, reader_of(lab, "middle"))) == set(lab.source.pictures)
    assert_right(lab, "middle")
    assert derive_all(lab) == 0
    key = reader_of(lab, "middle").entry.stream.key
    shard = next((lab.folder / "shards" / key[:16]).iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert [damage.path for damage in verify_files(lab.folder)[2]] == [str(shard)]
