"""The log is a convenience: torn or strange lines cost nothing but what they said."""

from __future__ import annotations

from pathlib import Path

import pytest

from featcache.store import journal


def test_the_newest_line_of_an_event_counts(tmp_path: Path) -> None:
    assert journal.last(tmp_path, "scan") is None
    journal.note(tmp_path, "scan", started_ns=1, index="a")
    journal.note(tmp_path, "scan", started_ns=2, index="b")
    journal.note(tmp_path, "extract", seconds=1.5)
    found = journal.last(tmp_path, "scan")
    assert found == {"event": "scan", "started_ns": 2, "index": "b"}
    assert journal.settled_before(tmp_path, "b") == 2
    assert journal.settled_before(tmp_path, "a") is None


@pytest.mark.parametrize(
    "line", ['{"event": "scan", "star', "[]", "null", "3", "", '"scan"', "\x00\xff"]
)
def test_strange_lines_are_passed_over(tmp_path: Path, line: str) -> None:
    journal.note(tmp_path, "scan", started_ns=1, index="a")
    with (tmp_path / "log.jsonl").open("a", encoding="latin-1") as file:
        file.write(line)
    assert journal.settled_before(tmp_path, "a") == 1


@pytest.mark.parametrize("started", [None, "1", 1.5])
def test_a_clock_that_is_no_number_vouches_for_nothing(tmp_path: Path, started: object) -> None:
    journal.note(tmp_path, "scan", started_ns=started, index="a")
    assert journal.settled_before(tmp_path, "a") is None


def test_a_folder_that_cannot_be_written_loses_the_line_only(tmp_path: Path) -> None:
    journal.note(tmp_path / "gone", "scan", index="a")
    assert not (tmp_path / "gone").exists()
