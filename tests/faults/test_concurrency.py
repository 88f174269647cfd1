"""Several processes at one cache: one writes at a time, whoever reads reads what is right."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import CacheBusyError, CacheMissingError
from featcache.extraction.running import run
from featcache.store import leases
from featcache.store.cache import Cache
from featcache.store.findings import read_findings, write_findings
from featcache.store.upkeep import prune_files, verify_files

from .conftest import CACHE, Deed, Laboratory, compared, ended, forked
from .injecting import Watched, killing
from .power import tree_of

fcntl = pytest.importorskip("fcntl")

pytestmark = pytest.mark.faults


def until_free(call: Callable[[], object]) -> None:
    """Do something again and again, as long as the cache is busy."""
    deadline = time.monotonic() + 60
    while (told := busy(call)) is not None:
        assert re.search(r"\(\d+ on .*\) is writing this cache", told)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def busy(call: Callable[[], object]) -> str | None:
    """Do something; what was said where the cache was busy."""
    try:
        call()
    except CacheBusyError as error:
        return str(error)
    return None


def rows_of(folder: Path) -> dict[bytes, bytes]:
    """Every committed row of every stream, by stream and content."""
    cache = Cache(folder)
    rows = {}
    for key in cache.manifest.streams:
        reader = cache.reader(key)
        features = reader.read(np.arange(len(reader)))
        for content, row in zip(reader.hashes, features, strict=True):
            rows[key.encode() + content.tobytes()] = row.tobytes()
    return rows


CUTS = ("layer2.0", "layer3.0", "layer4.0")


def test_extractions_side_by_side_lose_nothing(laboratory: Laboratory, tried) -> None:
    laboratory.pictures(0, 12)
    jobs = [laboratory.job(laboratory.disk, cuts=(cut,)) for cut in CUTS]
    children = [forked(lambda job=job: until_free(lambda: run(job))) for job in jobs]
    assert [ended(child) for child in children] == [0] * len(jobs)
    run(laboratory.job(laboratory.root, cuts=CUTS))
    assert rows_of(laboratory.disk / CACHE) == rows_of(laboratory.root / CACHE)
    assert verify_files(laboratory.disk / CACHE)[2] == []
    tried("extractions into one cache at once", len(jobs), sees="who holds it, and since when")


def test_what_is_read_while_others_write_and_prune_is_right(laboratory: Laboratory, tried) -> None:
    laboratory.pictures(0, 12)
    run(laboratory.job(laboratory.root, cuts=CUTS))
    right, folder = rows_of(laboratory.root / CACHE), laboratory.disk / CACHE

    def write() -> None:
        for cut in CUTS:
            run(laboratory.job(laboratory.disk, cuts=(cut,)))
            prune_files(folder)

    child, reads = forked(write), 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        try:
            assert rows_of(folder).items() <= right.items()
        except (CacheMissingError, CacheBusyError):
            continue
        reads += 1
    assert rows_of(folder) == right
    assert reads > 3
    tried("readers of a cache that is written", reads, sees="rows as they were when it was opened")


def test_a_result_is_read_whole_while_it_is_replaced(tmp_path: Path, tried) -> None:
    def write() -> None:
        for number in range(60):
            write_findings(tmp_path, "x", {"number": number}, {"row": np.full(4, number)})

    write_findings(tmp_path, "x", {"number": -1}, {"row": np.full(4, -1)})
    child, reads = forked(write), 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        record, rows = read_findings(tmp_path, "x")
        assert rows["row"].tolist() == [record["number"]] * 4
        reads += 1
    assert reads > 5
    tried("readers of a result that is replaced", reads, sees="the earlier result, or the later")


def test_a_network_without_locks_changes_no_byte(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch, tried
) -> None:
    deed = laboratory.extraction()

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(leases, "EXPIRES_SECONDS", 0.3)
    kills = range(2, len(deed.changes), 19)
    for at in kills:
        deed.lay({})
        with Watched(deed.disk) as watched:
            child = forked(lambda at=at: dying(deed, at))
            assert ended(child) == -signal.SIGKILL
            deed.act(deed.disk)
        assert watched.changes
        left = {k: v for k, v in compared(tree_of(deed.disk)).items() if ".lease-" not in k}
        assert left == deed.whole
    tried("kill -9 where there are no locks", len(kills), sees="a wait of 30 s, then nothing")


def dying(deed: Deed, at: int) -> None:
    with Watched(deed.disk, killing(at)):
        deed.act(deed.disk)
