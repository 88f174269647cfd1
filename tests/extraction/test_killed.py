"""Killed or interrupted at any instant, an extraction goes on as if nothing had happened."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from featcache import api
from featcache.api.requests import ExtractRequest
from featcache.backbones.registry import load_backbone
from featcache.extraction.deriving import Means, derive, derived
from featcache.recipe import Stream
from featcache.store.cache import Cache
from featcache.store.upkeep import verify_files
from featcache_cli.app import app

KILLS = 20
KILLS_WITH_MORE = 5
PICTURES, SHARD_ROWS = 360, 4
SHARDS = PICTURES // SHARD_ROWS
DERIVED = 252
TOGETHER = 180

PRELOADED = ("featcache.api.extracting", "featcache.extraction.deriving", "timm", "torchvision")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """Children inherit it: threads of networks this small wait long where cores are shared."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


def committed_shards(cache: Path) -> int:
    try:
        manifest = json.loads((cache / "manifest.json").read_bytes())
    except FileNotFoundError:
        return 0
    (count,) = {len(stream["shards"]) for stream in manifest["streams"].values()}
    return count  # of each stream: shards of one pass are committed together


def wait_until(condition: Callable[[], bool], alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert alive(), "it ended too early"
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.001)


def compared_files(cache: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(cache)): p.read_bytes()
        for p in cache.rglob("*")
        if p.is_file() and p.name not in ("log.jsonl", ".lock")
    }


