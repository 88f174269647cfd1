"""`info` says what is there and, against the source and the backbone, what is stale and why."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featcache import api
from featcache.errors import CacheMissingError
from featcache.store import manifest as manifests
from featcache.store.cache import Cache


@pytest.fixture
def own(folders: Path, light: dict[str, Any], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the pictures and its cache."""
    pictures = Path(shutil.copytree(folders, tmp_path / "pictures"))
    return pictures, Path(api.extract(pictures, out=tmp_path / "cache", **light).cache)


def test_contents(own: tuple[Path, Path]) -> None:
    result = api.info(own[1])
    assert result.samples == 117
    assert result.classes == {"sky": 39, "thing": 39, "texture": 39}
    assert result.source["location"] == str(own[0])
    (stream,) = result.streams
    assert (stream.cut, stream.shape, stream.rows, stream.missing) == ("penultimate", (96,), 117, 0)
    assert result.staleness.fresh


def test_what_changed_is_counted_and_named(own: tuple[Path, Path]) -> None:
    pictures, cache = own
    (pictures / "sky" / "moon-00.jpg").unlink()
    (pictures / "sky" / "moon-01.jpg").write_bytes(b"other bytes")
    (pictures / "sky" / "moon-02.jpg").rename(pictures / "thing" / "moved.jpg")
    (pictures / "sky" / "new.jpg").write_bytes(b"a new picture")
    state = api.info(cache).staleness
    assert not state.fresh
    counts = state.counts
    assert (counts.new, counts.changed, counts.missing, counts.moved) == (1, 1, 1, 1)
    assert state.examples["missing"] == ("sky/moon-00.jpg",)
    assert state.examples["moved"] == ("sky/moon-02.jpg -> thing/moved.jpg",)


def test_a_source_that_is_gone_is_said_and_stops_nothing(own: tuple[Path, Path]) -> None:
    pictures, cache = own
    shutil.rmtree(pictures)
    result = api.info(cache)
    assert result.samples == 117
    assert not result.staleness.checked
    assert not result.staleness.fresh
    assert str(pictures) in str(result.staleness.reason)


def test_a_public_data_set_is_not_fetched_to_look_at_it(own: tuple[Path, Path]) -> None:
    found = manifests.load(own[1])
    public = {"kind": "torchvision", "location": "flowers102"}
    manifests.commit(own[1], replace(found, source=public), lambda: None)
    state = api.info(own[1]).staleness
    assert state.reason == "a public data set, which might have to be fetched for it"
    assert not state.checked


def test_verify_and_prune(own: tuple[Path, Path]) -> None:
    pictures, cache = own
    assert api.verify(cache).damaged == ()
    (pictures / "sky" / "moon-00.jpg").unlink()
    api.extract(pictures, out=cache, backbone="timm/test_resnet", weights="random", image_size=32)
    assert api.prune(cache).rows == 1
    assert api.prune(cache).rows == 0
    (shard,) = cache.glob("shards/*/*.h5")
    shard.write_bytes(shard.read_bytes()[:-1])
    (damaged,) = api.verify(cache).damaged
    assert damaged.path == str(shard)


def test_no_cache(tmp_path: Path) -> None:
    for call in (api.info, api.verify):
        with pytest.raises(CacheMissingError, match=str(tmp_path)):
            call(tmp_path / "none")


def test_missing_rows_are_not_fresh_and_the_complete_stream_is_probed(
    class_folders: Path, extract_light: Any
) -> None:
    whole = extract_light(class_folders)
    picture = next(class_folders.glob("*/*.jpg"))
    (class_folders / picture.parent.name / "new.jpg").write_bytes(picture.read_bytes() + b"new")
    extract_light(class_folders, store_dtype="float16")
    state = api.info(whole).staleness
    assert (state.missing, state.fresh) == (1, False)
    assert Cache(Path(whole)).stream().entry.stream.dtype == "float16"
