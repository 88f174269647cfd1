"""What a probe found is kept whole, or is known to be damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featcache.errors import CacheDamagedError, CacheMissingError
from featcache.store import documents, findings
from featcache.store.files import write_durably
from featcache.store.findings import list_findings, read_findings, write_findings

RECORD = {"accuracy": 0.93, "classes": ["a", "b"], "gap": float("inf")}
ROWS = {"row": np.arange(4), "probabilities": np.full((4, 2), 0.5, np.float32)}


def test_a_round_trip_changes_nothing(tmp_path: Path) -> None:
    assert list_findings(tmp_path) == []
    write_findings(tmp_path, "abc", RECORD, ROWS)
    record, rows = read_findings(tmp_path, "abc")
    assert record == RECORD
    assert set(rows) == set(ROWS)
    assert all(np.array_equal(rows[name], ROWS[name]) for name in ROWS)
    assert list_findings(tmp_path) == ["abc"]


def test_a_later_result_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    write_findings(tmp_path, "abc", RECORD, ROWS)
    place = write_findings(tmp_path, "abc", {"accuracy": 0.5}, {"row": np.arange(2)})
    record, rows = read_findings(tmp_path, "abc")
    assert record == {"accuracy": 0.5}
    assert rows["row"].tolist() == [0, 1]
    assert len(list(place.glob("rows-*.h5"))) == 1


def test_a_killed_replacement_leaves_the_earlier_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_findings(tmp_path, "abc", RECORD, ROWS)

    def dies_at_the_record(path: Path, content: bytes) -> str:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        return write_durably(path, content)

    monkeypatch.setattr(findings, "write_durably", dies_at_the_record)
    with pytest.raises(KeyboardInterrupt):
        write_findings(tmp_path, "abc", {"accuracy": 0.5}, {"row": np.arange(2)})
    assert read_findings(tmp_path, "abc")[0] == RECORD


@pytest.mark.parametrize("pattern", ["result.json", "rows-*.h5"])
def test_a_changed_byte_is_damage(tmp_path: Path, pattern: str) -> None:
    place = write_findings(tmp_path, "abc", RECORD, ROWS)
    path = next(place.glob(pattern))
    content = path.read_bytes()
    for i in range(0, len(content), max(1, len(content) // 50)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        with pytest.raises(CacheDamagedError, match="probe again"):
            read_findings(tmp_path, "abc")


def test_what_is_wrong_with_a_record_is_said(tmp_path: Path) -> None:
    path = write_findings(tmp_path, "abc", RECORD, ROWS) / "result.json"
    whole = path.read_bytes()
    for content, says in (
        (b"not JSON", r"result\.json: not a result \(.*\); probe again"),
        (whole.replace(b"0", b"1", 1), r"result\.json: it was changed after it was written; probe"),
        (documents.encode({"rows": 3}), r"result\.json: it has no record, or names no rows"),
    ):
        path.write_bytes(content)
        with pytest.raises(CacheDamagedError, match=says):
            read_findings(tmp_path, "abc")


def test_a_result_of_a_cache_that_is_gone_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(CacheMissingError, match="gone: the cache is gone; the result is not kept"):
        write_findings(tmp_path / "gone", "abc", RECORD, ROWS)


def test_rows_that_are_gone_are_damage(tmp_path: Path) -> None:
    place = write_findings(tmp_path, "abc", RECORD, ROWS)
    next(place.glob("rows-*.h5")).unlink()
    with pytest.raises(CacheDamagedError, match="not the rows that were written"):
        read_findings(tmp_path, "abc")


def test_an_unknown_result_names_those_there_are(tmp_path: Path) -> None:
    write_findings(tmp_path, "abc", RECORD, ROWS)
    with pytest.raises(CacheMissingError, match=f"{tmp_path}: no result 'xyz'; there are: abc"):
        read_findings(tmp_path, "xyz")


def test_a_result_is_kept_while_an_extraction_runs(tmp_path: Path, hold) -> None:
    with hold() as writer:
        writer.commit(writer.manifest)
        place = write_findings(tmp_path / "cache", "abc", RECORD, ROWS)
    (place / ".tmp-result.json").write_bytes(b"of a probe that runs just now")
    with hold():
        pass
    assert (place / ".tmp-result.json").exists()
    assert read_findings(tmp_path / "cache", "abc")[0] == RECORD
