"""Activations on demand: derived where they can be, extracted where they must be, once."""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from featcache import api
from featcache.api.activations import ensure_cuts
from featcache.backbones.registry import Backbone, load_backbone
from featcache.errors import (
    BackboneError,
    CacheIncompleteError,
    CacheMismatchError,
    DiskSpaceError,
    SourceMissingError,
    StoredOverflowError,
)
from featcache.extraction import running
from featcache.images.policies import tta_views, views_of
from featcache.recipe import View
from featcache.store.cache import Cache
from featcache.store.upkeep import verify_files

VIEWS = views_of("flip", 2)
DEEP, MIDDLE, TOP = "layer2.0", "layer3.0", "layer4.0"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def backbone(light: dict[str, Any]) -> Backbone:
    return load_backbone(
        light["backbone"], weights=light["weights"], image_size=light["image_size"]
    )


@pytest.fixture
def own(class_folders: Path) -> Path:
    """A few pictures of one's own."""
    for path in class_folders.glob("*/*.jpg"):
        if path.stem > "02":
            path.unlink()
    return class_folders


def opened(made: Any) -> Cache:
    return Cache(Path(made.cache))


def parents(cache: Cache, cut: str) -> list[str | None]:
    """The cuts that the unpooled streams at a cut came from, plain view first."""
    streams = [entry.stream for entry in cache.manifest.streams.values()]
    found = [s for s in streams if (s.cut, s.pooling) == (cut, "none")]
    ordered = sorted(found, key=lambda s: s.view.sort_key)
    return [parent.cut if (parent := cache.parent_of(s)) else None for s in ordered]


def rows(cache: Cache, cut: str, view: View = VIEWS[0]) -> np.ndarray:
    plain = cache.stream(cut, pooling="none")
    reader = plain if view == View() else cache.views_of(plain.entry.stream)[view]
    assert cache.missing(reader) == 0
    return reader.read(reader.positions(cache.index.hashes)).astype(np.float32)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    flat = found.reshape(len(found), -1) - expected.reshape(len(expected), -1)
    norms = np.linalg.norm(expected.reshape(len(expected), -1), axis=1)
    assert (np.linalg.norm(flat, axis=1) <= 3e-3 * norms).all()


@pytest.mark.parametrize(
    ("name", "side", "deep", "shallow"),
    [
        ("timm/test_resnet", 64, "layer2.0", "layer4.0"),
        ("timm/test_vit", 160, "blocks.2", "blocks.4"),
        ("efficientnet_lite0", 64, "blocks.4.1", "blocks.6.0"),
    ],
)
def test_on_real_networks_what_is_derived_is_what_pixels_give_within_rounding(
    own: Path, tmp_path: Path, name: str, side: int, deep: str, shallow: str
) -> None:
    weights = "random" if name.startswith("timm/") else None
    options = {"backbone": name, "weights": weights, "image_size": side, "pooling": "none"}
    made = opened(api.extract(own, out=tmp_path / "c", cuts=(deep,), **options))
    network = load_backbone(name, weights=weights, image_size=side)
    cache = ensure_cuts(made, (shallow,), backbone=network)
    assert parents(cache, shallow) == [deep]
    pixels = opened(api.extract(own, out=tmp_path / "p", cuts=(shallow,), **options))
    assert_close(rows(cache, shallow), rows(pixels, shallow))


