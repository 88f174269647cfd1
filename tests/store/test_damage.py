"""Any flipped bit of any file is found: by verify, and before a value of it is served."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import CacheDamagedError
from featcache.store import cache as caches
from featcache.store.cache import Cache
from featcache.store.findings import read_findings, write_findings
from featcache.store.upkeep import verify_files

pytestmark = pytest.mark.faults

SEES = "<file>: its bytes are not those that were committed; featcache repair ..."


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the next read the first one of a process."""

    def clear() -> None:
        monkeypatch.setattr(caches, "_checked", set())

    return clear


def read_everything(folder: Path) -> None:
    """Serve every value of a cache."""
    opened = Cache(folder)
    list(opened.index.paths)
    reader = opened.stream()
    reader.read(np.arange(len(reader)))
    read_findings(folder, "found")


def flips(content: bytes, number: int | None, seed: int) -> Iterator[tuple[int, bytes]]:
    """Places (all for None), and what a file would be with one bit there changed."""
    rng = random.Random(seed)
    places = range(len(content)) if number is None else rng.sample(range(len(content)), number)
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        yield place, bytes(changed)


def find_flips(folder: Path, number: int, forget: Callable[[], None], tried) -> None:
    write_findings(folder, "found", {"a": [1, 2]}, {"row": np.arange(3)})
    for seed, path in enumerate(sorted(folder.rglob("*"))):
        if not path.is_file() or path.name in (".lock", "log.jsonl"):
            continue
        whole = path.read_bytes()
        some = number if number < len(whole) else None
        tried_here = 0
        for place, changed in flips(whole, some, seed):
            path.write_bytes(changed)
            forget()
            with pytest.raises(CacheDamagedError):
                read_everything(folder)
            assert is_found(folder, path), f"bit of byte {place} of {path}"
            tried_here += 1
        path.write_bytes(whole)
        tried(f"a flipped bit, {kind_of(path)}", tried_here, sees=SEES)
    forget()
    read_everything(folder)
    assert verify_files(folder)[2] == []


def is_found(folder: Path, path: Path) -> bool:
    """Whether verify names a file, or the result it belongs to, or refuses the manifest."""
    try:
        named = [damage.path for damage in verify_files(folder)[2]]
    except CacheDamagedError as error:
        return path.name == "manifest.json" and str(path) in str(error)
    return named in ([str(path)], [str(path.parent)])


def kind_of(path: Path) -> str:
    if path.parent.parent.name in ("shards", "results"):
        return path.parent.parent.name[:-1]
    return path.name.split("-")[0].removesuffix(".json")


def test_a_bit_anywhere_is_found(cache_folder: Path, forget, tried) -> None:
    find_flips(cache_folder, 40, forget, tried)


@pytest.mark.slow
def test_a_bit_at_very_many_places_is_found(cache_folder: Path, forget, tried) -> None:
    find_flips(cache_folder, 1000, forget, tried)


def test_what_was_read_once_is_not_hashed_again(cache_folder: Path, forget, monkeypatch) -> None:
    """The check costs one reading a process; it is made again when a file is another one."""
    forget()
    hashed: list[Path] = []
    sha256_file = caches.sha256_file
    monkeypatch.setattr(
        caches, "sha256_file", lambda path: hashed.append(path) or sha256_file(path)
    )
    for _ in range(2):
        opened = Cache(cache_folder)
        list(opened.index.paths)
        opened.stream().read(np.arange(9))
    assert len(hashed) == len(set(hashed)) == 4  # an index, three shards
    Cache(cache_folder, trust=True).stream().read(np.arange(3))
    shard = hashed[-1]
    shard.write_bytes(bytes(reversed(shard.read_bytes())))
    with pytest.raises(CacheDamagedError):
        Cache(cache_folder).stream().read(np.arange(9))
