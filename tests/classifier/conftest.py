"""A tiny network, real photos, and a classifier that was saved from them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from skimage import data

from featcache import api
from featcache.backbones.registry import load_backbone
from featcache.classifier.joined import join
from featcache.classifier.parity import CheckedRows, choose_rows, save_checked
from featcache.errors import FeatcacheError
from featcache.extraction.pipeline import Slot
from featcache.images.sources import source_from_locator
from featcache.store.cache import Cache

BACKBONE = "timm/test_resnet"
SIZE = 48

FACTORY = """
import timm, torch
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
preprocessing = {"size": [32, 32], "resize": [32], "mean": [0.5] * 3, "std": [0.5] * 3}
def make():
    torch.manual_seed(3)
    return timm.create_model("test_resnet")
"""


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders `cat` and `coffee`, 14 crops each of a photo. Read only."""
    root = tmp_path_factory.mktemp("pictures") / "drinks"
    rng = np.random.default_rng(0)
    for name, photo in {"cat": data.chelsea(), "coffee": data.coffee()}.items():
        (root / name).mkdir(parents=True)
        for i in range(14):
            y, x = rng.integers(photo.shape[0] - 90), rng.integers(photo.shape[1] - 90)
            Image.fromarray(photo[y : y + 90, x : x + 90]).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture(scope="session")
def cache(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures' features by a random network. Read only, but for findings."""
    out = tmp_path_factory.mktemp("caches") / "drinks"
    api.extract(pictures, backbone=BACKBONE, weights="random:1", image_size=SIZE, out=out)
    return out


@pytest.fixture(scope="session")
def saved(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with its backbone by name. Read only."""
    path = tmp_path_factory.mktemp("classifiers") / "drinks.fc"
    api.probe(cache, save=path, folds=2)
    return path


@pytest.fixture
def own_cache(cache: Path, tmp_path: Path) -> Path:
    """A copy of the cache, to be changed."""
    return Path(shutil.copytree(cache, tmp_path / "own"))


@pytest.fixture
def weights(tmp_path: Path) -> Callable[[str, int], Path]:
    """Write random weights of the network to a file: `weights("a.safetensors", seed)`."""

    def write(name: str, seed: int) -> Path:
        state = load_backbone(BACKBONE, weights=f"random:{seed}", image_size=SIZE).state()
        save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of one's own with a network: `mynet:make`. `mynet.ran` appears when it is run."""
    (tmp_path / "mynet.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "mynet.ran"


@dataclass(frozen=True)
class Checked:
    """A classifier that is about to be saved, and the rows it is checked on."""

    content: object
    rows: CheckedRows

    def save(self, path: Path, **changes: object) -> None:
        save_checked(path, replace(self.content, **changes), join, self.rows)


@pytest.fixture
def checked(cache: Path, saved: Path) -> Checked:
    from featcache.classifier import files

    opened = Cache(cache)
    chosen = choose_rows(len(opened.index))
    reader = opened.stream()
    features = reader.read(reader.positions(opened.index.hashes[chosen])).astype(np.float32)
    slots = [Slot(opened.index.hashes[i].tobytes(), opened.index.paths[int(i)]) for i in chosen]
    source = source_from_locator(opened.manifest.source)
    content = files.read(saved)
    return Checked(content, CheckedRows(source, slots, content.logits(features)))


@pytest.fixture(scope="session")
def fails() -> Callable[..., str]:
    """The text of the error that a call raises; no file may be left beside what was there."""

    def run(kind: type[FeatcacheError], call: Callable[[], object], folder: Path) -> str:
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with pytest.raises(kind) as caught:
            call()
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
        return str(caught.value)

    return run
