"""A process keeps no more shards open than it may open files, and reads them all the same."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.store import maps
from featcache.store.cache import Cache


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "most_maps", lambda: 2)


@pytest.fixture
def few_files() -> Iterator[int]:
    """A limit of open files that leaves a few more than there are."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(list(Path("/proc/self/fd").iterdir())) + 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
    yield few
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_rows_are_the_same_however_few_shards_are_kept(
    few: None, cache_folder: Path, make: Any
) -> None:
    readers = [Cache(cache_folder).stream() for _ in range(3)]
    wanted = make.hashes([7, 0, 9, 2, 0, 5, 8])
    for reader in (*readers, *readers[::-1]):
        assert np.array_equal(reader.read(reader.positions(wanted)), make.rows(wanted))
        assert len(maps._kept) <= 2


def test_a_reader_that_is_gone_keeps_nothing(cache_folder: Path) -> None:
    before = set(maps._kept)
    reader = Cache(cache_folder).stream()
    list(reader.shards())
    assert len(set(maps._kept) - before) == len(reader.entry.shards)
    del reader
    gc.collect()
    assert set(maps._kept) <= before


def test_many_shards_of_many_readers_stay_within_the_limit_of_open_files(
    cache_folder: Path, few_files: int
) -> None:
    readers = [Cache(cache_folder).stream() for _ in range(120)]
    for _ in range(2):
        for reader in readers:
            assert len(list(reader.shards())) > 1
    assert len(readers) * len(readers[0].entry.shards) > few_files


def test_the_limit_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(files: int) -> Callable[[int], tuple[int, int]]:
        return lambda _: (files, files)

    for files, most in ((1024, 512), (1, 1), (resource.RLIM_INFINITY, 4096)):
        monkeypatch.setattr(resource, "getrlimit", limit(files))
        assert maps.most_maps() == most
