"""Stopped anywhere, by a kill or a power cut: what is there is right, and the work is finished."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from functools import partial
from itertools import islice

import pytest

from .conftest import Deed, compared, ended, essence, forked
from .injecting import FOLDER, REMOVE, RENAME, Watched, killing
from .power import Disk, Tree, tree_of

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.name == "nt", reason="SIGKILL and fork, which stop a child, are POSIX's"),
]

QUICK = 3
EVERY = pytest.param(None, id="every", marks=pytest.mark.slow)
SOME = pytest.param(QUICK, id="some")

CUT_SEES = "the cache as it was after some commit; the same command finishes it, byte for byte"
KILL_SEES = "what was committed is kept; the same command finishes it, byte for byte"


def some(points: list, count: int | None) -> list:
    """All, or that many, the same ones every time."""
    return points if count is None else random.Random(0).sample(points, min(count, len(points)))


def disks(deed: Deed) -> Iterator[Disk]:
    """The disk before each change of a deed, and after the last."""
    disk = Disk(deed.before)
    for change in deed.changes:
        yield disk
        disk.apply(change)
    yield disk


def after_power_cuts(deed: Deed) -> list[Tree]:
    """What a power cut at any point may leave; each once."""
    trees = [tree for disk in disks(deed) for tree in disk.after_power_cuts()]
    return list({essence(tree, journals=True): tree for tree in trees}.values())


@pytest.mark.parametrize("count", [SOME, EVERY])
def test_a_power_cut_at_any_point(deed: Deed, count: int | None, tried) -> None:
    states = some(after_power_cuts(deed), count)
    for tree in states:
        deed.lay(tree)
        deed.finish()
    tried("power cut", len(states), sees=CUT_SEES)


@pytest.mark.parametrize("count", [SOME, EVERY])
def test_a_kill_at_any_point(deed: Deed, count: int | None, tried) -> None:
    expected = [essence(disk.now()) for disk in disks(deed)]
    numbers = some([*range(len(deed.changes))], count)
    for number in numbers:
        deed.lay()
        assert ended(forked(partial(dying, deed, number))) == -signal.SIGKILL
        assert essence(tree_of(deed.disk)) == expected[number]
        deed.finish_once()
    tried("kill -9", len(numbers), sees=KILL_SEES)


def dying(deed: Deed, number: int) -> None:
    """Do a deed until that change."""
    with Watched(deed.disk, killing(number)):
        deed.act(deed.disk)


@pytest.mark.parametrize(
    "walks", [pytest.param(1, id="few"), pytest.param(12, id="many", marks=pytest.mark.slow)]
)
def test_kills_and_power_cuts_one_after_another(deed: Deed, walks: int, tried) -> None:
    crashes = sum(walk(deed, random.Random(seed)) for seed in range(walks))
    tried("kills and power cuts in turn", crashes, sees=KILL_SEES)


def walk(deed: Deed, chance: random.Random, crashes: int = 5) -> int:
    """Crash again and again, each time at a point of what is left to do; then finish."""
    deed.lay()
    disk = Disk(deed.before)
    for _ in range(crashes):
        with Watched(deed.disk) as watched:
            deed.act(deed.disk)
        for change in watched.changes[: chance.randrange(len(watched.changes) + 1)]:
            disk.apply(change)
        if chance.random() < 0.5:
            disk = Disk(chance.choice([*disk.after_power_cuts()]))
        deed.lay(disk.now())
        deed.look(deed.disk)
    deed.finish()
    return crashes


def unsettled(deed: Deed) -> list[int]:
    """Points after which the names of things do not last yet."""
    kinds = (RENAME, FOLDER, REMOVE)
    return [at for at, change in enumerate(deed.changes, 1) if change.kind in kinds]


@pytest.mark.parametrize("count", [pytest.param(2, id="some"), EVERY])
def test_a_kill_then_another_run_then_a_power_cut(deed: Deed, count: int | None, tried) -> None:
    states = 0
    for at in some(unsettled(deed), count):
        disk = disk_at(deed, at)
        deed.lay(disk.now())
        with Watched(deed.disk) as watched:
            deed.act(deed.disk)
        trees = {}
        for change in watched.changes:
            disk.apply(change)
            trees |= {essence(tree): tree for tree in disk.after_power_cuts()}
        for tree in some([*trees.values()], count and 4 * count):
            deed.lay(tree)
            deed.finish_once()
            states += 1
        for tree in disk.after_power_cuts():  # what a command says it did, it did
            assert deed.whole.items() <= compared(tree).items()
    tried("power cut after a kill and another run", states, sees=CUT_SEES)


def disk_at(deed: Deed, number: int) -> Disk:
    """The disk after so many changes."""
    return next(islice(disks(deed), number, None))


def test_what_a_command_says_it_did_lasts(deed: Deed) -> None:
    for tree in disk_at(deed, len(deed.changes)).after_power_cuts():
        assert deed.whole.items() <= compared(tree).items()
