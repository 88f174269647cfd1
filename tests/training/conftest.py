"""A small network of torchvision, its activations at a cut, and targets that depend on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from featcache.backbones.cuts import Split, split_at_penultimate
from featcache.backbones.tracing import Traced, trace
from featcache.backbones.units import list_units, split_at
from featcache.heads.linear import LinearHead
from featcache.training.examples import Examples
from featcache.training.model import untrained_head

SIDE, ROWS, CLASSES = 64, 24, 3


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class Case:
    """A network cut in two, pictures, and what both parts give for them."""

    network: nn.Module
    traced: Traced
    split: Split
    units: list[str]
    pixels: Tensor
    activations: np.ndarray
    features: np.ndarray
    targets: np.ndarray
    head: LinearHead

    def examples(self, rows: np.ndarray | None = None, **fields: object) -> Examples:
        rows = np.arange(ROWS) if rows is None else rows
        return Examples(self.activations, rows, self.targets[rows], **fields)


def make_resnet(depth: int) -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.resnet18().eval().requires_grad_(requires_grad=False)
        pixels = torch.randn(ROWS, 3, SIDE, SIDE)
    traced = trace(split_at_penultimate(network, (SIDE, SIDE)).stem, (SIDE, SIDE))
    units = list_units(traced)
    split = split_at(traced, units[depth].name)
    with torch.no_grad():
        activations = split.stem(pixels)
        features = split.tail(activations.clone()).numpy()
    rng = np.random.default_rng(0)
    head = untrained_head(CLASSES, features.shape[1], "softmax", 0)
    targets = rng.integers(CLASSES, size=ROWS)
    names = [unit.name for unit in units[:depth]]
    return Case(network, traced, split, names, pixels, activations.numpy(), features, targets, head)


@pytest.fixture(scope="module")
def resnet() -> Case:
    """ResNet-18 with random weights at 64 pixels, cut below its last stage."""
    return make_resnet(2)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., tuple[nn.Sequential, Examples]]:
    """A convolutional tail with BatchNorm on maps (6, 5, 5), and examples for it."""

    def make(n: int = 40, seed: int = 0, **fields: object) -> tuple[nn.Sequential, Examples]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tail = nn.Sequential(
                nn.Conv2d(6, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            nn.init.uniform_(tail[1].running_mean)
        rng = np.random.default_rng(seed)
        maps = rng.normal(size=(n, 6, 5, 5)).astype(np.float32)
        targets = (maps[:, :2].mean(axis=(2, 3)) > 0) @ np.array([1, 2]) % CLASSES
        return tail.eval(), Examples(maps, np.arange(n), targets, **fields)

    return make