def forking() -> Any:
    """Every attempt is a process of its own, forked where the libraries are imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    return context


def copies(root: Path, jpegs: dict[str, bytes], count: int) -> Path:
    """A folder of that many different pictures."""
    for i, (path, content) in enumerate(list(jpegs.items()) * (count // len(jpegs))):
        place = root / Path(path).parent / f"{i:05d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content + i.to_bytes(4, "little"))  # ignored after a JPEG's end
    return root


@pytest.mark.parametrize(
    ("kills", "more"),
    [
        (KILLS, {}),
        (KILLS_WITH_MORE, {"cuts": ("layer1.0", "layer3.0")}),
        pytest.param(KILLS_WITH_MORE, {"views": 3, "tta": 1}, marks=pytest.mark.slow),
    ],
    ids=["one stream", "cuts", "views"],
)
def test_killed_again_and_again_the_cache_is_byte_for_byte_the_uninterrupted_one(
    tmp_path: Path, jpegs, light, kills: int, more: dict[str, Any]
) -> None:
    data = copies(tmp_path / "pictures", jpegs, PICTURES)
    cache, whole = tmp_path / "killed", tmp_path / "whole"
    options = {**light, **more, "batch_size": SHARD_ROWS, "shard_rows": SHARD_ROWS}
    request = ExtractRequest(data, out=cache, **options)
    processes = forking()
    instants = random.Random(0)
    progress = []
    for kill in range(kills):
        process = processes.Process(target=api.extract, args=(request,))
        process.start()
        goal = max(committed_shards(cache), kill * (SHARDS - 10) // kills) + 1
        wait_until(lambda goal=goal: committed_shards(cache) >= goal, process.is_alive)
        time.sleep(instants.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        progress.append(committed_shards(cache))
    assert len(progress) == kills
    assert progress[0] > 0
    assert progress[-1] < SHARDS
    assert progress == sorted(set(progress)), "each attempt got further"
    rest = api.extract(request)
    assert (rest.computed, rest.reused) == (
        PICTURES - SHARD_ROWS * progress[-1],
        SHARD_ROWS * progress[-1],
    )
    api.extract(data, out=whole, **options)
    assert committed_shards(whole) == SHARDS
    assert compared_files(cache) == compared_files(whole)
    assert verify_files(cache)[2] == []


@pytest.mark.slow
def test_killed_again_and_again_every_cache_of_one_pass_is_the_uninterrupted_one(
    tmp_path: Path, jpegs, light
) -> None:
    names = ("timm/test_resnet", "timm/test_vit", "timm/test_efficientnet")
    data = copies(tmp_path / "pictures", jpegs, TOGETHER)
    options = {**light, "batch_size": SHARD_ROWS, "shard_rows": SHARD_ROWS}
    out = tmp_path / "killed"
    request = ExtractRequest(data, out=out, **{**options, "backbone": ",".join(names)})
    caches = [out / f"pictures-{name.replace('/', '-')}" for name in names]
    processes, instants, reached = forking(), random.Random(0), []
    for kill in range(KILLS_WITH_MORE):
        process = processes.Process(target=api.extract_each, args=(request,))
        process.start()
        goal = max(committed_shards(caches[-1]), kill * TOGETHER // SHARD_ROWS // 8) + 1
        wait_until(lambda goal=goal: committed_shards(caches[-1]) >= goal, process.is_alive)
        time.sleep(instants.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        reached.append(committed_shards(caches[-1]))
    assert reached == sorted(set(reached)), "each attempt got further"
    assert reached[-1] < TOGETHER // SHARD_ROWS
    api.extract_each(request)
    for name, cache in zip(names, caches, strict=True):
        whole = tmp_path / "whole" / cache.name
        api.extract(data, out=whole, **{**options, "backbone": name})
        assert compared_files(cache) == compared_files(whole)
        assert verify_files(cache)[2] == []


def test_killed_again_and_again_a_derivation_is_byte_for_byte_the_uninterrupted_one(
    tmp_path: Path, jpegs, light
) -> None:
    data = copies(tmp_path / "pictures", jpegs, DERIVED)
    cache, whole = tmp_path / "killed", tmp_path / "whole"
    api.extract(data, out=cache, cuts=("layer1.0",), pooling="none", **light)
    shutil.copytree(cache, whole)
    parent = Cache(cache).stream("layer1.0").entry.stream
    streams = [derived(parent, cut) for cut in ("layer2.0", "layer3.0")]
    options = {"weights": light["weights"], "image_size": light["image_size"]}
    backbone = load_backbone(light["backbone"], **options)
    means = Means(batch_size=SHARD_ROWS, shard_rows=SHARD_ROWS)
    processes = forking()
    instants, reached = random.Random(0), []
    for kill in range(KILLS_WITH_MORE):
        process = processes.Process(target=derive, args=(cache, backbone, streams, means))
        process.start()
        goal = max(shards_of(cache, streams[1]), kill * DERIVED // SHARD_ROWS // 8) + 1
        wait_until(lambda goal=goal: shards_of(cache, streams[1]) >= goal, process.is_alive)
        time.sleep(instants.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        reached.append(shards_of(cache, streams[1]))
    assert reached == sorted(set(reached)), "each attempt got further"
    assert reached[-1] < DERIVED // SHARD_ROWS
    rest = derive(cache, backbone, streams, means)
    assert rest == 2 * (DERIVED - SHARD_ROWS * reached[-1])
    assert derive(whole, backbone, streams, means) == 2 * DERIVED
    assert compared_files(cache) == compared_files(whole)
    assert verify_files(cache)[2] == []


def shards_of(cache: Path, stream: Stream) -> int:
    """How many shards of a stream are committed."""
    entry = Cache(cache).manifest.streams.get(stream.key)
    return len(entry.shards) if entry else 0


def test_control_c_keeps_what_was_finished_and_the_next_run_says_so(
    tmp_path: Path, jpegs, light, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache = copies(tmp_path / "pictures", jpegs, 1800), tmp_path / "cache"
    options = [
        *("--backbone", light["backbone"], "--weights", light["weights"]),
        *("--image-size", str(light["image_size"]), "--out", str(cache)),
    ]
    command = [str(Path(sys.executable).parent / "featcache"), "extract", str(data), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: committed_shards(cache) >= 1, lambda: process.poll() is None)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what was finished is kept" in stderr
    assert "Traceback" not in stderr
    kept = api.info(cache).streams[0]
    assert 0 < kept.rows < 1800
    assert kept.missing == 1800 - kept.rows
    assert verify_files(cache)[2] == []
    again = CliRunner().invoke(app, ["extract", str(data), *options, "--json"])
    assert again.exit_code == 0
    assert json.loads(again.stdout)["reused"] == kept.rows
    told = CliRunner().invoke(app, ["extract", str(data), *options])
    assert re.search(r"1,?800 reused|reused 1,?800", told.stdout), told.stdout
