"""int8: scales measured on pictures that the cache keeps, so that later rows are of one network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import featcache.api as fc
from featcache.backbones.registry import load_backbone
from featcache.engines import make_engine
from featcache.engines.parity import relative_differences
from featcache.errors import (
    CacheDamagedError,
    CacheMismatchError,
    EngineError,
    ProbeError,
    SourceError,
)
from featcache.extraction.calibrating import PICTURES
from featcache.images.transforms import to_pixels
from featcache.store.cache import Cache
from featcache.store.calibration import CALIBRATION, read_calibration

pytest.importorskip("nncf")


@pytest.fixture
def extract_int8(extract_light: Callable[..., Any]) -> Callable[..., Any]:
    def extract(data: Path, **options: Any) -> Any:
        return extract_light(data, precision="int8", **options)

    return extract


def features(folder: Path, paths: list[str] | None = None) -> np.ndarray:
    cache = Cache(folder)
    stream = cache.stream()
    rows = [cache.index.paths.index(path) for path in paths or cache.index.paths]
    return np.asarray(stream.read(stream.positions(cache.index.hashes[rows])))


def test_features_are_near_fp32_and_the_change_is_told(
    tmp_path: Path, class_folders: Path, extract_light: Any, extract_int8: Any
) -> None:
    extract_light(class_folders, out=tmp_path / "fp32")
    done = extract_int8(class_folders, out=tmp_path / "int8")
    assert (done.engine["name"], done.computed) == ("openvino", 36)
    off = relative_differences(features(tmp_path / "int8"), features(tmp_path / "fp32"))
    assert 1e-3 < np.median(off) < 0.3
    assert done.precision_change.precision == "int8"
    assert 0.9 < done.precision_change.mean_cosine < 1


def test_pictures_of_calibration_are_the_sources_evenly_spread_and_no_test_picture(
    tmp_path: Path, class_folders: Path, extract_int8: Any
) -> None:
    for split in ("train", "test"):
        for folder in ("cat", "cup", "sky"):
            shutil.copytree(class_folders / folder, tmp_path / "split" / split / folder)
    for path in (tmp_path / "split" / "test").rglob("*.jpg"):
        Image.open(path).rotate(180).save(path)
    extract_int8(tmp_path / "split", out=tmp_path / "int8")
    recipe = Cache(tmp_path / "int8").manifest.recipe
    pixels = read_calibration(tmp_path / "int8", recipe)
    train = sorted((tmp_path / "split" / "train").rglob("*.jpg"))
    chosen = [train[i] for i in np.linspace(0, len(train) - 1, PICTURES).astype(int)]
    expected = [np.asarray(to_pixels(Image.open(path), recipe.preprocessing)) for path in chosen]
    assert np.array_equal(pixels, np.stack(expected))


def test_what_is_added_later_is_of_the_same_network(
    tmp_path: Path, class_folders: Path, light: dict[str, Any], extract_int8: Any
) -> None:
    late = sorted(class_folders.rglob("*1.jpg"))
    contents = [path.read_bytes() for path in late]
    for path in late:
        path.unlink()
    recipe = extract_int8(class_folders).recipe
    for path, content in zip(late, contents, strict=True):
        path.write_bytes(content)
    done = extract_int8(class_folders)
    assert (done.computed, done.recipe) == (len(late), recipe)
    backbone = load_backbone(
        light["backbone"], weights=light["weights"], image_size=light["image_size"]
    )
    pixels = [np.asarray(to_pixels(Image.open(path), backbone.preprocessing)) for path in late]
    calibration = read_calibration(tmp_path / "cache", Cache(tmp_path / "cache").manifest.recipe)
    with make_engine(
        "openvino",
        backbone.stem,
        backbone.preprocessing,
        precision="int8",
        calibration=calibration,
    ) as engine:
        expected = engine.run(np.stack(pixels))
    names = [path.relative_to(class_folders).as_posix() for path in late]
    assert np.array_equal(features(tmp_path / "cache", names), expected)


def test_a_resumed_cache_keeps_its_pictures_though_they_change(
    tmp_path: Path, class_folders: Path, extract_int8: Any
) -> None:
    extract_int8(class_folders)
    before = features(tmp_path / "cache")
    first = min(class_folders.rglob("*.jpg"))
    Image.open(first).rotate(90).save(first)
    done = extract_int8(class_folders)
    assert done.computed == 1
    assert np.array_equal(features(tmp_path / "cache")[1:], before[1:])


def test_without_its_pictures_a_cache_is_not_extended_and_verify_tells(
    tmp_path: Path, class_folders: Path, extract_int8: Any
) -> None:
    extract_int8(class_folders)
    assert not fc.verify(tmp_path / "cache").damaged
    path = tmp_path / "cache" / CALIBRATION
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheDamagedError, match=r"calibration\.h5: not the pixels.*put the file"):
        extract_int8(class_folders)
    assert [Path(damage.path).name for damage in fc.verify(tmp_path / "cache").damaged] == [
        CALIBRATION
    ]
    repaired = fc.repair(tmp_path / "cache")
    assert not repaired.whole
    assert not repaired.reindexed
    assert "an int8 network cannot be made again" in repaired.reasons[0]
    path.unlink()
    assert fc.verify(tmp_path / "cache").damaged


def test_it_is_another_cache_and_another_engine(
    tmp_path: Path, class_folders: Path, extract_light: Any, extract_int8: Any
) -> None:
    extract_light(class_folders)
    with pytest.raises(CacheMismatchError, match=r"calibration: .* precision: int8 here, fp32"):
        extract_int8(class_folders)
    with pytest.raises(EngineError, match="precision 'int8' is OpenVINO's; take --engine openvino"):
        extract_int8(class_folders, out=tmp_path / "other", engine="torch")
    with pytest.raises(EngineError, match="'int8' keeps the penultimate feature alone"):
        extract_int8(class_folders, out=tmp_path / "other", cuts=("layer1.0",))


def test_without_a_picture_there_is_nothing_to_calibrate_on(
    tmp_path: Path, class_folders: Path, extract_int8: Any
) -> None:
    for path in class_folders.rglob("*.jpg"):
        path.write_bytes(b"no picture at all, of any kind")
    with pytest.raises(SourceError, match=r"to calibrate int8 on; mend that, or extract in fp32"):
        extract_int8(class_folders)


def test_it_is_probed_but_not_saved_or_tuned(
    tmp_path: Path, class_folders: Path, extract_int8: Any
) -> None:
    extract_int8(class_folders)
    assert 0 <= fc.probe(tmp_path / "cache").estimate.accuracy <= 1
    with pytest.raises(ProbeError, match=r"of an int8 network there is no --save.*in fp32"):
        fc.probe(tmp_path / "cache", save=tmp_path / "pets.fc")
    with pytest.raises(ProbeError, match="of an int8 network there is no --unfreeze"):
        fc.probe(tmp_path / "cache", unfreeze="1")
