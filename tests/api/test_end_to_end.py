"""The main job on photos, with the pretrained weights that are always installed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache as fc
from featcache.evaluation.splits import stratified_folds
from featcache.probing import labelled_rows
from featcache.store.cache import Cache
from featcache.store.findings import read_findings


@pytest.fixture(scope="module")
def plain(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> fc.ExtractResult:
    return fc.extract(folders, out=tmp_path_factory.mktemp("plain") / "cache")


@pytest.fixture(scope="module")
def by_photo(grouped: Path, plain: fc.ExtractResult) -> fc.ExtractResult:
    """The same cache from the CSV with groups: nothing is computed again."""
    return fc.extract(grouped, out=plain.cache, replace_source=True)


@pytest.fixture(scope="module")
def probed(plain: fc.ExtractResult) -> fc.ProbeResult:
    return fc.probe(plain)


def test_extract(plain: fc.ExtractResult) -> None:
    assert (plain.samples, plain.computed, plain.reused) == (117, 117, 0)
    assert plain.classes == ("sky", "texture", "thing")
    assert plain.features["penultimate"].shape == (1280,)
    assert plain.skipped == ()
    assert Path(plain).is_dir()


def test_all_of_its_seconds_are_told(folders: Path, tmp_path: Path) -> None:
    extract_each = fc.extract_each  # what it needs is imported when it is asked for
    began = time.perf_counter()
    done = extract_each(
        folders, out=tmp_path, backbone="timm/test_resnet,timm/test_vit", weights="random"
    )
    whole = time.perf_counter() - began
    told = 0.0
    for result in done:
        profile = result.profile
        assert profile is not None
        assert list(profile.outside) == ["network", "scan", "engine", "rest"]
        assert all(seconds > 0 for seconds in profile.outside.values())
        seconds = profile.seconds + sum(profile.outside.values())
        expected = result.seconds + profile.outside["network"]
        assert seconds == pytest.approx(expected, abs=0.01)
        told += seconds
    assert whole / 2 < told < whole


def test_probe(probed: fc.ProbeResult) -> None:
    estimate = probed.estimate
    assert estimate.n == 117
    assert estimate.accuracy > 0.9  # chance is 1/3
    assert estimate.ci95[0] < estimate.accuracy <= estimate.ci95[1]
    assert probed.converged
    assert sum(map(sum, probed.confusion)) == 117


def test_groups_are_respected_and_widen_the_interval(
    probed: fc.ProbeResult, by_photo: fc.ExtractResult
) -> None:
    assert (by_photo.computed, by_photo.reused) == (0, 117)
    result = fc.probe(by_photo)
    assert result.estimate.accuracy > 0.5  # photos never seen: harder, and above chance
    width, plain_width = (r.estimate.ci95[1] - r.estimate.ci95[0] for r in (result, probed))
    assert width >= plain_width
    assert "by group" in result.estimate.method
    assert any("3 folds instead of 5" in w for w in result.warnings)  # three photos a class

    data = labelled_rows(Cache(Path(by_photo)))
    photos = [path.rpartition("/")[2].split("-")[0] for path in Cache(Path(by_photo)).index.paths]
    folds = stratified_folds(data.targets, data.groups, 5, 0).held_out
    for photo in set(photos):
        assert len(set(folds[[i for i, name in enumerate(photos) if name == photo]])) == 1


def test_save_and_predict(plain: fc.ExtractResult, unseen: Path, tmp_path: Path) -> None:
    result = fc.probe(plain, save=tmp_path / "kinds.fc", embed_backbone=True)
    assert result.saved == str(tmp_path / "kinds.fc")
    predictions = fc.predict(tmp_path / "kinds.fc", unseen)
    assert len(predictions) == 18
    right = [p.label == Path(p.path).name.split("-")[0] for p in predictions]
    assert np.mean(right) > 0.9
    assert all(p.probability == p.top[0].probability for p in predictions)
    assert all(sum(e.probability for e in p.top) == pytest.approx(1) for p in predictions)


def test_what_is_kept_reproduces_the_estimate(plain: Any, probed: fc.ProbeResult) -> None:
    record, rows = read_findings(Path(plain), str(probed.result))
    assert record["estimate"] == probed.to_json()["estimate"]
    assert rows["judged"].sum() == probed.estimate.n
