"""One writer at a time: whoever is killed, whatever number a process has, with locks or without."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from featcache.errors import CacheBusyError, StoreError
from featcache.store import leases, locks
from featcache.store.locks import LOCK, locked

from .conftest import forked

fcntl = pytest.importorskip("fcntl")

pytestmark = pytest.mark.faults

UNSUPPORTED = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


def held_by_a_child(folder: Path) -> int:
    """A child process that holds a folder, until it is killed."""

    def hold() -> None:
        with locked(folder):
            (folder / "held").touch()
            time.sleep(60)

    child = forked(hold)
    wait_for(folder / "held")
    return child


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    path.unlink()


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.fixture
def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that run out while a test waits."""
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(leases, "EXPIRES_SECONDS", 0.7)


def no_locks(monkeypatch: pytest.MonkeyPatch, error: int = errno.ENOLCK) -> None:
    """A file system that has none."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_who_waits_is_told_who_holds_it(tmp_path: Path) -> None:
    child = held_by_a_child(tmp_path)
    told = rf"^{tmp_path}: another process \({child} on \S+, since .*\) is writing .*; wait for it"
    with pytest.raises(CacheBusyError, match=told), locked(tmp_path, wait=0.1):
        pass
    kill(child)


def test_after_a_kill_nothing_is_stale_and_no_process_number_matters(tmp_path: Path, tried) -> None:
    kill(held_by_a_child(tmp_path))
    left = (tmp_path / LOCK).read_text()
    (tmp_path / LOCK).write_text(re.sub(r"\d+ on", f"{os.getpid()} on", left))  # one that lives
    with locked(tmp_path):
        pass
    tried("a stale lock, its process number in use again", 1, sees="nothing: it is free")


def test_a_lock_ends_with_its_process_though_a_fork_of_it_lives(tmp_path: Path) -> None:
    def hold() -> None:
        with locked(tmp_path):
            (tmp_path / "fork").write_text(str(forked(lambda: time.sleep(60))))
            (tmp_path / "held").touch()
            time.sleep(60)

    child = forked(hold)
    wait_for(tmp_path / "held")
    kill(child)
    with locked(tmp_path):
        pass
    os.kill(int((tmp_path / "fork").read_text()), signal.SIGKILL)


def test_a_lock_whose_file_was_removed_holds_nothing(tmp_path: Path) -> None:
    with locked(tmp_path) as hold:
        hold.check()
        (tmp_path / LOCK).unlink()
        with locked(tmp_path), pytest.raises(StoreError, match="moved, removed or replaced"):
            hold.check()


@pytest.mark.parametrize("error", UNSUPPORTED)
def test_without_locks_a_lease_is_held(
    tmp_path: Path, monkeypatch, quick_leases, error: int, tried
) -> None:
    no_locks(monkeypatch, error)
    child = held_by_a_child(tmp_path)
    for _ in range(2):  # as long as it lives, however long that is
        time.sleep(leases.EXPIRES_SECONDS)
        told = rf"another process \({child} on .*\) is writing this cache; wait for it"
        with pytest.raises(CacheBusyError, match=told), locked(tmp_path):
            pass
    kill(child)
    began = time.monotonic()
    with locked(tmp_path) as hold:
        assert time.monotonic() - began >= leases.EXPIRES_SECONDS
        hold.check()
    began = time.monotonic()
    with locked(tmp_path):  # what was released is free at once
        assert time.monotonic() - began < leases.EXPIRES_SECONDS
    tried("no locks", 1, sees="nothing, but 30 s to wait after a kill")


def test_of_many_that_want_a_lease_one_has_it_at_a_time(
    tmp_path: Path, monkeypatch, quick_leases, tried
) -> None:
    no_locks(monkeypatch)
    (tmp_path / "count").write_text("0")
    children = [forked(lambda seed=seed: count_up(tmp_path, seed)) for seed in range(5)]
    for child in children:
        os.waitpid(child, 0)
    done = sum(len(path.read_text()) for path in tmp_path.glob("done-*"))
    killed = sum(1 for _ in tmp_path.glob("last-*"))
    assert done == int((tmp_path / "count").read_text()) > 30
    assert killed == 2
    assert len([*tmp_path.glob(".lease-*")]) == 1
    tried("processes at one lease, some killed", done, sees="nothing: one at a time has it")


def count_up(folder: Path, seed: int) -> None:
    """Add one to a number as often as a lease is had; two processes are killed as they hold it."""
    chance = random.Random(seed)
    for turn in range(10):
        with locked(folder, wait=30) as hold:
            number = int((folder / "count").read_text())
            time.sleep(chance.uniform(0, 0.02))
            hold.check()
            (folder / "count").write_text(str(number + 1))
            with (folder / f"done-{seed}").open("a") as file:
                file.write(".")
            if seed < 2 and turn == 5:
                (folder / f"last-{seed}").touch()
                os.kill(os.getpid(), signal.SIGKILL)


def test_who_was_stopped_too_long_has_lost_its_lease_and_finds_so(
    tmp_path: Path, monkeypatch, quick_leases
) -> None:
    no_locks(monkeypatch)

    def hold_and_look() -> None:
        with locked(tmp_path) as hold:
            (tmp_path / "held").touch()
            wait_for(tmp_path / "look")
            try:
                hold.check()
            except StoreError as error:
                (tmp_path / "told").write_text(str(error))

    child = forked(hold_and_look)
    wait_for(tmp_path / "held")
    os.kill(child, signal.SIGSTOP)
    with locked(tmp_path) as hold:
        os.kill(child, signal.SIGCONT)
        (tmp_path / "look").touch()
        os.waitpid(child, 0)
        told = (tmp_path / "told").read_text()
        assert "gave no sign of life" in told
        assert told.endswith("Run again")
        hold.check()  # and its release took nothing from who has it now
    assert [path.name for path in tmp_path.glob(".lease-*")] == [".lease-000002"]


def test_a_lease_counts_where_locks_came_back(tmp_path: Path, monkeypatch, quick_leases) -> None:
    with monkeypatch.context() as patched:
        no_locks(patched)
        child = held_by_a_child(tmp_path)
    with pytest.raises(CacheBusyError, match=str(child)), locked(tmp_path):
        pass
    kill(child)
    with locked(tmp_path) as hold:
        hold.check()


def test_a_lock_counts_where_locks_went(tmp_path: Path, monkeypatch, quick_leases) -> None:
    child = held_by_a_child(tmp_path)
    no_locks(monkeypatch)
    told = rf"another process \({child} on .*\) seems to write .* remove {tmp_path / LOCK}"
    with pytest.raises(CacheBusyError, match=told), locked(tmp_path):
        pass
    kill(child)
    (tmp_path / LOCK).unlink()
    with locked(tmp_path):
        pass


def test_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    number = 0

    def count() -> None:
        nonlocal number
        for _ in range(20):
            with locked(tmp_path, wait=30):
                seen = number
                time.sleep(0.0005)
                number = seen + 1

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number == 60


def test_what_is_no_lack_of_locks_is_told(tmp_path: Path, monkeypatch) -> None:
    no_locks(monkeypatch, errno.EIO)
    with pytest.raises(StoreError, match=r"\.lock: Input/output error"), locked(tmp_path):
        pass
    assert not locks._held
