"""A cache of unknown origin is refused by a typed error that names the file, or is read rightly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import CacheDamagedError, FeatcacheError
from featcache.store import documents, journal
from featcache.store import manifest as manifests
from featcache.store.cache import Cache
from featcache.store.calibration import write_calibration
from featcache.store.findings import read_findings, write_findings
from featcache.store.upkeep import prune_files, verify_files

pytestmark = pytest.mark.faults

FUZZ = Path(__file__).parents[1] / "fuzz.py"
KINDS = ("shard", "index", "manifest", "calibration", "record", "rows")
SEES = "<file>: what is wrong with it, and what to do; exit 1"


@pytest.fixture
def found(cache_folder: Path) -> Path:
    """A cache with a result, and with pixels as an int8 network is calibrated on."""
    write_calibration(cache_folder, np.zeros((3, 8, 8, 3), np.uint8))
    rows = {"row": np.arange(4), "ok": np.array([True, False]), "p": np.zeros((4, 2), "f4")}
    write_findings(cache_folder, "found", {"head": "softmax", "estimate": {"a": [1, 2.5]}}, rows)
    return cache_folder


def fuzz(kind: str, folder: Path, seed: int, count: int) -> dict[str, Any]:
    """What became of so many mutated files, in a process with limited memory."""
    command = [sys.executable, FUZZ, kind, folder, str(seed), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"died of {done.returncode}: {done.stderr[-3000:]}"
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_refused_or_read(found: Path, kind: str, tried) -> None:
    told = fuzz(kind, found, 0, 180)
    tried(f"a mutated file, {kind}", 180, failures=len(told["wrong"]), sees=SEES)
    assert told["wrong"] == []
    assert told["refused"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_very_many_mutated_files_are_refused_or_read(found: Path, kind: str, tried) -> None:
    told = fuzz(kind, found, 10_000, 3600)
    tried(f"a mutated file, {kind}", 3600, failures=len(told["wrong"]), sees=SEES)
    assert told["wrong"] == []


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest, and put its digest right."""
    body, _ = documents.decode((folder / "manifest.json").read_bytes())
    change(body)
    (folder / "manifest.json").write_bytes(documents.encode(body))


def entry(body: dict[str, Any]) -> dict[str, Any]:
    return next(iter(body["streams"].values()))


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "an index elsewhere": lambda b: b["index"].update(file="../../../etc/passwd"),
    "an absolute index": lambda b: b["index"].update(file="/etc/passwd"),
    "an index with a NUL": lambda b: b["index"].update(file="index-\0.h5"),
    "a shard's number": lambda b: entry(b)["shards"][0].update(number="../../../etc/passwd"),
    "a huge number": lambda b: entry(b)["shards"][0].update(number=10**4000),
    "a number below zero": lambda b: entry(b)["shards"][0].update(number=-1),
    "a truth value": lambda b: entry(b)["shards"][0].update(number=True),
    "a shard twice": lambda b: entry(b)["shards"].append(entry(b)["shards"][0]),
    "a huge row": lambda b: entry(b).update(shape=[1 << 40, 1 << 40]),
    "no row": lambda b: entry(b).update(shape=[0]),
    "a stream of another key": lambda b: entry(b)["stream"].update(cut="../.."),
    "a plan without rows": lambda b: entry(b)["plans"][0].update(shard_rows=0),
    "an endless plan": lambda b: entry(b)["plans"][0].update(pending=1 << 61, shard_rows=1),
    "another hash": lambda b: entry(b)["shards"][0].update(sha256="../x"),
    "a huge picture": lambda b: b["recipe"]["preprocessing"].update(size=[1 << 20, 1 << 20]),
    "no backbone": lambda b: b.update(backbone={"name": 3, "locator": "x"}),
    "a source that is no text": lambda b: b.update(source={"kind": "folder", "location": 3}),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_manifests_are_refused_by_name(cache_folder: Path, forgery: str, tried) -> None:
    forge(cache_folder, FORGERIES[forgery])
    with pytest.raises(CacheDamagedError, match=r"manifest\.json: not a manifest \("):
        manifests.load(cache_folder)
    tried("a forged manifest", 1, sees=SEES)


@pytest.mark.parametrize("levels", [100, 900, 100_000])
def test_deep_documents_are_refused(cache_folder: Path, levels: int, tried) -> None:
    (cache_folder / "manifest.json").write_bytes(b'{"a":' + b"[" * levels + b"]" * levels + b"}")
    with pytest.raises(CacheDamagedError, match=r"manifest\.json"):
        manifests.load(cache_folder)
    tried("a forged manifest", 1, sees=SEES)


def test_large_documents_are_refused_before_they_are_read(cache_folder: Path, tried) -> None:
    with (cache_folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)  # takes no place on the disk
    with pytest.raises(CacheDamagedError, match=r"manifest\.json: 1099512 MB"):
        manifests.load(cache_folder)
    tried("a forged manifest", 1, sees=SEES)


