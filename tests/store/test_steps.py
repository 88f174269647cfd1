"""What an interrupted sweep finished is read back whole, or is done again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from featcache.store.cache import Cache
from featcache.store.findings import list_findings
from featcache.store.steps import SWEEPS, Steps, remove_steps
from featcache.store.upkeep import prune_files, verify_files

RECORD = {"rate": 1e-3, "epochs": None, "diverged": False}
ROWS = {"coef": np.arange(6.0).reshape(2, 3), "tail.conv.weight": np.ones((2, 1, 3, 3), np.float32)}


@pytest.fixture
def steps(cache_folder: Path) -> Steps:
    """A sweep of which one step is finished."""
    steps = Steps(cache_folder, "abc")
    steps.write("0-1-7", RECORD, ROWS)
    return steps


def step_files(folder: Path, name: str = "0-1-7") -> list[Path]:
    return sorted((folder / SWEEPS / "abc").glob(f"**/{name}/*"))


def test_round_trip(steps: Steps, cache_folder: Path) -> None:
    for again in (steps, Steps(cache_folder, "abc")):
        record, rows = again.read("0-1-7")
        assert record == RECORD
        assert set(rows) == set(ROWS)
        for name, expected in ROWS.items():
            assert rows[name].dtype == expected.dtype
            assert np.array_equal(rows[name], expected)


def test_a_step_that_was_not_finished_or_is_another_sweeps_is_none(
    steps: Steps, cache_folder: Path
) -> None:
    assert steps.read("0-2-7") is None
    assert Steps(cache_folder, "abd").read("0-1-7") is None


def test_a_step_is_replaced_by_a_later_one(steps: Steps) -> None:
    steps.write("0-1-7", RECORD | {"epochs": 3}, {"coef": np.zeros(2)})
    record, rows = steps.read("0-1-7")
    assert record["epochs"] == 3
    assert rows["coef"].tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["changed", "cut short", "gone", "empty"])
@pytest.mark.parametrize("which", [0, 1], ids=["record", "rows"])
def test_a_damaged_step_reads_as_none_and_can_be_written_again(
    steps: Steps, cache_folder: Path, which: int, kind: str
) -> None:
    path = sorted(step_files(cache_folder), key=lambda p: p.suffix != ".json")[which]
    content = path.read_bytes()
    if kind == "gone":
        path.unlink()
    elif kind == "changed":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.write_bytes(content[: len(content) // 2 if kind == "cut short" else 0])
    assert steps.read("0-1-7") is None
    assert verify_files(cache_folder)[2] == [], "it is done again, and no part of the cache"
    steps.write("0-1-7", RECORD, ROWS)
    assert steps.read("0-1-7")[0] == RECORD


@pytest.mark.parametrize("fault", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_is_swept_all_the_same(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(fault, os.strerror(fault))

    steps = Steps(cache_folder, "abc")
    monkeypatch.setattr(Path, "mkdir", refuse)
    steps.write("0-1-7", RECORD, ROWS)
    assert steps.read("0-1-7") is None
    steps.remove()


def test_a_sweep_that_is_whole_is_forgotten_and_others_are_not(
    steps: Steps, cache_folder: Path
) -> None:
    other = Steps(cache_folder, "other")
    other.write("0-0", RECORD, ROWS)
    steps.remove()
    steps.remove()
    assert steps.read("0-1-7") is None
    assert other.read("0-0") is not None


def test_prune_forgets_interrupted_sweeps_and_counts_their_bytes(
    steps: Steps, cache_folder: Path
) -> None:
    Steps(cache_folder, "other").write("0-0", RECORD, ROWS)
    left = [p for p in (cache_folder / SWEEPS).rglob("*") if p.is_file()]
    size = sum(path.stat().st_size for path in left)
    pruned = prune_files(cache_folder)
    assert (pruned.sweeps, pruned.rows, pruned.files) == (2, 0, 0)
    assert pruned.bytes_freed == size > 0
    assert not (cache_folder / SWEEPS).exists()
    assert len(Cache(cache_folder).stream()) == 9
    assert remove_steps(cache_folder) == prune_files(cache_folder).sweeps == 0


def test_steps_are_no_results_and_no_part_of_what_is_verified(
    steps: Steps, cache_folder: Path
) -> None:
    files, size, damage = verify_files(cache_folder)
    assert (files, damage) == (4, [])  # an index, three shards
    committed = [*cache_folder.glob("index-*.h5"), *cache_folder.glob("shards/*/*.h5")]
    assert size == sum(path.stat().st_size for path in committed)
    assert list_findings(cache_folder) == []
