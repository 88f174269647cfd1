"""Several cuts in one pass: each stream is what it would be alone, whatever happens between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from featcache import api
from featcache.backbones.registry import load_backbone
from featcache.backbones.tracing import trace
from featcache.errors import (
    BackboneError,
    CacheMissingError,
    DiskSpaceError,
    PictureError,
    StoredOverflowError,
)
from featcache.extraction import computing
from featcache.extraction.shards import NOT_FINITE
from featcache.store.cache import Cache
from featcache.store.upkeep import verify_files


def interrupted(lab, batch: int, **options) -> bool:
    """Run until a batch of the passes themselves, tracing not counted; whether that came."""
    real = computing.Computing.steps

    def steps(self) -> Iterator[None]:
        lab.stem.batches, lab.stem.fail_at = 0, batch
        yield from real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computing.Computing, "steps", steps)
        try:
            lab.run(**options)
        except lab.Interrupted:
            return True
        finally:
            lab.stem.fail_at = -1
    return False


def rows_of(lab, cut: str, pooling: str | None = None) -> dict[str, np.ndarray]:
    cache = Cache(lab.folder)
    reader = cache.stream(cut, pooling=pooling)
    positions = reader.positions(cache.index.hashes)
    there = np.flatnonzero(positions >= 0)
    rows = reader.read(positions[there])
    return {cache.index.paths[int(i)]: row for i, row in zip(there, rows, strict=True)}


def shards_of(lab, cut: str, pooling: str | None = None) -> dict[str, bytes]:
    """The bytes of a stream's shards, by name."""
    stream = Cache(lab.folder).stream(cut, pooling=pooling).entry.stream
    return {p.name: p.read_bytes() for p in (lab.folder / "shards" / stream.key[:16]).iterdir()}


def test_streams_of_one_pass_are_those_of_a_pass_each(make) -> None:
    cuts = ("low", "middle")
    together, alone = make(range(11)), [make(range(11)) for _ in cuts]
    done = together.run(cuts=cuts)
    assert (done.computed, done.processed, done.reused) == (11, 11, 0)
    for lab, cut in zip(alone, cuts, strict=True):
        lab.run(cuts=(cut,))
        assert shards_of(lab, cut) == shards_of(together, cut)
        assert shards_of(lab, "penultimate") == shards_of(together, "penultimate")
    plain = make(range(11))
    plain.run()
    assert shards_of(plain, "penultimate") == shards_of(together, "penultimate")


def test_each_picture_is_decoded_once(make) -> None:
    lab = make(range(11))
    lab.run(cuts=("all",))
    assert len(lab.source.reads) == 2 * 11  # hashed, and decoded
    assert len(Cache(lab.folder).manifest.streams) == 4


def test_a_cut_added_later_is_all_that_is_computed(make) -> None:
    lab = make(range(11))
    lab.run(cuts=("low",))
    before = {cut: shards_of(lab, cut) for cut in ("penultimate", "low")}
    reached: list[str] = []
    lab.stem.high.conv.register_forward_hook(lambda *_: reached.append("high"))
    trace(lab.stem, (4, 4))
    traced = len(reached)
    again = lab.run(cuts=("low", "middle"))
    assert (again.computed, again.processed, again.reused) == (11, 11, 0)
    assert len(reached) == 2 * traced, "but for tracing, nothing above the cut is run"
    assert before == {cut: shards_of(lab, cut) for cut in before}
    assert lab.run(cuts=("middle", "low")).processed == 0


def test_streams_that_lack_different_rows_are_all_completed(make) -> None:
    lab = make(range(8))
    lab.run()
    lab.source.pictures |= {"x": 50, "y": 51}
    done = lab.run(cuts=("low", "middle"))
    assert (done.computed, done.processed, done.reused) == (10, 2 + 10, 0)
    whole = make(dict(lab.source.pictures))
    whole.run(cuts=("low", "middle"))
    for cut in ("penultimate", "low", "middle"):
        found, expected = rows_of(lab, cut), rows_of(whole, cut)
        assert set(found) == set(expected) == set(lab.source.pictures)
        assert all(np.array_equal(found[path], expected[path]) for path in expected)


