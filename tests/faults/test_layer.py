"""The layer that injects faults sees all that is done, and its model of a disk is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from .injecting import CREATE, FOLDER, RENAME, SYNC, WRITE, Change, Watched
from .power import Disk, tree_of

pytestmark = pytest.mark.faults


def test_what_was_seen_done_again_gives_what_is_there(deed) -> None:
    disk = Disk(deed.before)
    for change in deed.changes:
        disk.apply(change)
    assert disk.now() == tree_of(deed.disk)


def test_every_way_of_writing_is_seen(tmp_path: Path) -> None:
    with Watched(tmp_path) as watched:
        (tmp_path / "a").write_text("long enough to be written in several parts")
        with (tmp_path / "a").open("a", encoding="ascii") as file:
            file.write("and more")
        with (tmp_path / "b").open("xb", buffering=0) as file:
            assert file.write(b"1234") == 2
        with (tmp_path / "a").open("r+b") as file:
            file.seek(3)
            file.write(b"!")
            file.truncate(10)
    disk = Disk()
    for change in watched.changes:
        disk.apply(change)
    assert disk.now() == tree_of(tmp_path)


def states(*changes: Change) -> list[dict]:
    disk = Disk({"old": b"old"})
    for change in changes:
        disk.apply(change)
    return list(disk.after_power_cuts())


def test_what_was_not_synced_may_be_there_in_any_part() -> None:
    written = (Change(CREATE, "x"), Change(WRITE, "x", data=b"1234"))
    unsynced = states(*written)
    old = {"old": b"old"}
    contents = [{"x": content} | old for content in (b"", b"\0\0\0\0", b"12", b"1234")]
    assert all(state in unsynced for state in [old, *contents])
    assert len(unsynced) == 5
    only_the_file = states(*written, Change(SYNC, "x"))
    assert only_the_file in ([old, {"x": b"1234"} | old], [{"x": b"1234"} | old, old])
    only_the_name = states(*written, Change(SYNC, "."))
    assert sorted(state["x"] for state in only_the_name) == sorted(s["x"] for s in contents)


def test_a_rename_is_undone_or_done_until_its_folder_is_synced() -> None:
    new = (Change(CREATE, "x"), Change(WRITE, "x", data=b"new"), Change(SYNC, "x"))
    renamed = (*new, Change(SYNC, "."), Change(RENAME, "x", "old"))
    assert sorted(map(str, states(*renamed))) == sorted(
        map(str, [{"old": b"old", "x": b"new"}, {"old": b"new"}])
    )
    assert states(*renamed, Change(SYNC, ".")) == [{"old": b"new"}]


def test_what_a_folder_holds_is_lost_with_its_name() -> None:
    synced = (Change(FOLDER, "f"), Change(CREATE, "f/x"), Change(SYNC, "f/x"), Change(SYNC, "f"))
    assert {"old": b"old"} in states(*synced)
    assert states(*synced, Change(SYNC, ".")) == [{"old": b"old", "f": None, "f/x": b""}]
