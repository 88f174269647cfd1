"""Digits through a tiny random network, with the activations of two depths; photos with all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache import api
from featcache.backbones.registry import Backbone, load_backbone
from featcache.probing import LabelledRows, ProbeSpec, labelled_rows
from featcache.recipe import PENULTIMATE
from featcache.store.cache import Cache
from featcache.training.spec import TrainingSpec
from featcache.unfreezing import SweepSpec
from featcache.unfreezing.depths import units_of

NETWORK: dict[str, Any] = {"weights": "random", "image_size": 32}
CUTS = ("layer3.0", "layer2.0")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """All 1,797 digits. Read only, but for findings."""
    out = tmp_path_factory.mktemp("caches") / "digits"
    api.extract(
        "digits", backbone="timm/test_resnet", out=out, cuts=CUTS, pooling="none", **NETWORK
    )
    return Cache(out)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return load_backbone("timm/test_resnet", **NETWORK)


@pytest.fixture(scope="session")
def data(digits: Cache) -> LabelledRows:
    """300 of them."""
    return first(labelled_rows(digits), 300)


def first(data: LabelledRows, count: int) -> LabelledRows:
    names = ("features", "targets", "splits", "groups", "rows", "hashes")
    return replace(data, **{name: getattr(data, name)[:count] for name in names})


@pytest.fixture(scope="session")
def spec() -> SweepSpec:
    return SweepSpec(
        depths=(0, 1, 2),
        probe=ProbeSpec(folds=3, tolerance=0.01, grid=(1.0, 100.0, 1e4)),
        training=TrainingSpec(epochs=8, rate=3e-3),
    )


@dataclass(frozen=True, eq=False)
class Case:
    """What a sweep takes, and the folder of the pictures."""

    pictures: Path
    cache: Cache
    data: LabelledRows
    backbone: Backbone
    units: list[str]


@pytest.fixture(scope="session")
def case(
    jpegs: dict[str, bytes], light: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """36 photos of three classes at 32 pixels, and float32 activations of every unit."""
    root = tmp_path_factory.mktemp("unfreezing")
    for path, content in jpegs.items():
        (root / "pictures" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "pictures" / path).write_bytes(content)
    options = {"cuts": ("all",), "pooling": "none", "store_dtype": "float32"}
    api.extract(root / "pictures", out=root / "cache", **light, **options)
    cache = Cache(root / "cache")
    backbone = load_backbone(
        light["backbone"], weights=light["weights"], image_size=light["image_size"]
    )
    data = labelled_rows(cache, PENULTIMATE, 2 << 30)
    return Case(root / "pictures", cache, data, backbone, units_of(backbone))
