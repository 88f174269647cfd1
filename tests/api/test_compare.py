"""Backbones beside each other: the numbers of `probe`, on the very same held-out pictures."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from featcache import api
from featcache.api import comparing
from featcache.errors import CacheMismatchError, ClassifierError, ProbeError
from featcache.results import CompareResult
from featcache.store.cache import Cache
from featcache.store.findings import read_findings

FAST = {"folds": 3, "tolerance": 0.3}
OTHER = "timm/test_efficientnet"


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, light: dict[str, Any]) -> Callable[..., str]:
    """Extract into a new cache."""

    def made(data: Path, **options: Any) -> str:
        out = tmp_path_factory.mktemp("caches") / "cache"
        return api.extract(data, out=out, **{**light, **options}).cache

    return made


@pytest.fixture(scope="module")
def caches(folders: Path, make: Callable[..., str]) -> tuple[str, str]:
    """A heavy network's and a light one's, of the same pictures."""
    return make(folders), make(folders, backbone=OTHER)


@pytest.fixture(scope="module")
def compared(caches: tuple[str, str]) -> CompareResult:
    return api.compare(*caches, **FAST)


def findings(row: Any) -> dict[str, np.ndarray]:
    return read_findings(Path(row.cache), row.result)[1]


def right(row: Any) -> np.ndarray:
    rows = findings(row)
    judged = rows["judged"].astype(bool)
    return (rows["probabilities"].argmax(axis=1) == rows["targets"])[judged]


def test_a_row_is_what_a_probe_says(compared: CompareResult) -> None:
    for row in compared.backbones:
        probed = api.probe(row.cache, **FAST)
        estimate = probed.estimate
        assert (row.accuracy, row.ci95) == (estimate.accuracy, estimate.ci95)
        assert (row.mean_per_class, row.log_loss) == (estimate.mean_per_class, estimate.log_loss)
        assert (row.train_accuracy, row.result) == (probed.train_accuracy, probed.result)
        assert row.overfitting == pytest.approx(probed.train_accuracy - estimate.accuracy)
    assert compared.n == compared.n_common == 117
    assert compared.method == probed.estimate.method


def test_it_is_a_row_a_backbone_wherever_it_is_looked_at(compared: CompareResult) -> None:
    first, second = compared.backbones
    frame = compared.to_frame()
    assert list(frame["name"]) == [first.name, second.name]
    assert list(frame["accuracy"]) == [first.accuracy, second.accuracy]
    assert len(compared.to_frame("pairs")) == 1
    page = compared._repr_html_()
    assert page.count("<table>") == 3
    assert f"<td>{first.name}</td>" in page
    assert f"recommended {compared.recommended or 'undecided'}" in repr(compared)


def test_the_pair_is_mcnemars_on_the_kept_rows(compared: CompareResult) -> None:
    (pair,) = compared.pairs
    first, second = compared.backbones
    assert np.array_equal(findings(first)["hashes"], findings(second)["hashes"])
    a, b = right(first), right(second)
    assert (pair.first, pair.second) == (first.name, second.name)
    assert pair.difference.difference == pytest.approx(b.mean() - a.mean())
    only = int((b & ~a).sum()), int((a & ~b).sum())
    assert pair.difference.p_value == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    against = api.probe(second.cache, **FAST, against=first.cache).against
    assert against is not None
    assert against.difference.difference == pair.difference.difference


def test_the_cheapest_comes_first_and_is_advised_where_it_is_enough(
    compared: CompareResult, caches: tuple[str, str]
) -> None:
    costs = [row.multiplications for row in compared.backbones]
    assert costs == sorted(costs)
    assert {row.cache for row in compared.backbones} == set(caches)
    loose = api.compare(*caches, margin=0.9, **FAST)
    assert loose.recommended == compared.backbones[0].name
    assert f"{loose.recommended} is enough" in loose.advice
    tight = api.compare(*reversed(caches), margin=1e-6, **FAST)
    assert [row.name for row in tight.backbones] == [row.name for row in compared.backbones]
    if tight.recommended is None:
        assert "undecided" in tight.advice
    assert "seed" not in tight.advice  # heads are solved: no seed trained them


def test_an_earlier_probe_is_taken_as_it_is(
    caches: tuple[str, str], compared: CompareResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("featcache.api.judging.fit_probe", refuse)
    again = api.compare(*caches, **FAST)
    for before, now in zip(compared.backbones, again.backbones, strict=True):
        assert before.to_json() | {"probe_seconds": None} == now.to_json() | {"probe_seconds": None}
        assert now.probe_seconds is not None
    with pytest.raises(AssertionError, match="fitted again"):
        api.compare(*caches, **FAST, seed=1)


def test_extraction_is_told_as_far_as_the_log_tells(
    folders: Path, make: Callable[..., str], caches: tuple[str, str]
) -> None:
    cache = make(folders)
    (noted,) = (
        line
        for text in Path(cache, "log.jsonl").read_text().splitlines()
        if (line := json.loads(text))["event"] == "extract"
    )
    row = by_cache(api.compare(cache, caches[1], **FAST), cache)
    assert row.extract_seconds == noted["seconds"]
    assert row.images_per_second == pytest.approx(117 / noted["seconds"], abs=0.06)
    Path(cache, "log.jsonl").write_text(json.dumps(noted | {"computed": 60}) + "\n")
    row = by_cache(api.compare(cache, caches[1], **FAST), cache)
    assert row.extract_seconds is None  # a killed run is not in the log
    assert row.images_per_second == pytest.approx(60 / noted["seconds"], abs=0.06)
    Path(cache, "log.jsonl").unlink()
    row = by_cache(api.compare(cache, caches[1], **FAST), cache)
    assert (row.extract_seconds, row.images_per_second, row.probe_seconds) == (None, None, None)


def test_caches_of_one_pass_share_its_time(
    folders: Path, light: dict[str, Any], tmp_path: Path
) -> None:
    names = f"{light['backbone']},{OTHER}"
    made = api.extract_each(folders, out=tmp_path, **{**light, "backbone": names})
    found = api.compare(*made, **FAST)
    assert [row.together for row in found.backbones] == [2, 2]
    seconds = {result.cache: result.seconds for result in made}
    assert {row.cache: row.extract_seconds for row in found.backbones} == seconds


def by_cache(found: CompareResult, cache: str) -> Any:
    return next(row for row in found.backbones if row.cache == cache)


def table_of(folders: Path, path: Path, lines: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows((str(folders / name), label) for name, label in lines)
    return path


def lines_of(folders: Path) -> list[tuple[str, str]]:
    return [
        (f"{path.parent.name}/{path.name}", path.parent.name)
        for path in sorted(folders.glob("*/*.jpg"))
    ]


def test_pictures_are_matched_by_content_whatever_their_order_and_number(
    folders: Path, make: Callable[..., str], caches: tuple[str, str], tmp_path: Path
) -> None:
    lines = lines_of(folders)[::-1]
    shuffled = make(table_of(folders, tmp_path / "b.csv", lines[5:]))
    found = api.compare(caches[0], shuffled, **FAST)
    assert found.n == found.n_common == 112
    assert "on the 112 different pictures that all caches have (117 in" in found.warnings[0]
    first, second = found.backbones
    assert {first.name, second.name} == {
        f"timm/test_resnet ({Path(cache).name})" for cache in (caches[0], shuffled)
    }
    assert first.accuracy == second.accuracy
    assert first.log_loss == pytest.approx(second.log_loss, rel=1e-4)  # other batches round apart
    assert found.pairs[0].difference.difference == 0


@pytest.mark.parametrize("change", ["label", "class", "picture"])
def test_what_cannot_be_compared_is_named(
    folders: Path, make: Callable[..., str], caches: tuple[str, str], tmp_path: Path, change: str
) -> None:
    lines = lines_of(folders)
    if change == "label":
        lines[0] = (lines[0][0], "thing")
        message = r"1 pictures have other labels in .* \('thing' and 'sky'\); extract both again"
    elif change == "class":
        lines = [(name, "cloud" if label == "sky" else label) for name, label in lines]
        message = "classes differ: only .* has 'sky'; only .* has 'cloud'"
    else:
        for name, _ in lines:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes((folders / name).read_bytes() + b"other")
        folders = tmp_path
        message = "have no picture in common"
    other = make(table_of(folders, tmp_path / "other.csv", lines))
    with pytest.raises(ProbeError, match=message):
        api.compare(caches[0], other, **FAST)


def test_what_makes_no_comparison_is_refused(caches: tuple[str, str]) -> None:
    with pytest.raises(ProbeError, match="1 cache to compare; give two or more"):
        api.compare(caches[0])
    with pytest.raises(ProbeError, match="is given twice"):
        api.compare(caches[0], caches[1], caches[0])
    with pytest.raises(ProbeError, match="head 'ridge': compare by softmax or logistic"):
        api.compare(*caches, head="ridge")
    with pytest.raises(ProbeError, match="depth -1: give 0, the head alone, or more"):
        api.compare(*caches, depth=-1)
    request = api.CompareRequest(caches, **FAST)
    with pytest.raises(TypeError, match=r"dataclasses\.replace"):
        api.compare(request, depth=1)
    assert api.compare(request).n == 117


def test_a_cache_that_changed_meanwhile_is_named() -> None:
    rows = np.zeros((2, 32), np.uint8)
    found: list[Any] = [
        SimpleNamespace(cache=SimpleNamespace(folder=name), judged=SimpleNamespace(hashes=hashes))
        for name, hashes in (("a", rows), ("b", rows), ("c", rows + np.uint8(1)))
    ]
    comparing._refuse_other_rows(found[:2])
    with pytest.raises(CacheMismatchError, match="c: other pictures were held out than in a; a"):
        comparing._refuse_other_rows(found)


def test_code_is_not_run_unless_it_is_vouched_for(
    caches: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(caches[0], copy)
    real = Cache(copy).manifest.backbone

    class Named(Cache):
        def __init__(self, folder: Path, **options: Any) -> None:
            super().__init__(folder, **options)
            self.manifest.backbone.update(name="mine:net", locator={"kind": "factory"})

    monkeypatch.setattr("featcache.api.comparing.Cache", Named)
    with pytest.raises(ClassifierError, match="say --backbone mine:net"):
        api.compare(copy, caches[1])
    assert real["name"] == "timm/test_resnet"


def test_depth_trains_the_units_that_layers_lists(caches: tuple[str, str]) -> None:
    training = api.TrainingOptions(epochs=1)
    found = api.compare(*caches, depth=1, training=training, **{**FAST, "folds": None})
    assert found.depth == 1
    assert found.method.startswith("hold-out of 30%")
    for row in found.backbones[:1]:
        head = 3 * (row.width + 1)
        top = api.layers(row.backbone, image_size=32)[0]
        swept = api.probe(row.cache, unfreeze="1", training=training, tolerance=0.3).unfreeze[-1]
        assert row.params_trainable == head + top.params_trainable == swept.params_trainable
        assert row.params_total == row.params_trainable + row.params_non_trainable
        assert row.params_total > swept.params_total  # BatchNorm's statistics too
        assert (row.accuracy, row.train_accuracy) == (swept.accuracy, swept.train_accuracy)
    assert not list(Path(row.cache, "sweeps").glob("*"))


def test_a_comparison_is_json_and_is_drawn(compared: CompareResult) -> None:
    plain = compared.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    keys = {"params_total", "params_trainable", "params_non_trainable", "width", "ci95"}
    assert keys <= set(plain["backbones"][0])
    (axes,) = compared.plot().axes
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        row.name for row in compared.backbones
    ]
