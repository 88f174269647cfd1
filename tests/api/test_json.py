"""What commands return as JSON: the keys others rely on, and valid for every value."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featcache import api
from featcache.results import ChangeCounts, PathPoint, ProbeResult, Record, Staleness

KEYS = {
    "extract": "cache samples computed reused skipped classes features seconds images_per_second "
    "recipe engine",
    "probe": "head n_train n_test classes path best_C estimate test gap converged seconds shots "
    "unfreeze recommended_depth advice saved result",
    "predict": "path label probability top",
}
"""As the design's section on the command line lists them."""


@pytest.fixture(scope="module")
def records(extracted: Any, folders: Path, tmp_path_factory: Any) -> dict[str, Record]:
    path = tmp_path_factory.mktemp("classifiers") / "kinds.fc"
    probed = api.probe(extracted, tolerance=0.5, folds=2, save=path)
    return {
        "extract": extracted,
        "probe": probed,
        "predict": api.predict(path, [str(folders / "sky" / "moon-00.jpg")])[0],
        "unreadable": api.predict(path, ["missing.png"])[0],
        "info": api.info(extracted.cache),
        "verify": api.verify(extracted.cache),
        "repair": api.repair(extracted.cache),
        "prune": api.prune(extracted.cache),
        "backbone": api.list_backbones("efficientnet_lite0")[0],
    }


@pytest.mark.parametrize("command", KEYS)
def test_the_keys_that_others_rely_on(records: dict[str, Record], command: str) -> None:
    assert set(KEYS[command].split()) <= set(records[command].to_json())


def test_the_keys_inside(records: dict[str, Record]) -> None:
    extract, probe = records["extract"].to_json(), records["probe"].to_json()
    assert extract["features"] == {"penultimate": {"shape": [96], "dtype": "float32"}}
    assert {"name", "device"} <= set(extract["engine"])
    assert {"C", "accuracy", "log_loss", "log_loss_error"} <= set(probe["path"][0])
    assert {"method", "accuracy", "ci95", "mean_per_class"} <= set(probe["estimate"])
    low, high = probe["estimate"]["ci95"]
    assert 0 <= low < high <= 1
    assert probe["test"] is None
    assert probe["best_C"] in [point["C"] for point in probe["path"]]
    predict = records["predict"].to_json()
    assert [set(entry) for entry in predict["top"]] == [{"label", "probability"}] * 3
    assert predict["error"] is None
    assert records["unreadable"].to_json()["label"] is None


def test_skipped_has_path_and_reason(tmp_path: Path, light: dict[str, Any], folders: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "p" / label).mkdir(parents=True)
        (tmp_path / "p" / label / "1.jpg").write_bytes(
            (folders / "sky" / f"moon-0{len(label)}.jpg").read_bytes()
        )
    (tmp_path / "p" / "a" / "broken.png").write_bytes(b"this is no picture, surely")
    result = api.extract(tmp_path / "p", out=tmp_path / "c", **light).to_json()
    (skip,) = result["skipped"]
    assert skip["path"] == "a/broken.png"
    assert "not a picture" in skip["reason"]


def test_a_test_split_is_in_test_and_in_the_estimate(
    folders: Path, light: dict[str, Any], tmp_path: Path
) -> None:
    lines = ["path,label,split"]
    for i, path in enumerate(sorted(folders.glob("*/*.jpg"))):
        lines.append(f"{path},{path.parent.name},{'test' if i % 3 == 0 else 'train'}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    cache = api.extract(tmp_path / "t.csv", out=tmp_path / "c", **light)
    probe = api.probe(cache, folds=2, tolerance=0.5).to_json()
    assert probe["test"] == probe["estimate"]
    assert (probe["n_train"], probe["n_test"], probe["test"]["n"]) == (78, 39, 39)


def test_every_record_round_trips(records: dict[str, Record]) -> None:
    for record in records.values():
        plain = record.to_json()
        again = json.loads(json.dumps(plain, allow_nan=False))
        assert again == plain
        assert type(record).from_json(again) == record


def test_what_is_no_record_is_told(records: dict[str, Any]) -> None:
    plain = records["probe"].to_json()
    for change, said in [
        ({"estimate": None}, "Estimate: None is no object"),
        ({"n_train": "many"}, "'many' is not of type"),
        ({"path": [{"C": 1.0}]}, "PathPoint: .* missing 3 required"),
    ]:
        with pytest.raises(ValueError, match=said):
            ProbeResult.from_json(plain | change)
    del plain["classes"]
    with pytest.raises(ValueError, match="missing 1 required positional argument: 'classes'"):
        ProbeResult.from_json(plain)


def test_what_is_no_number_in_json_is_null(records: dict[str, Any]) -> None:
    odd = replace(
        records["probe"],
        gap=math.inf,
        path=(PathPoint(1.0, math.nan, -math.inf, 0.1),),
        confusion=(),
    ).to_json()
    assert odd["gap"] is None
    (point,) = odd["path"]
    assert (point["C"], point["log_loss_error"]) == (1.0, 0.1)
    assert point["accuracy"] is None
    assert point["log_loss"] is None
    assert odd["confusion"] == []
    json.dumps(odd, allow_nan=False)


def test_names_of_any_bytes_are_valid_json(records: dict[str, Any]) -> None:
    odd = replace(records["predict"], path="no-utf8-\udcff\n.png").to_json()
    assert json.loads(json.dumps(odd))["path"] == odd["path"]


@pytest.mark.parametrize(
    ("change", "fresh"),
    [
        ({}, True),
        ({"checked": False}, False),
        ({"counts": ChangeCounts(new=1)}, False),
        ({"recipe": ("weights: a here, b there",)}, False),
        ({"recipe_reason": "the weights are gone"}, False),
    ],
)
def test_fresh_means_compared_and_equal(change: dict[str, Any], fresh: bool) -> None:
    state = Staleness(True, None, ChangeCounts(), {}, (), None)
    assert replace(state, **change).fresh is fresh
