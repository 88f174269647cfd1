"""Photos that ship in packages, cut into class folders; a tiny network."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache.results import ExtractResult

LIGHT: dict[str, Any] = {"backbone": "timm/test_resnet", "weights": "random", "image_size": 32}
CROP = 110


def photos() -> dict[str, dict[str, np.ndarray]]:
    """By class and name, three photos each."""
    from skimage import data

    return {
        "sky": {"moon": data.moon(), "hubble": data.hubble_deep_field(), "rocket": data.rocket()},
        "texture": {"brick": data.brick(), "grass": data.grass(), "gravel": data.gravel()},
        "thing": {"cat": data.chelsea(), "coffee": data.coffee(), "person": data.astronaut()},
    }


def crops(photo: np.ndarray, count: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    corners = [
        (rng.integers(photo.shape[0] - CROP), rng.integers(photo.shape[1] - CROP))
        for _ in range(count)
    ]
    return [Image.fromarray(photo[y : y + CROP, x : x + CROP]).convert("RGB") for y, x in corners]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """117 pictures in 3 class folders; crops of one photo are `<photo>-<number>.jpg`. Read only."""
    root = tmp_path_factory.mktemp("pictures") / "kinds"
    for label, named in photos().items():
        (root / label).mkdir(parents=True)
        for name, photo in named.items():
            for i, crop in enumerate(crops(photo, 13, seed=1)):
                crop.save(root / label / f"{name}-{i:02}.jpg", quality=90)
    return root


@pytest.fixture(scope="session")
def grouped(folders: Path) -> Path:
    """A CSV of the same pictures with the photo as group. Read only."""
    table = folders.parent / "kinds-by-photo.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group"])
        for path in sorted(folders.glob("*/*.jpg")):
            relative = path.relative_to(table.parent).as_posix()
            writer.writerow([relative, path.parent.name, path.stem.split("-")[0]])
    return table


@pytest.fixture(scope="session")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other crops of the same photos, in one folder: `<class>-<photo>-<number>.png`. Read only."""
    root = tmp_path_factory.mktemp("unseen")
    for label, named in photos().items():
        for name, photo in named.items():
            for i, crop in enumerate(crops(photo, 2, seed=2)):
                crop.save(root / f"{label}-{name}-{i}.png")
    return root


@pytest.fixture(scope="session")
def extracted(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> ExtractResult:
    """The pictures' features by a tiny random network. Read only, but for findings."""
    from featcache import api

    return api.extract(folders, out=tmp_path_factory.mktemp("caches") / "kinds", **LIGHT)


@pytest.fixture(scope="session")
def light() -> dict[str, Any]:
    """Options of `extract` for a network that takes a fraction of a millisecond a picture."""
    return LIGHT
