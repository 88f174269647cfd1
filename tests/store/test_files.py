"""A file is there whole or not at all, and a fault of the file system names it."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from featcache.errors import CacheDamagedError, DiskSpaceError, StoreError
from featcache.store import files
from featcache.store.files import make_folder, remove_leftovers, sha256_file, write_durably


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_hash_is_of_the_bytes_on_disk(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    sha256 = write_durably(tmp_path / "x", content)
    assert (tmp_path / "x").read_bytes() == content
    assert sha256 == sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()
    assert names(tmp_path) == ["x"]


def test_the_order_is_write_sync_rename_sync_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        steps.append(f"rename {self.name} {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_durably(tmp_path / "x", b"content")
    assert steps == ["sync .tmp-x", "rename .tmp-x x", f"sync {tmp_path.name}"]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_names_the_file_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_durably(tmp_path / "x", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskSpaceError, match=r"/x: the disk is full.*Free some space"):
        write_durably(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


def test_bytes_that_come_back_differently_are_never_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_durably(tmp_path / "x", b"old")
    monkeypatch.setattr(files, "sha256_file", lambda path: "0" * 64)
    with pytest.raises(CacheDamagedError, match="not those written; check the disk"):
        write_durably(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


def test_other_faults_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gone/x: No such file or directory"):
        write_durably(tmp_path / "gone" / "x", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"file: File exists"):
        make_folder(tmp_path / "file" / "below")


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_leftovers_go_and_nothing_else(tmp_path: Path) -> None:
    make_folder(tmp_path / "below")
    for path in ("x", ".tmp-x", ".tmp-y", "below/.tmp-z", "below/tmp-x"):
        (tmp_path / path).write_bytes(b"")
    assert remove_leftovers(tmp_path, tmp_path / "below") == 3
    assert names(tmp_path) == ["below", "x"]
    assert names(tmp_path / "below") == ["tmp-x"]
