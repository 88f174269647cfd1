"""Pictures to test with: small ones by colour, and photos that ship in packages."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def write_picture() -> Write:
    """Write a small picture of one colour; folders on the way are made."""

    def write(path: Path, colour: tuple[int, int, int] = (200, 30, 60)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        formats = {".gif": "GIF", ".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".webp": "WEBP"}
        stream = io.BytesIO()
        Image.new("RGB", (8, 6), colour).save(stream, formats.get(path.suffix.lower(), "JPEG"))
        path.write_bytes(stream.getvalue())
        return path

    return write


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory: pytest.TempPathFactory, write_picture: Write) -> Path:
    """Two classes, three pictures each. Read only."""
    root = tmp_path_factory.mktemp("data") / "pets"
    for number, name in enumerate(["cat/1.jpg", "cat/2.PNG", "cat/kittens/3.webp"]):
        write_picture(root / name, (number, 0, 0))
    for number, name in enumerate(["dog/1.jpeg", "dog/2.bmp", "dog/3.tif"]):
        write_picture(root / name, (number, 0, 99))
    return root


@pytest.fixture(scope="session")
def photos() -> dict[str, Image.Image]:
    """Real photos of several shapes, two of them smaller than any crop."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    china, flower = (Image.fromarray(photo) for photo in load_sample_images().images)
    astronaut = Image.fromarray(data.astronaut())
    return {
        "astronaut 512 x 512": astronaut,
        "chelsea 451 x 300": Image.fromarray(data.chelsea()),
        "coffee 600 x 400": Image.fromarray(data.coffee()),
        "china 640 x 427": china,
        "flower, tall": flower.rotate(90, expand=True),
        "a strip": china.crop((3, 100, 640, 141)),
        "a tower": china.crop((100, 1, 133, 420)),
        "odd sides": astronaut.crop((0, 0, 333, 127)),
        "small": astronaut.crop((150, 50, 201, 87)),
        "one pixel high": astronaut.crop((0, 9, 5, 10)),
    }


@pytest.fixture(scope="session")
def gradient() -> np.ndarray:
    """An RGB array (12, 20, 3) uint8 that no flip and no turn leaves as it is."""
    rows, columns = np.mgrid[0:12, 0:20]
    return np.stack([rows * 20, columns * 12, (rows + columns) * 7], axis=2).astype(np.uint8)
