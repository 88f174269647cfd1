"""verify finds every changed byte; prune removes what is dead and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import CacheDamagedError, CacheMissingError
from featcache.store.cache import Cache
from featcache.store.findings import read_findings, write_findings
from featcache.store.upkeep import prune_files, verify_files


def files_of(folder: Path) -> set[str]:
    named = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return named - {".lock", "log.jsonl", "results/.lock"}


def shrink(cache_folder: Path, make, hold, names) -> None:
    """Let the index name fewer samples."""
    with hold() as writer:
        assert make.fill(writer, names) == 0


def test_a_whole_cache_has_no_damage(cache_folder: Path) -> None:
    write_findings(cache_folder, "abc", {}, {"row": np.arange(3)})
    files, size, damage = verify_files(cache_folder)
    assert (files, damage) == (5, [])  # an index, three shards, a result
    assert size == sum(p.stat().st_size for p in cache_folder.rglob("*.h5")) - (
        next(cache_folder.glob("results/abc/rows-*.h5")).stat().st_size
    )


def test_each_kind_of_damage_is_found(cache_folder: Path) -> None:
    shards = sorted(cache_folder.glob("shards/*/*.h5"))
    index = next(cache_folder.glob("index-*.h5"))
    place = write_findings(cache_folder, "abc", {}, {"row": np.arange(3)})
    for path in (shards[0], index, place / "result.json"):
        content = path.read_bytes()
        path.write_bytes(
            content[:100] + bytes([content[100] ^ 1]) + content[101:]
            if len(content) > 100
            else content[:-3]
        )
    shards[1].unlink()
    shards[2].unlink()
    shards[2].mkdir()
    problems = {damage.path: damage.problem for damage in verify_files(cache_folder)[2]}
    assert problems[str(shards[0])] == problems[str(index)]
    assert "not those that were committed" in problems[str(index)]
    assert problems[str(shards[1])] == "is gone"
    assert "cannot be read: Is a directory" in problems[str(shards[2])]
    assert "changed after it was written" in problems[str(place)]
    assert len(problems) == 5


def test_pruning_drops_dead_rows_and_keeps_the_others(cache_folder: Path, make, hold) -> None:
    live = [0, 1, 2, 3, 4]
    shrink(cache_folder, make, hold, live)
    dead_files = files_of(cache_folder)
    pruned = prune_files(cache_folder)
    assert pruned.rows == 5
    assert pruned.files >= 2  # the earlier index, and at least one shard
    assert pruned.bytes_freed > 0
    reader = Cache(cache_folder).stream()
    assert len(reader) == 4
    assert reader.skips == {make.content(3): "unreadable"}
    hashes = make.hashes([4, 0, 2, 1])
    assert np.array_equal(reader.read(reader.positions(hashes)), make.rows(hashes))
    assert verify_files(cache_folder)[2] == []
    assert files_of(cache_folder) != dead_files
    with hold() as writer:  # and what comes back is missing, no more and no less
        assert make.fill(writer, range(10)) == 5
    assert len(Cache(cache_folder).stream()) == 9


def test_skips_of_pictures_that_are_gone_go_too(cache_folder: Path, make, hold) -> None:
    shrink(cache_folder, make, hold, [0, 1])
    prune_files(cache_folder)
    assert Cache(cache_folder).stream().skips == {}


def test_pruning_what_is_all_alive_changes_nothing(cache_folder: Path) -> None:
    before = {p: p.read_bytes() for p in cache_folder.rglob("*") if p.is_file()}
    pruned = prune_files(cache_folder)
    assert (pruned.files, pruned.rows, pruned.bytes_freed) == (0, 0, 0)
    assert before == {p: p.read_bytes() for p in cache_folder.rglob("*") if p.is_file()}


def test_files_that_nothing_names_go_and_results_stay(cache_folder: Path) -> None:
    write_findings(cache_folder, "abc", {"x": 1}, {"row": np.arange(3)})
    stream = next((cache_folder / "shards").iterdir())
    named = files_of(cache_folder)
    for path in (
        stream / "000099.h5",
        stream / ".tmp-000003.h5",
        cache_folder / "index-00.h5",
        cache_folder / "results/abc/.tmp-result.json",
    ):
        path.write_bytes(b"of a killed writer")
    assert prune_files(cache_folder).files == 4
    assert files_of(cache_folder) == named
    assert read_findings(cache_folder, "abc")[0] == {"x": 1}


def test_a_crash_at_any_sync_of_a_prune_loses_no_live_row(
    cache_folder: Path, make, hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(cache_folder, make, hold, [0, 4, 9])
    hashes = make.hashes([9, 0, 4])
    fsync, left = os.fsync, 0

    def failing(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    crashes = 0
    for point in range(1, 50):
        left = point
        try:
            prune_files(cache_folder)
        except KeyboardInterrupt:
            crashes += 1
        else:
            break
        reader = Cache(cache_folder).stream()
        assert np.array_equal(reader.read(reader.positions(hashes)), make.rows(hashes))
    assert crashes >= 3
    left = -1
    prune_files(cache_folder)
    assert len(Cache(cache_folder).stream()) == 3


def test_no_cache_is_no_reason_to_make_a_folder(tmp_path: Path) -> None:
    for command in (prune_files, verify_files):
        with pytest.raises(CacheMissingError):
            command(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_shard_is_not_pruned_into_a_new_one(cache_folder: Path, make, hold) -> None:
    shrink(cache_folder, make, hold, [0, 4, 9])
    shard = sorted(cache_folder.glob("shards/*/*.h5"))[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CacheDamagedError):
        prune_files(cache_folder)
