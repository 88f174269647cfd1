"""A hundred thousand pictures and a million rows: nothing grows, and nothing is waited for.

Run as a script this file extracts or opens a cache in a process of its own, and says what it took.
"""

from __future__ import annotations

import hashlib
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import featcache.engines.torch as engine
from featcache.backbones.registry import Backbone
from featcache.extraction.jobs import Job
from featcache.extraction.running import run
from featcache.images.sources import Listing, Sample, StatKey
from featcache.recipe import Preprocessing, Recipe, Stream
from featcache.store import manifest as manifests
from featcache.store.cache import Cache, shard_path
from featcache.store.files import sha256_file
from featcache.store.index import Index, sorting, write_index
from featcache.store.manifest import IndexEntry, Manifest, ShardEntry, StreamEntry
from featcache.store.shards import Shard, encode_shard
from featcache.store.strings import Strings

PICTURES = 100_000
KILLED_AT = (3, 150, 370)
"""Shards that are there when it is killed, of 391."""

MILLIONS, WIDTH, SHARD_ROWS = 1_300_000, 2048, 4096
OPEN_FILES = 256
"""That a process may have: a quarter of what is usual."""

PREPROCESSING = Preprocessing((4, 4), (4,), (0.5,) * 3, (0.5,) * 3)
RECIPE = Recipe("f" * 64, "test/few-layers", PREPROCESSING)


class Many:
    """Pictures in memory, of settled files as it seems; counts how often one is read."""

    def __init__(self) -> None:
        self.name, self.reads = "many", 0
        self.locator = {"kind": "folder", "location": "/many"}

    def scan(self) -> Listing:
        samples = [
            Sample(f"{i:06d}", (str(i % 10),), None, None, StatKey(48, 1, 1, i))
            for i in range(PICTURES)
        ]
        return Listing(samples, {}, [], ())

    def read(self, path: str) -> np.ndarray:
        self.reads += 1
        return np.frombuffer(hashlib.sha384(path.encode()).digest(), np.uint8).reshape(4, 4, 3)


def few_layers() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def backbone() -> Backbone:
    return Backbone(
        name="few-layers",
        architecture=RECIPE.architecture,
        stem=few_layers(),
        classifier=None,
        width=8,
        preprocessing=PREPROCESSING,
        locator={"kind": "random", "seed": 0},
        weights_sha256=RECIPE.weights,
        parameters=0,
    )


def extract(folder: str) -> None:
    """Extract what is missing; say what it took, and what it held as it went on."""
    engine.available_cores = lambda: 1  # networks this small gain nothing from threads
    started, source = time.process_time(), Many()
    first: list[float] = []
    held: list[tuple[int, int]] = []

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "extract":
            first.extend([] if first else [time.process_time() - started])
            if done % 3200 == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                files = len(list(Path("/proc/self/fd").iterdir()))
                held.append((pages * resource.getpagesize(), files))

    done = run(Job(Path(folder), source, backbone(), engine="torch", threads=1), watch)
    said = {"computed": done.computed, "reads": source.reads, "first": first, "held": held}
    sys.stdout.write(json.dumps(said))


def open_cache(folder: str) -> None:
    """Open a cache, read a row of its first and of its last shard, and find all; say how long."""
    started = time.process_time()
    cache = Cache(Path(folder))
    reader, index = cache.stream(), cache.index
    rows = reader.read(reader.positions(index.hashes[[0, len(index) - 1]]))
    opened = time.process_time()
    missing = cache.missing(reader)
    said = {
        "rows": [len(index), len(reader)],
        "values": rows[:, 0].tolist(),
        "opened": opened - started,
        "missing": missing,
        "found": time.process_time() - opened,
    }
    sys.stdout.write(json.dumps(said))


