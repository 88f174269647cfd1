"""`probe --unfreeze --tta`: the crops' activations on demand, the column, and what is resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featcache import api
from featcache.recipe import TTA
from featcache.results import DepthScore, ProbeResult
from featcache.store.cache import Cache
from featcache.store.steps import SWEEPS

QUICK: dict[str, Any] = {
    "tolerance": 0.1,
    "folds": 2,
    "training": api.TrainingOptions(epochs=1, rates=(3e-3,), batch_size=16),
}
DEEP, TOP = "layer2.0", "layer3.0"


pytestmark = pytest.mark.usefixtures("one_thread")


def untimed(result: ProbeResult) -> list[DepthScore]:
    """Depths without what no two runs share."""
    return [replace(score, seconds=0.0) for score in result.unfreeze]


def without_crops(result: ProbeResult) -> list[DepthScore]:
    return [replace(score, tta=None) for score in untimed(result)]


@pytest.fixture
def split(class_folders: Path) -> Path:
    """The pictures, a third of them for test."""
    root = class_folders.parent / "split"
    for i, path in enumerate(sorted(class_folders.glob("*/*.jpg"))):
        place = root / ("train" if i % 3 else "test") / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)
    return root


def crops_at(folder: Path, cut: str) -> list[str | None]:
    """The cuts that the crops' unpooled streams at a cut came from."""
    cache = Cache(folder)
    streams = [entry.stream for entry in cache.manifest.streams.values()]
    found = [s for s in streams if (s.cut, s.pooling, s.view.policy) == (cut, "none", TTA)]
    return [parent.cut if (parent := cache.parent_of(s)) else None for s in found]


def test_a_sweep_with_crops_makes_them_at_every_cut_and_moves_no_other_number(
    split: Path, tmp_path: Path, light: dict[str, Any]
) -> None:
    options = {"views": 2, **light}
    plain = api.extract(split, out=tmp_path / "plain", **options)
    crops = api.extract(split, out=tmp_path / "crops", tta=2, **options)
    before = api.probe(plain, unfreeze="0-2", **QUICK)
    found = api.probe(crops, unfreeze="0-2", tta="mean", **QUICK)
    assert [crops_at(tmp_path / "crops", cut) for cut in (TOP, DEEP)] == [[None] * 2] * 2
    assert without_crops(found) == untimed(before)
    assert (found.advice, found.recommended_depth) == (before.advice, before.recommended_depth)
    assert all(score.tta is None for score in before.unfreeze)
    assert found.tta is not None, "that of the probe itself"
    for score in found.to_json()["unfreeze"]:
        gain = score["tta"]["gain"]
        assert (score["tta"]["how"], score["tta"]["crops"], gain["n"]) == ("mean", 2, 12)
        assert gain["difference"] == pytest.approx(score["tta"]["accuracy"] - score["accuracy"])
        assert gain["ci95"][0] <= gain["difference"] <= gain["ci95"][1]
    assert without_crops(api.probe(crops, unfreeze="0-2", **QUICK)) == untimed(before)


def test_what_is_resumed_was_asked_the_same(
    split: Path, tmp_path: Path, light: dict[str, Any]
) -> None:
    """What was begun without crops, by their maximum or with fewer of them is left alone."""
    seen: list[str] = []

    def stop_at_two(stage: str, _done: int, _total: int) -> None:
        seen.append(stage)
        if stage == "depth 2":
            raise KeyboardInterrupt

    def begin(**options: Any) -> None:
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            api.probe(cache, unfreeze="0-2", progress=stop_at_two, **options, **QUICK)
        assert "depth 1" in seen

    cache, extract = tmp_path / "c", {"pooling": "none", "cuts": (TOP, DEEP), **light}
    api.extract(split, out=cache, tta=1, **extract)
    for options in ({}, {"tta": "max"}, {"tta": "mean"}):
        begin(**options)
    api.extract(split, out=cache, tta=2, **extract)
    begin(tta="mean")
    assert len(list((cache / SWEEPS).iterdir())) == 4
    seen.clear()
    asked = {"unfreeze": "0-2", "tta": "mean", **QUICK}
    resumed = api.probe(cache, progress=lambda stage, *_: seen.append(stage), **asked)
    assert "depth 2" in seen
    assert "depth 1" not in seen
    assert [score.tta.crops for score in resumed.unfreeze] == [2, 2, 2]
    assert untimed(api.probe(cache, **asked)) == untimed(resumed)


def test_the_whole_network_takes_its_crops_from_pixels(
    split: Path, tmp_path: Path, light: dict[str, Any]
) -> None:
    cache = api.extract(split, out=tmp_path / "c", tta=1, **light)
    found = api.probe(cache, unfreeze="all", tta="mean", save=tmp_path / "t.fc", **QUICK)
    assert [(score.cut, score.tta.crops) for score in found.unfreeze] == [
        ("penultimate", 1),
        ("pixels", 1),
    ]
    assert Path(found.saved).is_file()
    assert {entry.stream.cut for entry in Cache(tmp_path / "c").manifest.streams.values()} == {
        "penultimate"
    }