def test_a_picture_that_overflows_above_a_cut_has_a_row_below_it(make) -> None:
    lab = make({"a": 1, "white": -1, "broken": b"no picture"})
    done = lab.run(cuts=("middle",))
    assert dict(done.skipped) == {"white": NOT_FINITE, "broken": "truncated: a few bytes only"}
    assert (done.computed, done.reused) == (1, 0)
    assert set(rows_of(lab, "penultimate")) == {"a"}
    assert set(rows_of(lab, "middle")) == {"a", "white"}
    again = lab.run(cuts=("middle",))
    assert (again.computed, again.processed, again.reused) == (0, 0, 1)
    assert again.skipped == done.skipped


def test_strict_refuses_before_anything_of_the_shard_is_committed(make) -> None:
    lab = make({"a": 1, "broken": b"no picture"})
    with pytest.raises(PictureError, match="broken: truncated"):
        lab.run(cuts=("low",), strict=True)
    assert all(not entry.shards for entry in Cache(lab.folder).manifest.streams.values())
    assert lab.run(cuts=("low",)).skipped


def test_what_does_not_fit_half_precision_is_an_error_that_says_what_to_do(make) -> None:
    lab = make({"white": -1})
    with pytest.raises(StoredOverflowError, match=r"cut 'low'.*float16.*--store-dtype float32"):
        lab.run(cuts=("low",), pooling="none")
    lab.run(cuts=("low",), pooling="none", dtype="float32")
    assert rows_of(lab, "low")["white"].shape == (3, 4, 4)


def test_what_is_not_pooled_is_stored_as_half_precision(make) -> None:
    lab = make(range(5))
    for pooling in ("none", "flatten", "avg"):
        lab.run(cuts=("middle",), pooling=pooling)
    maps, vectors, means = (rows_of(lab, "middle", how) for how in ("none", "flatten", "avg"))
    for path, activation in maps.items():
        assert (activation.dtype, activation.shape) == (np.float16, (3, 4, 4))
        assert np.array_equal(vectors[path], activation.reshape(-1))
        assert means[path].dtype == np.float32
        expected = activation.astype(np.float32).mean((1, 2))
        np.testing.assert_allclose(means[path], expected, rtol=2e-3)
    cache = Cache(lab.folder)
    assert cache.stream("middle").entry.stream.pooling == "avg"
    with pytest.raises(CacheMissingError, match=r"no activations of cut 'low'.*middle \(avg\)"):
        cache.stream("low")
    with pytest.raises(CacheMissingError, match=r"cut 'middle', pooling 'cls'"):
        cache.stream("middle", pooling="cls")


