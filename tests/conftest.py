"""What several rooms test with: real photos, folders of them, a light network."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

CLASSES = {"cat": (1,), "cup": (2,), "sky": (3, 5)}
"""Class names and the photos their pictures are cut from."""


@pytest.fixture(scope="session", autouse=True)
def _own_cached_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What engines compile lands in no one's home."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache-home")))
        yield


@pytest.fixture
def tried() -> Callable[..., None]:
    """Note faults that a test made, for the table that `make faults` prints."""

    def note(kind: str, points: int, *, sees: str, failures: int = 0) -> None:
        line = json.dumps({"kind": kind, "points": points, "failures": failures, "sees": sees})
        if place := os.environ.get("FEATCACHE_FAULTS"):
            with Path(place).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")  # one write: workers of pytest share the file

    return note


@pytest.fixture
def by_processes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Once called, two processes decode all there is; gives how much each was asked for at once."""
    from featcache.extraction import pipeline
    from featcache.images import workers

    asked, start, ask = list[int](), workers.Workers.start, workers._Worker.ask

    def waited_for(self: Any, count: int) -> None:
        start(self, min(count, 2))
        for worker in self._started:
            worker._welcome.join()

    def noted(self: Any, items: Any) -> Any:
        asked.append(len(items))
        return ask(self, items)

    def begin() -> list[int]:
        monkeypatch.setattr(workers.Workers, "start", waited_for)
        monkeypatch.setattr(workers._Worker, "ask", noted)
        monkeypatch.setattr(pipeline, "MANY_CORES", 1)
        monkeypatch.setattr(pipeline, "PICTURES_A_CORE", 1)
        return asked

    return begin


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks this small gain nothing from threads, which wait long where cores are shared."""
    import torch

    monkeypatch.setattr("featcache.engines.torch.available_cores", lambda: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Photos that ship in packages: an astronaut, a cat, a cup, a rocket, a temple, a flower."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    arrays = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), china, flower]
    return [Image.fromarray(array) for array in arrays]


@pytest.fixture(scope="session")
def jpegs(photos: list[Image.Image]) -> dict[str, bytes]:
    """Twelve small JPEG crops for each of three classes, all different, by relative path."""
    files = {}
    for name, numbers in CLASSES.items():
        for i in range(12):
            photo = photos[numbers[i % len(numbers)]]
            left, top = 17 * i, 11 * i
            stream = io.BytesIO()
            photo.crop((left, top, left + 96, top + 80)).save(stream, "JPEG", quality=85)
            files[f"{name}/{i:02d}.jpg"] = stream.getvalue()
    return files


@pytest.fixture
def class_folders(tmp_path: Path, jpegs: dict[str, bytes]) -> Path:
    """A folder of class folders with `jpegs` in them, to be changed as one likes."""
    root = tmp_path / "pictures"
    for path, content in jpegs.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pets/ and photo.jpg, as the walks of the documents have them."""
    import numpy as np
    import skimage.data

    rng = np.random.default_rng(0)
    photos = {"cat": skimage.data.chelsea(), "dog": skimage.data.astronaut()}
    for name, photo in photos.items():
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(12):
            top, left = (rng.integers(0, side - 200) for side in photo.shape[:2])
            crop = Image.fromarray(photo[top : top + 200, left : left + 200])
            crop.save(tmp_path / "pets" / name / f"{number}.jpg")
    Image.fromarray(photos["cat"]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATCACHE_DIR", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def light() -> dict[str, Any]:
    """Options of `extract` for a network that takes a fraction of a millisecond a picture."""
    return {"backbone": "timm/test_resnet", "weights": "random", "image_size": 32}


@pytest.fixture
def extract_light(tmp_path: Path, light: dict[str, Any]) -> Callable[..., Any]:
    """`featcache.api.extract` with `light`, into `tmp_path / "cache"` unless told otherwise."""
    from featcache import api

    def extract(data: Path, **options: Any) -> Any:
        return api.extract(data, **{"out": tmp_path / "cache", **light, **options})

    return extract
