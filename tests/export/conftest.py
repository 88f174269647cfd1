"""Photos with difficult names, the features of a tiny network, and what was found of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

import featcache as fc
from featcache.backbones.registry import load_backbone
from featcache.classifier import files
from featcache.classifier.files import ClassifierFile
from featcache.heads.hidden import HiddenUnits
from featcache.heads.linear import CERTAIN_LOGIT

LIGHT: dict[str, Any] = {"backbone": "timm/test_resnet", "weights": "random", "image_size": 32}


def crops(photo: np.ndarray, count: int, seed: int) -> list[Image.Image]:
    corners = np.random.default_rng(seed).integers(150, size=(count, 2))
    return [Image.fromarray(photo[y : y + 120, x : x + 120]) for y, x in corners]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders `=cat` and `cup`, 12 crops of a photo each; a name that is not UTF-8, one that
    begins as a formula does, a picture that cannot be read, and one in the wrong class.
    """
    root = tmp_path_factory.mktemp("pictures") / "drinks"
    for label, photo in {"=cat": data.chelsea(), "cup": data.coffee()}.items():
        (root / label).mkdir(parents=True)
        for i, crop in enumerate(crops(photo, 12, seed=3)):
            crop.save(root / label / f"{i:02}.png")
    (root / "cup" / "00.png").rename(root / "cup" / os.fsdecode(b"caf\xe9.png"))
    (root / "cup" / "broken.jpg").write_bytes(b"this is no picture, surely")
    crops(data.chelsea(), 1, seed=8)[0].save(root / "cup" / "wrong.png")
    return root


@pytest.fixture(scope="session")
def cache(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cuts and two views. Read only."""
    out = tmp_path_factory.mktemp("caches") / "drinks"
    fc.extract(pictures, out=out, cuts=("layer3.0",), pooling="none", views=2, **LIGHT)
    fc.extract(pictures, out=out, cuts=("layer3.0",), pooling="avg", **LIGHT)
    fc.probe(out, folds=3, tolerance=0.5, views=1)
    return out


@pytest.fixture(scope="session")
def table(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV's features: several labels, none, groups, splits. Read only, but for findings."""
    root = tmp_path_factory.mktemp("tables")
    listed = root / "several.csv"
    names = [str(path) for path in sorted(pictures.glob("*/[01][0-9].png"))]
    labels = ["a;b", "b", "", "+1", "a;+1", "a"]
    splits = ["train", "train", "test", "train"]
    rows = [f"{name},{labels[i % 6]},{splits[i % 4]},g{i // 2}" for i, name in enumerate(names)]
    listed.write_text("\n".join(["path,label,split,group", *rows]) + "\n")
    fc.extract(listed, out=root / "cache", views=2, **LIGHT)
    return root / "cache"


@pytest.fixture(scope="session")
def saved(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of two classes. Read only."""
    path = tmp_path_factory.mktemp("classifiers") / "drinks.fc"
    fc.probe(cache, folds=2, tolerance=0.5, views=1, save=path)
    return path


VARIANTS = ("logistic", "several", "hidden", "tuned", "impossible", "half")


@pytest.fixture(scope="session")
def variant(saved: Path) -> Callable[[str], Path]:
    """A classifier file of another kind: `variant("several")`. Read only."""
    plain = files.read(saved)
    rng = np.random.default_rng(0)

    def changed(name: str) -> ClassifierFile:
        head, width = plain.head, plain.head.coef.shape[1]
        if name == "logistic":
            unsure = head.bias - 150  # every sigmoid underflows in float32
            return replace(plain, head=replace(head, loss="logistic", bias=unsure))
        if name == "several":
            return replace(plain, head=replace(head, loss="logistic", multi_label=True))
        if name == "impossible":  # a class without training rows
            return replace(plain, head=replace(head, bias=np.array([0, -CERTAIN_LOGIT], "f4")))
        if name == "half":
            return replace(plain, recipe=replace(plain.recipe, precision="bf16"))
        if name == "hidden":
            units = rng.normal(0, 0.1, (8, width)).astype(np.float32)
            coef = rng.normal(0, 1, (2, 8)).astype(np.float32)
            hidden = HiddenUnits(units, np.full(8, 0.1, np.float32))
            return replace(plain, hidden=hidden, head=replace(head, coef=coef))
        state = load_backbone("timm/test_resnet", weights="random", image_size=32).state()
        tail = {k: 1.1 * v for k, v in state.items() if k.startswith("layer4") and v.ndim == 4}
        assert tail
        return replace(plain, tail=tail)

    def make(name: str) -> Path:
        path = saved.with_name(f"{name}.fc")
        if not path.exists():
            files.write(path, files.encode(changed(name)))
        return path

    return make


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo whose camera lay on its side."""
    image = Image.fromarray(data.coffee()[:300, :211])
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    return tmp_path / "photo.jpg"
