"""A fault of the disk or the system at any change: one line, what was finished kept, then whole."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from featcache.errors import DiskSpaceError, FeatcacheError, StoreError
from featcache.extraction.running import run
from featcache.store.cache import Cache
from featcache_cli.app import app

from .conftest import CACHE, DEEDS, Deed, Laboratory, compared, ended, forked
from .injecting import Before, Change, Watched, failing
from .power import tree_of

resource = pytest.importorskip("resource")

pytestmark = pytest.mark.faults

QUICK = 5
EVERY = pytest.param(None, id="every", marks=pytest.mark.slow)
SOME = pytest.param(QUICK, id="some")

FAULTS: dict[str, tuple[Callable[[int], Before], str]] = {
    "ENOSPC": (lambda at: failing(at, errno.ENOSPC, ever_after=True), "the disk is full"),
    "EDQUOT": (lambda at: failing(at, errno.EDQUOT, ever_after=True), "the disk is full"),
    "EIO": (lambda at: failing(at, errno.EIO), "Input/output error.*Check the disk"),
    "EMFILE": (lambda at: failing(at, errno.EMFILE), "Too many open files.*ulimit -n"),
    "EROFS": (lambda at: failing(at, errno.EROFS, ever_after=True), "Read-only file system"),
    "EACCES": (lambda at: failing(at, errno.EACCES), "Permission denied.*its permissions"),
}


GONE = r"moved, removed or replaced|No such file|is gone|no cache there"


def points(deed: Deed, count: int | None) -> list[tuple[str, int]]:
    """Every fault at every change, or some, the same ones every time."""
    every = [(name, at) for at in range(len(deed.changes)) for name in FAULTS]
    return every if count is None else random.Random(0).sample(every, count)


@pytest.mark.parametrize("count", [SOME, EVERY])
def test_a_fault_at_any_change(deed: Deed, count: int | None, tried) -> None:
    for name, at in points(deed, count):
        fault, says = FAULTS[name]
        deed.lay()
        assert_told(deed, fault(at), says)
        deed.finish_once()
        noted = {"kind": f"{name} at a write", "sees": "one line: the file, the fault, what to do"}
        tried(**noted, points=1)


def assert_told(deed: Deed, fault: Before, says: str) -> None:
    """A deed passes over a fault, or tells of it in one line that names a file."""
    told: StoreError | None = None
    try:
        with Watched(deed.disk, fault):
            deed.act(deed.disk)
    except StoreError as error:
        told = error
    if told is not None:
        assert re.search(f"{says}.*run again", str(told)), told
        assert str(deed.disk) in str(told)
        assert "\n" not in str(told)
        assert isinstance(told, DiskSpaceError) == ("disk is full" in says)


@pytest.mark.parametrize("name", ["extraction", "more pictures", "derivation", "prune"])
def test_a_folder_that_goes_at_any_change(laboratory: Laboratory, name: str, tried) -> None:
    deed = DEEDS[name](laboratory)
    numbers = random.Random(0).sample(range(3, last_commit(deed)), 6)
    for at in numbers:
        deed.lay()
        gone = laboratory.root / "gone"
        shutil.rmtree(gone, ignore_errors=True)
        with pytest.raises(StoreError) as caught, Watched(deed.disk, moving(at, deed.disk, gone)):
            deed.act(deed.disk)
        assert "\n" not in str(caught.value)
        assert re.search(GONE, str(caught.value))
        assert not (deed.disk / "cache" / "manifest.json").exists(), "no half of a cache is begun"
        shutil.rmtree(deed.disk / "cache", ignore_errors=True)
        gone.rename(deed.disk / "cache")
        deed.finish()  # what had been there is right, and goes on
    tried("the folder moved away while it is written", len(numbers), sees="one line that says so")


def last_commit(deed: Deed) -> int:
    """Its number among the changes of a deed."""
    return max(
        i for i, change in enumerate(deed.changes) if change.target.endswith("manifest.json")
    )


def moving(at: int, disk: Path, elsewhere: Path) -> Before:
    """Move a cache away before a change, as another program does."""

    def before(number: int, change: Change) -> None:
        if number == at:
            subprocess.run(["mv", disk / "cache", elsewhere], check=True)

    return before


def test_a_folder_that_is_removed_while_it_is_written(laboratory: Laboratory, tried) -> None:
    deed = laboratory.extraction()
    numbers = random.Random(0).sample(range(3, last_commit(deed)), 6)
    for at in numbers:
        deed.lay()
        with (
            pytest.raises(StoreError, match=GONE) as caught,
            Watched(deed.disk, removing(at, deed.disk / "cache")),
        ):
            deed.act(deed.disk)
        assert "\n" not in str(caught.value)
        deed.finish()  # what is left of it is no cache, and nothing to stumble over
    tried("the folder removed while it is written", len(numbers), sees="one line that says so")


def removing(at: int, folder: Path) -> Before:
    """Remove a cache before a change, as another program does."""

    def before(number: int, change: Change) -> None:
        if number == at:
            subprocess.run(["rm", "-rf", folder], check=True)

    return before


def test_a_folder_replaced_by_another_while_it_is_written_gets_nothing(
    laboratory: Laboratory,
) -> None:
    deed = laboratory.extraction()
    for at in range(3, last_commit(deed), 5):
        deed.lay()
        swapping = swapped(at, deed.disk / "cache", laboratory.root / f"gone-{at}")
        with pytest.raises(StoreError, match=GONE), Watched(deed.disk, swapping):
            deed.act(deed.disk)
        left = {path.name for path in (deed.disk / "cache").rglob("*")}
        assert left <= {"log.jsonl"}  # a line of which was asked for just before


def swapped(at: int, folder: Path, elsewhere: Path) -> Before:
    """Put an empty folder in the place of another before a change."""
    move = moving(at, folder.parent, elsewhere)

    def before(number: int, change: Change) -> None:
        move(number, change)
        if number == at:
            subprocess.run(["mkdir", folder], check=True)

    return before


@pytest.fixture
def command(laboratory: Laboratory, light: dict) -> list[str]:
    """`featcache extract` with a light network."""
    laboratory.pictures(0, 10)
    options = [("--backbone", light["backbone"]), ("--weights", light["weights"])]
    options += [("--image-size", str(light["image_size"])), ("--batch-size", "4")]
    plain = [part for option in options for part in option]
    return ["extract", str(laboratory.root / "pictures"), "--out", str(laboratory.disk), *plain]


def test_the_command_tells_in_a_line_and_exits_with_1(
    laboratory: Laboratory, command: list[str]
) -> None:
    with Watched(laboratory.disk) as watched:
        assert CliRunner().invoke(app, command).exit_code == 0
    whole = compared(tree_of(laboratory.disk))
    for at in range(0, len(watched.changes) - 8, 9):  # the last are the journal's
        fault, says = FAULTS[random.Random(at).choice([*FAULTS])]
        shutil.rmtree(laboratory.disk)
        laboratory.disk.mkdir()
        with Watched(laboratory.disk, fault(at)):
            done = CliRunner().invoke(app, command)
        if done.exit_code:
            assert done.exit_code == 1
            assert re.search(rf"error: .*{says}", " ".join(done.stderr.split()))
            assert "Traceback" not in done.stderr
        assert CliRunner().invoke(app, command).exit_code == 0
        assert compared(tree_of(laboratory.disk)) == whole


def told_in_child(call: Callable[[], object]) -> str:
    """What of featcache a call raised in a process of its own, or nothing."""
    reading, writing = os.pipe()

    def telling() -> None:
        try:
            call()
        except FeatcacheError as error:
            os.write(writing, str(error).encode())

    assert ended(forked(telling)) == 0
    os.close(writing)
    told = os.read(reading, 10_000).decode()
    os.close(reading)
    return told


def test_files_that_a_system_limits_in_size_are_a_fault_like_any_other(
    laboratory: Laboratory, tried
) -> None:
    deed = laboratory.extraction()
    largest = max(len(content) for content in deed.whole.values() if content)
    sizes = [largest * part // 10 for part in range(10)]

    def limited(size: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        deed.act(deed.disk)

    for size in sizes:
        deed.lay()
        told = told_in_child(lambda size=size: limited(size))
        assert re.search(r"File too large; what was finished is kept.*run again$", told), told
        deed.finish_once()
    tried("files limited in size", len(sizes), sees="one line: the file, the fault, what to do")


def test_with_any_number_of_files_that_may_be_open(laboratory: Laboratory, tried) -> None:
    deed, told = laboratory.extraction(), []

    def limited(free: int) -> None:
        leave_free(free)
        deed.act(deed.disk)

    for free in (0, 1, 2, 3, 5, 8, 20):
        deed.lay()
        outcome = told_in_child(lambda free=free: limited(free))
        told.append(outcome)
        assert re.search(r"^$|Too many open files.*ulimit -n.*run again$", outcome), outcome
        deed.look(deed.disk)
    assert told[0]
    assert not told[-1]
    tried("few files may be open", len(told), sees="one line: the file, the fault, what to do")


def test_a_cache_of_more_shards_than_files_may_be_open(laboratory: Laboratory) -> None:
    laboratory.pictures(0, 24)
    run(laboratory.job(laboratory.disk, batch_size=1, shard_rows=1))

    def read() -> None:
        leave_free(10)
        reader = Cache(laboratory.disk / CACHE).stream()
        assert np.isfinite(reader.read(np.arange(24))).all()

    assert told_in_child(read) == ""


def leave_free(count: int) -> None:
    """Open files until no more can be opened, but for so many."""
    most = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    opened = []
    with contextlib.suppress(OSError):
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    for descriptor in opened[len(opened) - count :]:
        os.close(descriptor)