def in_a_process_of_its_own(what: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", __file__, what, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    return json.loads(said)


def shards_of(folder: Path) -> int:
    return len(list(folder.glob("shards/*/*.h5")))


@pytest.mark.slow
@pytest.mark.faults
def test_a_hundred_thousand_pictures_grow_nothing(
    tmp_path: Path, tried: Callable[..., None]
) -> None:
    said = said_by(in_a_process_of_its_own("extract", tmp_path / "cache"))
    assert said["computed"] == PICTURES
    memory, files = np.array(said["held"]).T
    assert len(memory) > 20
    quarter = len(memory) // 4
    assert memory[quarter:].max() - memory[:quarter].max() < 24 << 20
    assert files.max() - files.min() <= 8
    tried("a long run", PICTURES, sees="flat memory, no file left open")


@pytest.mark.slow
@pytest.mark.faults
def test_killed_at_any_point_it_goes_on_within_seconds(
    tmp_path: Path, tried: Callable[..., None]
) -> None:
    folder = tmp_path / "cache"
    for shards in KILLED_AT:
        process = in_a_process_of_its_own("extract", folder)
        while shards_of(folder) < shards:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    rows = len(Cache(folder).stream())
    said = said_by(in_a_process_of_its_own("extract", folder))
    assert said["computed"] == said["reads"] == PICTURES - rows, "something was read twice"
    assert said["first"][0] < 10, "seconds until it computed"
    cache = Cache(folder)
    assert cache.missing(cache.stream()) == 0
    assert len(cache.stream()) == PICTURES
    tried("a long run killed", len(KILLED_AT), sees="it goes on within seconds")


@pytest.fixture
def million(tmp_path: Path) -> Path:
    """A cache of 1.3 million rows; of its features only two shards' are there."""
    folder = tmp_path / "million"
    folder.mkdir()
    hashes = np.random.default_rng(0).integers(0, 256, (MILLIONS, 32), np.uint8)
    hashes = hashes[sorting(hashes)]
    file, sha256 = write_index(folder, index_of(hashes))
    stream = Stream(RECIPE.key)
    entry = StreamEntry(stream, (WIDTH,), tuple(write_shards(folder, stream, hashes)))
    source = {"kind": "folder", "location": "/many"}
    backbone = {"name": "few-layers", "locator": {"kind": "random", "seed": 0}}
    index = IndexEntry(file, sha256, MILLIONS)
    manifest = Manifest(RECIPE, backbone, source, index, {stream.key: entry})
    manifests.commit(folder, manifest, lambda: None)
    return folder


def index_of(hashes: np.ndarray) -> Index:
    n = len(hashes)
    return Index(
        paths=Strings.of(f"class{i % 1000:04d}/picture-{i:07d}.jpeg" for i in range(n)),
        hashes=hashes,
        label_names=Strings.of(f"class{i:04d}" for i in range(1000)),
        label_offsets=np.arange(n + 1, dtype=np.int64),
        label_codes=np.arange(n, dtype=np.int32) % 1000,
        splits=np.full(n, -1, np.int8),
        group_names=Strings.of([]),
        groups=np.full(n, -1, np.int64),
        stats=np.ones((n, 4), np.int64),
    )


def write_shards(folder: Path, stream: Stream, hashes: np.ndarray) -> Iterator[ShardEntry]:
    """The first and the last with their number in each row; the others with a hole in its place."""
    runs = [hashes[start : start + SHARD_ROWS] for start in range(0, MILLIONS, SHARD_ROWS)]
    hollow = encoded(stream, runs[1], 0)
    at = hollow.index(runs[1].tobytes())
    blocks = np.frombuffer(hollow.ljust(-(-len(hollow) // 4096) * 4096, b"\0"), np.uint8)
    filled = np.flatnonzero(blocks.reshape(-1, 4096).any(axis=1))
    for number, some in enumerate(runs):
        path = shard_path(folder, stream, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        if number in (0, len(runs) - 1):
            path.write_bytes(encoded(stream, some, number))
            yield ShardEntry(number, len(some), 0, sha256_file(path))
            continue
        with path.open("wb") as file:
            for block in filled.tolist():
                file.seek(4096 * block)
                file.write(hollow[4096 * block : 4096 * (block + 1)])
            file.seek(at)
            file.write(some.tobytes())
            file.truncate(len(hollow))
        yield ShardEntry(number, len(some), 0, "0" * 64)


def encoded(stream: Stream, hashes: np.ndarray, value: float) -> bytes:
    features = np.full((len(hashes), WIDTH), value, np.float32)
    none = np.empty((0, 32), np.uint8)
    return encode_shard(stream, Shard(features, hashes, none, Strings.of([])))


@pytest.mark.slow
@pytest.mark.faults
def test_a_million_rows_are_opened_within_a_second(
    million: Path, tried: Callable[..., None]
) -> None:
    """Only what is read is hashed; the hashes of the other shards are wrong, and nobody asks."""
    said = min(
        (said_by(in_a_process_of_its_own("open", million)) for _ in range(3)),
        key=lambda each: each["opened"],  # what runs beside makes the others longer
    )
    last = len(range(0, MILLIONS, SHARD_ROWS)) - 1
    assert said["rows"] == [MILLIONS, MILLIONS]
    assert said["values"] == [0, last]
    assert said["missing"] == 0
    assert said["opened"] < 1, "CPU seconds, the least of three processes"
    tried("a cache of 1.3 million rows", MILLIONS, sees="open in under a second")


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, most))
    {"extract": extract, "open": open_cache}[sys.argv[1]](sys.argv[2])
