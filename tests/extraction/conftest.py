"""A source in memory and a network of known results, so that every row can be foretold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featcache.backbones.registry import Backbone
from featcache.errors import PictureError
from featcache.extraction.jobs import Job
from featcache.extraction.running import Extraction, run
from featcache.images.sources import Listing, Sample, StatKey
from featcache.recipe import Preprocessing
from featcache.store.cache import Cache

SIDE = 4
PREPROCESSING = Preprocessing((SIDE, SIDE), (SIDE,), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass
class MemorySource:
    """Pictures in memory; a picture is a number, and what is no number cannot be decoded.

    Attributes:
        pictures: by path. labels, splits: by path, where there are any.
        stats: stat keys by path; without one a picture is read at every scan.
        reads: paths in the order they were read.
        before_read: called with the path before each read, as another program may meddle.
    """

    pictures: dict[str, int | bytes]
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    stats: dict[str, StatKey] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    before_read: Callable[[str], None] = lambda path: None
    name: str = "memory"
    locator: dict[str, str] = field(
        default_factory=lambda: {"kind": "folder", "location": "/memory"}
    )

    def scan(self) -> Listing:
        samples = [
            Sample(p, self.labels.get(p, ("a",)), self.splits.get(p), None, self.stats.get(p))
            for p in self.pictures
        ]
        return Listing(samples, {}, [], ())

    def read(self, path: str) -> bytes | np.ndarray:
        self.before_read(path)
        self.reads.append(path)
        picture = self.pictures.get(path)
        if picture is None:
            raise PictureError("missing: there is no such file")
        return picture if isinstance(picture, bytes) else pixels(picture)


def pixels(number: int) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8 of picture `number`; 255s make the network fail."""
    seed = int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:8], "little")
    picture = np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    if number < 0:
        picture[:] = 255
    return picture


class Pairs(torch.nn.Module):
    """The first six values of a picture in [0, 1]; infinity for one that is all white.

    Attributes:
        batches: how many batches were run. fail_at: the batch that raises instead, counted from 1.
        shift: added to every value.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batches, self.fail_at, self.shift = 0, -1, 0.0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.batches += 1
        if self.batches == self.fail_at:
            raise InterruptedRunError
        rows = batch.permute(0, 2, 3, 1).reshape(len(batch), -1)[:, :6] + self.shift
        return torch.where(batch.amin(dim=(1, 2, 3), keepdim=False)[:, None] >= 1, torch.inf, rows)


class InterruptedRunError(Exception):
    """Stands for the end of a run."""


WHITE = 1e36


class Door(nn.Module):
    """Passes pictures on, white ones so bright that they overflow further up; counts batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches, self.fail_at = 0, -1
        self.failure = RuntimeError

    def forward(self, pixels: Tensor) -> Tensor:
        self.batches += 1
        if self.batches == self.fail_at:
            raise self.failure
        white = pixels.amin(dim=(1, 2, 3), keepdim=True) >= 1
        return torch.where(white, torch.full_like(pixels, WHITE), pixels)


class Block(nn.Module):
    """A residual block that scales what passes by."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + 1e-3 * self.conv(x)


class Blocks(nn.Module):
    """Units `low`, `middle` and `high`; only above `middle` does a white picture overflow."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.door = Door()
            self.low, self.middle, self.high = Block(1), Block(0.5), Block(1e4)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.high(self.middle(self.low(self.door(pixels)))).flatten(1)[:, :6]

    @property
    def batches(self) -> int:
        return self.door.batches

    @batches.setter
    def batches(self, count: int) -> None:
        self.door.batches = count

    @property
    def fail_at(self) -> int:
        return self.door.fail_at

    @fail_at.setter
    def fail_at(self, batch: int) -> None:
        self.door.fail_at = batch


@dataclass
class Lab:
    """A source, a network and a cache, to be run as often as one likes."""

    folder: Path
    source: MemorySource
    stem: Pairs | Blocks
    weights: str = "f" * 64

    Interrupted = InterruptedRunError
    picture = staticmethod(pixels)

    @property
    def backbone(self) -> Backbone:
        return Backbone(
            name="pairs",
            architecture="test/pairs",
            stem=self.stem,
            classifier=None,
            width=6,
            preprocessing=PREPROCESSING,
            locator={"kind": "random", "seed": 0},
            weights_sha256=self.weights,
            parameters=0,
        )

    def job(self, **options: Any) -> Job:
        defaults = {"batch_size": 2, "shard_rows": 4, "threads": 2}
        return Job(self.folder, self.source, self.backbone, **{**defaults, **options})

    def run(self, **options: Any) -> Extraction:
        return run(self.job(**options))

    def interrupt(self, batch: int, **options: Any) -> None:
        """Run until a batch (from 1) of this run, which raises."""
        self.stem.batches, self.stem.fail_at = 0, batch
        with pytest.raises(InterruptedRunError):
            self.run(**options)
        self.stem.fail_at = -1

    def rows(self) -> dict[str, np.ndarray]:
        """What the cache holds, by path; a path without a row is left out."""
        cache = Cache(self.folder)
        reader = cache.stream()
        positions = reader.positions(cache.index.hashes)
        there = np.flatnonzero(positions >= 0)
        rows = reader.read(positions[there])
        return {cache.index.paths[int(i)]: row for i, row in zip(there, rows, strict=True)}

    def expected(self) -> dict[str, np.ndarray]:
        """What the cache should hold."""
        return {
            path: (pixels(number).reshape(-1)[:6].astype(np.float32) / np.float32(255))
            for path, number in self.source.pictures.items()
            if isinstance(number, int) and number >= 0
        }

    def assert_right(self) -> None:
        found, expected = self.rows(), self.expected()
        assert set(found) == set(expected)
        for path, row in expected.items():
            assert np.array_equal(found[path], row), path

    def bytes(self) -> dict[str, bytes]:
        """Every file that is compared between caches, by its path."""
        return {
            str(p.relative_to(self.folder)): p.read_bytes()
            for p in self.folder.rglob("*")
            if p.is_file() and p.name not in ("log.jsonl", ".lock")
        }


@pytest.fixture(autouse=True)
def _always_one_thread(one_thread: None) -> None:
    """In every test of this room."""


@pytest.fixture
def make_lab(tmp_path: Path) -> Callable[..., Lab]:
    """Makes labs of given pictures, each with a cache of its own."""
    made = 0

    def make(pictures: dict[str, int | bytes] | range, **options: Any) -> Lab:
        nonlocal made
        made += 1
        if isinstance(pictures, range):
            pictures = {f"{i:02d}": i for i in pictures}
        return Lab(tmp_path / f"cache{made}", MemorySource(pictures, **options), Pairs())

    return make


@pytest.fixture
def make(make_lab: Callable[..., Lab]) -> Callable[..., Lab]:
    """Makes labs whose network has units."""

    def made(pictures: dict[str, int | bytes] | range, **options: Any) -> Lab:
        lab = make_lab(pictures, **options)
        lab.stem = Blocks().eval()
        lab.stem.door.failure = lab.Interrupted
        return lab

    return made
