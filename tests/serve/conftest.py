"""A classifier of photos, and pictures to ask it of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

import featcache as fc

STRANGE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose classes are `cat` and one that would run in a page. Read only."""
    root = tmp_path_factory.mktemp("serve")
    for label, photo in {"cat": data.chelsea(), STRANGE: data.coffee()}.items():
        (root / "pictures" / label).mkdir(parents=True)
        for i, (y, x) in enumerate(np.random.default_rng(0).integers(150, size=(10, 2))):
            crop = Image.fromarray(photo[y : y + 140, x : x + 140])
            crop.save(root / "pictures" / label / f"{i}.png")
    made = fc.extract(
        root / "pictures",
        backbone="timm/test_resnet",
        weights="random",
        image_size=32,
        out=root / "cache",
    )
    fc.probe(made, folds=2, tolerance=0.5, save=root / "drinks.fc")
    return root / "drinks.fc"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A cat, a cup, and a text that says it is a picture. Read only."""
    root = tmp_path_factory.mktemp("photos")
    Image.fromarray(data.chelsea()).save(root / "cat.jpg")
    Image.fromarray(data.coffee()).save(root / "cup.png")
    (root / "text.jpg").write_text("this is no picture, surely")
    return root / "cat.jpg", root / "cup.png", root / "text.jpg"