def test_what_no_deeper_cut_gives_is_extracted_in_one_pass(
    own: Path, extract_light: Any, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, passes = opened(extract_light(own)), []
    run = running.run
    monkeypatch.setattr("featcache.api.activations.run", lambda *a: passes.append(a) or run(*a))
    options = {"views": VIEWS[1:], "crops": tta_views(1)}
    cache = ensure_cuts(cache, (TOP, DEEP), **options, backbone=backbone)
    assert len(passes) == 1
    for cut in (TOP, DEEP):
        assert parents(cache, cut) == [None, None, None]
        assert cache.stream(cut, pooling="none").entry.stream.dtype == "float16"
        assert len(rows(cache, cut, VIEWS[1])) == 9


def test_what_is_there_is_left_alone(own: Path, extract_light: Any, backbone: Backbone) -> None:
    made = opened(extract_light(own, cuts=(DEEP, TOP), pooling="none"))
    others = ("penultimate", "pixels")
    assert ensure_cuts(made, (TOP, DEEP, *others), backbone=backbone) is made
    assert ensure_cuts(made, (), backbone=backbone) is made
    derived = ensure_cuts(made, (MIDDLE,), backbone=backbone)
    assert ensure_cuts(derived, (MIDDLE,), backbone=backbone) is derived


def test_the_nearest_deeper_cut_that_is_whole_is_the_parent(
    own: Path, extract_light: Any, backbone: Backbone
) -> None:
    extract_light(own, cuts=("layer1.0",), pooling="none")
    extract_light(own, cuts=(DEEP,), pooling="avg")
    made = opened(extract_light(own, cuts=(MIDDLE,), pooling="none"))
    assert parents(ensure_cuts(made, (TOP,), backbone=backbone), TOP) == [MIDDLE]
    extended = own / "cat" / "new.jpg"
    extended.write_bytes((own / "cat" / "00.jpg").read_bytes() + b"new")
    made = opened(extract_light(own, cuts=("layer1.0",), pooling="none"))
    cache = ensure_cuts(made, (DEEP,), backbone=backbone)
    assert parents(cache, DEEP) == ["layer1.0"]
    assert len(rows(cache, DEEP)) == 10


def test_what_was_derived_is_extended_from_the_same_cut(
    own: Path, extract_light: Any, backbone: Backbone
) -> None:
    ensure_cuts(opened(extract_light(own, cuts=(DEEP,), pooling="none")), (TOP,), backbone=backbone)
    (own / "cat" / "new.jpg").write_bytes((own / "cat" / "00.jpg").read_bytes() + b"new")
    made = opened(extract_light(own, cuts=(DEEP, MIDDLE), pooling="none"))
    cache = ensure_cuts(made, (TOP,), backbone=backbone)
    assert parents(cache, TOP) == [DEEP]
    assert len(rows(cache, TOP)) == 10


def test_rows_keep_their_meaning_whatever_happened_to_the_pictures(
    own: Path, extract_light: Any, backbone: Backbone
) -> None:
    made = opened(extract_light(own, cuts=(DEEP,), pooling="none"))
    index, journal = made.manifest.index, (made.folder / "log.jsonl").read_text()
    content = (own / "cat" / "00.jpg").read_bytes()
    (own / "cat" / "new.jpg").write_bytes(content + b"new")
    (own / "cup" / "00.jpg").write_bytes(content + b"other")
    (own / "sky" / "02.jpg").unlink()
    cache = ensure_cuts(made, ("layer1.0", TOP), backbone=backbone)
    assert cache.manifest.index == index
    assert (parents(cache, "layer1.0"), parents(cache, TOP)) == ([None], [DEEP])
    assert len(rows(cache, TOP)) == 9, "for which no picture was needed"
    reader = cache.stream("layer1.0")
    lacking = reader.positions(cache.index.hashes) < 0
    assert [cache.index.paths[int(i)] for i in np.flatnonzero(lacking)] == [
        "cup/00.jpg",
        "sky/02.jpg",
    ]
    with pytest.raises(CacheIncompleteError, match=r"2 of 9 rows .*run `featcache extract`"):
        reader.require(reader.positions(cache.index.hashes))
    assert journal in (made.folder / "log.jsonl").read_text()
    assert (made.folder / "log.jsonl").read_text().count('"scan"') == journal.count('"scan"')
    state = api.info(made.folder).staleness.counts
    assert (state.new, state.changed, state.missing) == (1, 1, 1), "and extract will notice"


def test_without_the_pictures_views_are_derived_and_nothing_else_can_be(
    own: Path, extract_light: Any, backbone: Backbone
) -> None:
    made = opened(extract_light(own, cuts=(DEEP,), pooling="none", views=2, augment="flip"))
    whole = opened(
        extract_light(
            own, out=own.parent / "p", cuts=(TOP,), pooling="none", views=2, augment="flip"
        )
    )
    shutil.rmtree(own)
    cache = ensure_cuts(made, (TOP,), views=VIEWS, backbone=backbone)
    assert parents(cache, TOP) == [DEEP, DEEP]
    for view in VIEWS:
        assert_close(rows(cache, TOP, view), rows(whole, TOP, view))
    with pytest.raises(SourceMissingError, match=rf"'layer1.0' .* put them back.*{TOP}, {DEEP}"):
        ensure_cuts(cache, ("layer1.0",), backbone=backbone)
    other = views_of("trivial", 2)[1:]
    with pytest.raises(SourceMissingError, match="Cached are: none"):
        ensure_cuts(cache, (TOP,), views=other, backbone=backbone)


def test_crops_come_from_where_the_plain_view_came_from_and_leave_it_there(
    own: Path, extract_light: Any, backbone: Backbone
) -> None:
    crops = tta_views(2)
    whole = opened(extract_light(own, out=own.parent / "p", cuts=(TOP,), pooling="none", tta=2))
    before = opened(extract_light(own, cuts=(DEEP,), pooling="none"))
    before = ensure_cuts(before, (TOP,), backbone=backbone)
    extract_light(own, tta=2)
    made = ensure_cuts(before.reopened(), (TOP, MIDDLE), crops=crops, backbone=backbone)
    assert [parents(made, cut) for cut in (DEEP, TOP)] == [[None] * 3, [DEEP] * 3]
    assert made.stream(TOP).entry == before.stream(TOP).entry
    for view in crops:
        assert_close(rows(made, TOP, view), rows(whole, TOP, view))
    assert ensure_cuts(made, (TOP, MIDDLE), crops=crops, backbone=backbone) is made
    assert np.abs(rows(made, TOP, crops[0]) - rows(made, TOP)).max() > 0.02


def test_crops_need_the_pictures_or_those_of_a_deeper_cut(
    own: Path, extract_light: Any, backbone: Backbone
) -> None:
    crops = tta_views(1)
    lacking = opened(extract_light(own, cuts=(DEEP,), pooling="none"))
    lacking = ensure_cuts(lacking, (TOP,), backbone=backbone)
    there = extract_light(own, out=own.parent / "t", cuts=(DEEP,), pooling="none", tta=1)
    shutil.rmtree(own)
    for cut in (TOP, DEEP):
        with pytest.raises(SourceMissingError, match=rf"and crops at '{cut}'.*--tta\. .* none$"):
            ensure_cuts(lacking, (cut,), crops=crops, backbone=backbone)
    assert ensure_cuts(lacking, (TOP,), backbone=backbone) is lacking
    derived = ensure_cuts(opened(there), (TOP,), crops=crops, backbone=backbone)
    assert parents(derived, TOP) == [DEEP, DEEP]


def test_an_extraction_that_was_interrupted_goes_on_from_pixels_or_else_is_derived(
    own: Path, extract_light: Any, backbone: Backbone
) -> None:
    def stop(stage: str, done: int, _total: int) -> None:
        if stage == "extract" and done > 4:
            raise KeyboardInterrupt

    options = {"pooling": "none", "batch_size": 2, "shard_rows": 2}
    extract_light(own, cuts=(DEEP,), **options)
    with pytest.raises(KeyboardInterrupt):
        extract_light(own, cuts=(TOP,), progress=stop, **options)
    cache = Cache(own.parent / "cache")
    begun = cache.stream(TOP).entry
    assert 0 < len(begun.shards) < 5
    shutil.copytree(cache.folder, own.parent / "copy")
    done = ensure_cuts(cache, (TOP,), backbone=backbone)
    assert parents(done, TOP) == [None]
    assert done.stream(TOP).entry.shards[: len(begun.shards)] == begun.shards
    assert len(done.stream(TOP).entry.plans) == 1, "the plan it was begun with"
    shutil.rmtree(own)
    derived = ensure_cuts(Cache(own.parent / "copy"), (TOP,), backbone=backbone)
    assert set(parents(derived, TOP)) == {None, DEEP}
    assert_close(rows(derived, TOP), rows(done, TOP))


def test_bytes_are_told_and_refused_before_anything_is_written(
    own: Path,
    extract_light: Any,
    backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = opened(extract_light(own, cuts=(DEEP,), pooling="none"))
    before = made.folder.joinpath("manifest.json").read_bytes()
    usage = SimpleNamespace(total=0, used=0, free=64 << 20)
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "featcache"):
        patch.setattr("featcache.store.writing.shutil.disk_usage", lambda _folder: usage)
        with pytest.raises(DiskSpaceError, match=r"0\.07 GB are needed, 0\.07 GB are free.*fewer"):
            ensure_cuts(made, (TOP,), views=VIEWS, backbone=backbone)
    assert f"activations at {TOP} are to be written, of 9 pictures and 2 view(s)" in caplog.text
    assert made.folder.joinpath("manifest.json").read_bytes() == before


def test_what_does_not_fit_half_precision_says_which_command_helps(
    own: Path, extract_light: Any, backbone: Backbone
) -> None:
    made = opened(extract_light(own))
    large = copy.deepcopy(backbone)
    for scale in (m.weight for m in large.stem.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.constant_(scale, 50.0)
    with pytest.raises(StoredOverflowError, match=r"extract .*--out .*--store-dtype float32`"):
        ensure_cuts(made, (TOP,), backbone=large)
    made = opened(extract_light(own, cuts=(TOP,), pooling="none", store_dtype="float32"))
    assert ensure_cuts(made, (TOP,), backbone=backbone) is made
    cache = ensure_cuts(made, (TOP,), views=VIEWS, backbone=backbone)
    assert len(rows(cache, TOP, VIEWS[1])) == 9
    assert cache.stream(TOP).entry.stream.dtype == "float32"


def test_features_in_half_precision_stay_the_only_ones(
    own: Path, extract_light: Any, backbone: Backbone
) -> None:
    made = opened(extract_light(own, store_dtype="float16"))
    cache = ensure_cuts(made, (TOP,), backbone=backbone)
    cuts = [entry.stream.cut for entry in cache.manifest.streams.values()]
    assert sorted(cuts) == [TOP, "penultimate"]


def test_unknown_units_and_other_networks_are_refused(
    own: Path, extract_light: Any, backbone: Backbone
) -> None:
    made = opened(extract_light(own, cuts=(DEEP,), pooling="none"))
    with pytest.raises(BackboneError, match="no unit is called 'nowhere'"):
        ensure_cuts(made, ("nowhere",), backbone=backbone)
    other = load_backbone("timm/test_resnet", weights="random:1", image_size=32)
    for cut in (TOP, "layer1.0"):
        with pytest.raises(CacheMismatchError, match="weights"):
            ensure_cuts(made, (cut,), backbone=other)


def test_a_sweep_makes_what_it_trains_from_and_needs_no_pictures_where_it_can_derive(
    folders: Path, tmp_path: Path, light: dict[str, Any]
) -> None:
    quick = {
        "tolerance": 0.01,
        "training": api.TrainingOptions(epochs=1, rates=(3e-3,), batch_size=32),
    }
    pictures = shutil.copytree(folders, tmp_path / "pictures")
    plain = api.extract(pictures, out=tmp_path / "plain", **light)
    deep = api.extract(pictures, out=tmp_path / "deep", cuts=(DEEP,), pooling="none", **light)
    (pictures / "sky" / "a-first.jpg").write_bytes(b"would shift every row of an index")
    asked = api.probe(plain, unfreeze="0-1", **quick)
    assert [score.cut for score in asked.unfreeze] == ["penultimate", MIDDLE]
    assert parents(opened(plain), MIDDLE) == [None]
    shutil.rmtree(pictures)
    derived = api.probe(deep, unfreeze="0-1", **quick)
    assert parents(opened(deep), MIDDLE) == [DEEP]
    assert derived.unfreeze[1].accuracy == pytest.approx(asked.unfreeze[1].accuracy, abs=0.1)
    assert api.probe(plain, unfreeze="0-1", **quick).unfreeze[1].accuracy == (
        asked.unfreeze[1].accuracy
    )


def test_info_names_what_is_derived(own: Path, extract_light: Any, backbone: Backbone) -> None:
    made = opened(extract_light(own, cuts=(DEEP,), pooling="none"))
    ensure_cuts(made, (TOP,), backbone=backbone)
    told = {s.cut: (s.parent, s.rows, s.missing) for s in api.info(made.folder).streams}
    assert told == {"penultimate": (None, 9, 0), DEEP: (None, 9, 0), TOP: (DEEP, 9, 0)}
    assert verify_files(made.folder)[2] == []
