"""What a probe found is kept row by row, under the identity of its question."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import api
from featcache.errors import StoreError
from featcache.evaluation.metrics import score
from featcache.store.cache import Cache
from featcache.store.findings import list_findings, read_findings


@pytest.fixture
def own(extracted: Any, tmp_path: Path) -> Path:
    """A copy of the cache without findings."""
    copy = Path(shutil.copytree(extracted.cache, tmp_path / "own"))
    shutil.rmtree(copy / "results", ignore_errors=True)
    return copy


def test_rows_reproduce_the_estimate_exactly(own: Path) -> None:
    result = api.probe(own, folds=3, tolerance=0.5)
    record, rows = read_findings(own, str(result.result))
    judged = rows["judged"].astype(bool)
    scores = score(rows["probabilities"][judged], rows["targets"][judged])
    assert scores.accuracy == result.estimate.accuracy
    assert scores.log_loss == result.estimate.log_loss
    assert scores.mean_per_class == result.estimate.mean_per_class
    assert scores.n == result.estimate.n
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (rows["targets"], rows["probabilities"].argmax(axis=1)), 1)
    assert confusion.tolist() == [list(row) for row in result.confusion]
    index = Cache(own).index
    np.testing.assert_array_equal(rows["hashes"], index.hashes[rows["row"]])
    given = [index.labels_of(int(row))[0] for row in rows["row"]]
    assert given == [record["classes"][code] for code in rows["targets"]]
    assert rows["coef"].shape == (3, 96)


def test_the_same_question_has_the_same_identity_and_bytes(own: Path) -> None:
    first = api.probe(own, folds=2, tolerance=0.5)
    place = own / "results" / str(first.result)
    kept = {p.name: p.read_bytes() for p in place.iterdir()}
    again = api.probe(own, folds=2, tolerance=0.5)
    assert again.result == first.result
    assert {p.name: p.read_bytes() for p in place.iterdir()} == kept
    assert list_findings(own) == [first.result]


@pytest.mark.parametrize(
    "other", [{"folds": 3}, {"seed": 1}, {"head": "logistic"}, {"standardize": True}]
)
def test_another_question_has_another_identity(own: Path, other: dict[str, Any]) -> None:
    first = api.probe(own, folds=2, tolerance=0.5)
    assert api.probe(own, **{"folds": 2, "tolerance": 0.5, **other}).result != first.result
    assert len(list_findings(own)) == 2


def test_labels_are_part_of_the_question_and_time_stamps_are_not(
    folders: Path, light: dict[str, Any], tmp_path: Path
) -> None:
    pictures, out = Path(shutil.copytree(folders, tmp_path / "p")), tmp_path / "c"
    api.extract(pictures, out=out, **light)
    first = api.probe(out, folds=2, tolerance=0.5).result
    one = next(pictures.glob("sky/*.jpg"))
    os.utime(one, (1, 1))
    api.extract(pictures, out=out, **light)
    assert api.probe(out, folds=2, tolerance=0.5).result == first
    one.rename(pictures / "thing" / one.name)
    api.extract(pictures, out=out, **light)
    assert api.probe(out, folds=2, tolerance=0.5).result != first


def test_a_cache_that_cannot_be_written_can_be_probed(own: Path) -> None:
    (own / "results").write_text("in the way")  # as a read-only disk: the folder cannot be made
    result = api.probe(own, folds=2, tolerance=0.5)
    assert result.result is None
    assert any("the findings are not kept in the cache" in w for w in result.warnings)
    assert 0 < result.estimate.accuracy <= 1


def test_a_damaged_cache_is_refused(own: Path) -> None:
    (shard,) = own.glob("shards/*/*.h5")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreError, match="not those that were committed"):
        api.probe(own)
    assert api.probe(own, folds=2, tolerance=0.5, trust=True).estimate.n == 117