def test_space_is_reckoned_for_all_streams_before_anything_is_written(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(range(10))
    feature, activation = 10 * 6 * 4, 10 * 3 * 4 * 4 * 2
    free = (64 << 20) + feature + activation - 1
    usage = SimpleNamespace(total=free, used=0, free=free)
    monkeypatch.setattr("featcache.store.writing.shutil.disk_usage", lambda _folder: usage)
    with pytest.raises(DiskSpaceError):
        lab.run(cuts=("low",), pooling="none")
    with pytest.raises(CacheMissingError):
        Cache(lab.folder)
    assert lab.run().computed == 10


def test_an_unknown_unit_is_an_error_and_nothing_is_written(make) -> None:
    lab = make(range(3))
    with pytest.raises(BackboneError, match=r"no unit is called 'top'.*high, middle, low"):
        lab.run(cuts=("top",))
    assert not lab.folder.exists()


@given(
    st.lists(st.integers(1, 14), max_size=6),
    st.sampled_from([("low",), ("low", "high"), ("all",)]),
)
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_interruptions_change_no_byte_of_any_stream(make, interruptions, cuts) -> None:
    present = {f"{i:02d}": i for i in range(17)} | {"x": b"no picture", "y": -1}
    whole, torn = make(present), make(present)
    whole.run(cuts=cuts)
    for batch in interruptions:
        if not interrupted(torn, batch, cuts=cuts):
            break
    torn.run(cuts=cuts)
    assert torn.bytes() == whole.bytes()


cut_sets = st.sets(st.sampled_from(["low", "middle", "high"]), max_size=3).map(sorted).map(tuple)
steps = st.lists(
    st.tuples(
        cut_sets,
        st.dictionaries(st.sampled_from("abcdefghij"), st.integers(0, 12), min_size=1),
        st.none() | st.integers(1, 6),
        st.sampled_from([(1, 1), (2, 4), (3, 6)]),
    ),
    min_size=1,
    max_size=5,
)


@given(steps)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_of_cuts_changes_and_interruptions_leaves_no_row_missing_or_stale(
    make, steps
) -> None:
    lab = make({})
    for cuts, present, interruption, (batch_size, shard_rows) in steps:
        lab.source.pictures = present
        options = {"cuts": cuts, "batch_size": batch_size, "shard_rows": shard_rows}
        if interruption:
            interrupted(lab, interruption, **options)
        done = lab.run(**options)
        assert done.computed + done.reused == len(present)
        assert lab.run(**options).processed == 0
        for cut in cuts:
            rows = rows_of(lab, cut)
            assert set(rows) == set(present)
            for path, row in rows.items():
                np.testing.assert_allclose(row, mean_after(lab, cut, present[path]), rtol=1e-4)
    assert verify_files(lab.folder)[2] == []


@torch.no_grad()
def mean_after(lab, cut: str, number: int) -> np.ndarray:
    """What the network gives for one picture after a unit, pooled by hand."""
    x = torch.from_numpy(lab.picture(number)).permute(2, 0, 1)[None].float() / 255
    for name in ("low", "middle", "high"):
        x = lab.stem.get_submodule(name)(x)
        if name == cut:
            break
    return x.mean((0, 2, 3)).numpy()


@pytest.mark.parametrize(
    ("backbone", "side", "cut", "pooling", "by_hand"),
    [
        ("timm/test_resnet", 64, "layer3.0", "avg", lambda a: a.mean((2, 3))),
        ("timm/test_vit", 160, "blocks.3", "avg", lambda a: a[:, 1:].mean(1)),
        ("timm/test_vit", 160, "blocks.3", "cls", lambda a: a[:, 0]),
    ],
)
def test_on_real_pictures_rows_are_what_a_hook_sees_pooled_by_hand(
    class_folders: Path, tmp_path: Path, backbone, side, cut, pooling, by_hand
) -> None:
    from PIL import Image

    options = {"backbone": backbone, "weights": "random", "image_size": side}
    done = api.extract(
        class_folders, out=tmp_path / "cache", cuts=(cut,), pooling=pooling, **options
    )
    assert set(done.features) == {"penultimate", cut}
    network = load_backbone(backbone, weights="random", image_size=side)
    kept: list[Tensor] = []
    network.stem.network.get_submodule(cut).register_forward_hook(
        lambda _m, _i, output: kept.append(output)
    )
    cache = Cache(tmp_path / "cache")
    reader = cache.stream(cut)
    rows = reader.read(reader.positions(cache.index.hashes))
    assert rows.shape == (36, *done.features[cut].shape)
    for path, row in list(zip(cache.index.paths, rows, strict=True))[::7]:
        batch = prepared(Image.open(class_folders / path), network.preprocessing)
        with torch.inference_mode():
            network.stem(batch)
        expected = by_hand(kept.pop())[0].numpy()
        assert np.linalg.norm(row - expected) < 1e-4 * np.linalg.norm(expected), path


def prepared(picture, preprocessing) -> Tensor:
    """A picture as torchvision's own transforms prepare it."""
    from torchvision.transforms import v2

    how = v2.InterpolationMode(preprocessing.interpolation)
    return v2.Compose(
        [
            v2.Resize(preprocessing.resize[0], how),
            v2.CenterCrop(list(preprocessing.size)),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(preprocessing.mean), list(preprocessing.std)),
        ]
    )(picture)[None]