def test_a_long_journal_is_read_from_its_end(cache_folder: Path) -> None:
    with (cache_folder / "log.jsonl").open("ab") as file:
        file.truncate(1 << 40)
        file.write(b"\n")
    journal.note(cache_folder, "scan", started_ns=5)
    assert journal.last(cache_folder, "scan") == {"event": "scan", "started_ns": 5}
    (cache_folder / "log.jsonl").write_text("[" * 100_000)
    assert journal.last(cache_folder, "scan") is None


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    """What is not the cache's: an HDF5 file and a leftover that pruning would remove."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    for name in ("mine.h5", ".tmp-mine", "manifest.json", "log.jsonl"):
        (place / name).write_bytes(b"mine")
    return place


LINKS = {
    "of folders": lambda folder, to: [(folder / "shards" / "other").symlink_to(to)],
    "of the shards": lambda folder, to: [
        (folder / "shards").rename(folder.with_name("moved")),
        (folder / "shards").symlink_to(folder.with_name("moved")),
    ],
    "of a shard": lambda folder, to: replace(
        next(folder.glob("shards/*/*.h5")), lambda path: path.symlink_to(to / "mine.h5")
    ),
    "of the index": lambda folder, to: replace(
        next(folder.glob("index-*.h5")), lambda path: path.symlink_to(to / "mine.h5")
    ),
    "of the manifest": lambda folder, to: replace(
        folder / "manifest.json", lambda path: path.symlink_to(to / "manifest.json")
    ),
    "of the journal": lambda folder, to: (folder / "log.jsonl").symlink_to(to / "log.jsonl"),
    "of the lock": lambda folder, to: replace(
        folder / ".lock", lambda path: path.symlink_to(to / "mine.h5")
    ),
    "of a temporary file": lambda folder, to: (folder / ".tmp-manifest.json").symlink_to(
        to / "mine.h5"
    ),
    "of a result": lambda folder, to: (folder / "results").symlink_to(to),
    "a pipe for a shard": lambda folder, to: replace(next(folder.glob("shards/*/*.h5")), os.mkfifo),
    "a pipe for the manifest": lambda folder, to: replace(folder / "manifest.json", os.mkfifo),
    "a pipe for the journal": lambda folder, to: os.mkfifo(folder / "log.jsonl"),
}


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink(missing_ok=True)
    make(path)


@pytest.mark.parametrize("kind", LINKS)
def test_links_and_pipes_lead_nowhere(
    cache_folder: Path, treasure: Path, kind: str, make, hold, tried
) -> None:
    """Neither reading, nor verifying, nor pruning, nor writing follows one or waits for it."""
    before = {path: path.read_bytes() for path in treasure.iterdir()}
    LINKS[kind](cache_folder, treasure)

    def write() -> None:
        with hold() as writer:
            make.fill(writer, range(20))

    for use in (lambda: Cache(cache_folder), prune_files, verify_files, write):
        with pytest.raises(CacheDamagedError, match="a link, a pipe or a device"):
            use(cache_folder) if use in (prune_files, verify_files) else use()
    assert {path: path.read_bytes() for path in treasure.iterdir()} == before
    tried("a link or a pipe in a cache", 4, sees="<file>: a link, a pipe or a device ...")


def test_a_folder_that_is_to_become_a_cache_holds_no_link_either(
    tmp_path: Path, treasure: Path, make, hold
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "shards").symlink_to(treasure)
    with pytest.raises(CacheDamagedError, match="a link, a pipe or a device"), hold() as writer:
        make.fill(writer, range(3))
    assert (treasure / ".tmp-mine").exists()


def test_the_folder_itself_may_be_reached_by_a_link(cache_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(cache_folder)
    assert len(Cache(tmp_path / "link").stream()) == 9


def test_a_result_that_names_rows_elsewhere_is_refused(found: Path, tried) -> None:
    place = found / "results" / "found" / "result.json"
    body, _ = documents.decode(place.read_bytes())
    for wrong in ("../../../../../x", "f" * 63, 3, None):
        place.write_bytes(documents.encode({**body, "rows_sha256": wrong}))
        with pytest.raises(CacheDamagedError, match=r"result\.json: it has no record"):
            read_findings(found, "found")
    tried("a forged result", 4, sees=SEES)


def test_rows_of_another_shape_are_not_served(cache_folder: Path, make, hold) -> None:
    """A row of one number would be broadcast to five."""
    forge(cache_folder, lambda body: entry(body).update(shape=[1]))
    reader = Cache(cache_folder).stream()
    with pytest.raises(FeatcacheError, match=r"not the \d+ rows and \d+ skips of stream"):
        reader.read(np.arange(2))
