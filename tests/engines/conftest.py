"""A light network with random weights, and pictures of noise."""

from __future__ import annotations

import numpy as np
import pytest

from featcache.backbones.registry import Backbone, load_backbone

SIDE = 32


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return load_backbone("timm/test_resnet", weights="random", image_size=SIDE)


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """(10, H, W, 3) uint8, no multiple of what an engine takes at a time."""
    return np.random.default_rng(0).integers(0, 256, (10, SIDE, SIDE, 3), dtype=np.uint8)
