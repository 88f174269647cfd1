"""A file is there whole or not at all, and a fault of the file system names it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from pathlib import Path

import pytest

from featcache.errors import CacheDamagedError, DiskSpaceError, SourceMissingError, StoreError
from featcache.store import files
from featcache.store.files import (
    fill_durably,
    make_folder,
    remove_abandoned,
    remove_leftovers,
    sha256_file,
    write_durably,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_hash_is_of_the_bytes_on_disk(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    sha256 = write_durably(tmp_path / "x", content)
    assert (tmp_path / "x").read_bytes() == content
    assert sha256 == sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()
    assert names(tmp_path) == ["x"]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed, as it happens; without what chance makes of names."""
    seen: list[str] = []
    fsync, replace = os.fsync, Path.replace
    chosen = re.compile(r"\.tmp-[0-9a-f]{8}-x")

    def synced(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        seen.append(chosen.sub(".tmp-x", f"sync {name}"))
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        seen.append(chosen.sub(".tmp-x", f"rename {self.name} {target.name}"))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    return seen


def test_the_order_is_write_sync_rename_sync_folder(tmp_path: Path, steps: list[str]) -> None:
    write_durably(tmp_path / "x", b"content")
    assert steps == ["sync .tmp-x", "rename .tmp-x x", f"sync {tmp_path.name}"]


def test_what_is_filled_is_durable_in_the_same_order(tmp_path: Path, steps: list[str]) -> None:
    def fill(draft: Path) -> None:
        draft.write_bytes(b"con")
        with draft.open("ab") as file:
            file.write(b"tent")

    fill_durably(tmp_path / "x", fill)
    assert steps == ["sync .tmp-x", "rename .tmp-x x", f"sync {tmp_path.name}"]
    assert (tmp_path / "x").read_bytes() == b"content"


def test_what_fails_while_it_is_filled_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"before")
    full = OSError(errno.ENOSPC, "No space left on device")
    gone = SourceMissingError("x: the pictures are gone")
    for seen, fault in ((DiskSpaceError, full), (SourceMissingError, gone)):

        def fill(draft: Path, fault: OSError = fault) -> None:
            draft.write_bytes(b"half")
            raise fault

        with pytest.raises(seen, match="x: "):
            fill_durably(tmp_path / "x", fill)
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"before"


def test_two_that_write_one_file_do_not_write_into_each_other(tmp_path: Path) -> None:
    def other(draft: Path) -> None:
        assert draft.read_bytes() == b"one"
        write_durably(tmp_path / "x", b"the other")
        assert draft.read_bytes() == b"one"

    write_durably(tmp_path / "x", b"one", other)
    assert (tmp_path / "x").read_bytes() == b"one"
    assert names(tmp_path) == ["x"]


def test_what_a_check_refuses_is_not_put_in_place(tmp_path: Path) -> None:
    write_durably(tmp_path / "x", b"old")
    with pytest.raises(ZeroDivisionError):
        write_durably(tmp_path / "x", b"new", lambda draft: 1 // 0)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("\N{SNOWMAN}" * 85)
    write_durably(path, b"content")
    assert path.read_bytes() == b"content"


def test_what_was_abandoned_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    old, new, other = (tmp_path / f".tmp-{n:08x}-{name}" for n, name in enumerate(["x", "x", "y"]))
    for path in (old, new, other):
        path.write_bytes(b"")
    for path in (old, other):
        os.utime(path, (time.time() - 90_000,) * 2)
    remove_abandoned(tmp_path / "x")
    assert names(tmp_path) == sorted([new.name, other.name])


def test_folders_that_cannot_be_synced_are_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def unable(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", unable)
    make_folder(tmp_path / "below")
    write_durably(tmp_path / "below" / "x", b"content")
    assert (tmp_path / "below" / "x").read_bytes() == b"content"


def test_a_folder_that_a_killed_process_made_is_synced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()  # and killed, before the folder it lies in was synced
    synced: list[str] = []
    monkeypatch.setattr(files, "sync_folder", lambda folder: synced.append(folder.name))
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path.name, "a"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EIO, "Check the disk, then run again"),
        (errno.EMFILE, r"Raise the limit of open files \(`ulimit -n`\), then run again"),
        (errno.EACCES, "Check the folder and its permissions, then run again"),
    ],
)
def test_what_to_do_depends_on_the_fault(tmp_path: Path, number: int, advice: str) -> None:
    with pytest.raises(StoreError, match=advice), files.naming(tmp_path):
        raise OSError(number, os.strerror(number))


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
