"""One writer, one commit point: whatever happens, what is in force is whole and right."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import CacheBusyError, CacheMismatchError, DiskSpaceError, StoreError
from featcache.recipe import Preprocessing
from featcache.store.cache import Cache
from featcache.store.locks import LOCK
from featcache.store.upkeep import prune_files, verify_files
from featcache.store.writing import check_space

HOLD = (
    "import sys, time; from pathlib import Path; from featcache.store.locks import locked\n"
    "with locked(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def assert_right(folder: Path, make, names) -> None:
    """Every row in force is the one its content decides, and all named ones are there."""
    reader = Cache(folder).stream()
    assert np.array_equal(reader.read(np.arange(len(reader))), make.rows(reader.hashes))
    assert (reader.positions(make.hashes(names)) >= 0).all()
    assert verify_files(folder)[2] == []


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(
    cache_folder: Path, hold
) -> None:
    command = [sys.executable, "-c", HOLD, str(cache_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for refused in (hold, lambda: prune_files(cache_folder)):
            with pytest.raises(CacheBusyError, match=f"{cache_folder}: another process"):
                refused().__enter__()
        Cache(cache_folder).stream()  # readers need no lock
        holder.send_signal(signal.SIGKILL)
    with hold() as writer:
        assert writer.manifest.index is not None


def test_the_lock_ends_with_the_block(hold) -> None:
    with hold(), pytest.raises(CacheBusyError), hold():
        pass
    with hold():
        pass


def files(folder: Path) -> list[Path]:
    """Its files, but for the lock, which says who held it."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]


def test_nothing_is_committed_where_nothing_changed(cache_folder: Path, make, hold) -> None:
    before = {p: p.stat().st_mtime_ns for p in files(cache_folder)}
    with hold() as writer:
        assert make.fill(writer, range(10)) == 0
    assert before == {p: p.stat().st_mtime_ns for p in files(cache_folder)}


def test_only_what_is_missing_is_pending(cache_folder: Path, make, hold) -> None:
    with hold() as writer:
        pending = writer.pending(make.index([12, 3, 0, 11, 11]), make.stream)
    assert [c.tobytes() for c in pending] == sorted(make.content(name) for name in (11, 12))


def test_source_and_backbone_are_named_as_they_are_reached_now(
    cache_folder: Path, make, hold
) -> None:
    moved = {"name": "net", "locator": {"kind": "file", "path": "/elsewhere"}}
    with hold() as writer:
        writer.commit(writer.with_index(make.index(range(10)), make.source, moved))
    assert Cache(cache_folder).manifest.backbone == moved


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_crash_at_any_sync_leaves_a_right_cache_that_can_go_on(
    tmp_path: Path, make, hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, left = os.fsync, 0

    def failing(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    crashes = 0
    for point in range(1, 100):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        left = point
        try:
            with hold() as writer:
                make.fill(writer, range(10))
        except Killed:
            crashes += 1
        else:
            break
        left = -1
        if (tmp_path / "cache" / "manifest.json").exists():
            assert_right(tmp_path / "cache", make, [])
        with hold() as writer:
            make.fill(writer, range(10))
        assert_right(tmp_path / "cache", make, range(10))
    assert crashes > 15


def test_a_full_disk_loses_nothing(
    cache_folder: Path, make, hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, hold() as writer:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskSpaceError, match=f"{cache_folder}.*the disk is full"):
            make.fill(writer, range(20))
    assert_right(cache_folder, make, [0, 1, 2, 4, 5, 6, 7, 8, 9])
    with hold() as writer:
        assert make.fill(writer, range(20)) == 10
    assert_right(cache_folder, make, range(10, 20))


def test_what_does_not_fit_is_refused_before_it_is_written(
    hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**12, 0, 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with hold() as writer:
        check_space(writer.folder, 100_000 * 8192)
        with pytest.raises(DiskSpaceError, match=r"1\.31 GB are needed, 1\.00 GB are free.*--out"):
            check_space(writer.folder, 152_000 * 8192)


def test_another_recipe_is_refused_and_the_fields_are_named(cache_folder: Path, make, hold) -> None:
    larger = Preprocessing((9, 9), (9,), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    other = replace(make.recipe, weights="b" * 64, preprocessing=larger)
    with pytest.raises(CacheMismatchError) as caught, hold(other):
        pass
    for part in ("preprocessing.size: [9, 9] here, [8, 8] there", "weights: ", "--out"):
        assert part in str(caught.value)
    assert "precision" not in str(caught.value)


def test_another_source_is_refused_until_it_is_to_be_replaced(
    cache_folder: Path, make, hold
) -> None:
    other = {"kind": "folder", "location": "/elsewhere"}
    with (
        pytest.raises(
            CacheMismatchError,
            match=r"holds another source \(location: /elsewhere here, /pictures there\)",
        ),
        hold(source=other),
    ):
        pass
    with hold(source=other, replace_source=True) as writer:
        writer.commit(writer.with_index(make.index(range(10)), other, make.backbone))
    assert Cache(cache_folder).manifest.source == other
    assert_right(cache_folder, make, [0, 9])


def test_a_folder_of_other_things_is_refused(tmp_path: Path, hold) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "holiday.jpg").write_bytes(b"")
    with pytest.raises(CacheMismatchError, match=r"holds 'holiday\.jpg'.*empty folder"), hold():
        pass
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["holiday.jpg"]


def test_a_file_is_no_place_for_a_cache(tmp_path: Path, hold) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(CacheMismatchError, match="is a file; give --out a folder"), hold():
        pass


def test_what_a_first_run_killed_early_left_is_no_foreign_thing(tmp_path: Path, make, hold) -> None:
    with hold() as writer:
        writer.with_index(make.index(range(3)), make.source, make.backbone)
    assert not (tmp_path / "cache" / "manifest.json").exists()
    (tmp_path / "cache" / ".tmp-manifest.json").write_bytes(b"torn")
    with hold() as writer:
        make.fill(writer, range(3))
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


def test_a_folder_that_cannot_be_locked_is_named(cache_folder: Path, hold) -> None:
    (cache_folder / ".lock").unlink()
    (cache_folder / ".lock").mkdir()
    with pytest.raises(StoreError, match=r"\.lock: "), hold():
        pass
