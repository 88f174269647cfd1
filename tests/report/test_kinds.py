"""Every kind of result has a page: heads, protocols, several labels, sweeps, many classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from featcache import api
from featcache.errors import CacheDamagedError, CacheMissingError, ProbeError, StoreError
from featcache.report import write_report
from featcache.results import (
    Comparison,
    DataSize,
    DepthScore,
    Difference,
    ProbeResult,
    Tta,
)
from featcache.store.findings import RESULTS, read_findings, write_findings

Page = Any
"""What a page says; see `Page` in the fixtures."""

QUICK: dict[str, Any] = {"folds": 2, "tolerance": 0.5}

PageOf = Callable[..., Page]


@pytest.mark.parametrize("head", ["softmax", "logistic", "ridge", "knn"])
def test_heads(split: Path, head: Any, page_of: PageOf) -> None:
    result = api.probe(split, head=head, **QUICK)
    page = page_of(result)
    assert page.texts["accuracy"] == f"{100 * result.estimate.accuracy:.1f}%"
    assert len(page.tables["confusion"]) == 4
    assert ("reliability" in page.sections()) == (head != "ridge")
    assert ("Ridge has no probabilities" in page.source) == (head == "ridge")
    assert ("How many neighbours" in page.source) == (head == "knn")


def test_an_mlp_beside_the_linear_head(cache: Path, page_of: PageOf) -> None:
    training = api.TrainingOptions(epochs=1)
    result = api.probe(cache, head="mlp", hidden=8, training=training, tolerance=0.5)
    page = page_of(result)
    assert result.mlp is not None
    both = [row[:2] for row in page.tables["head-scores"][1:]]
    assert both == [
        [name, f"{100 * score.accuracy:.1f}%"]
        for name, score in (("linear", result.mlp.linear), ("mlp", result.mlp.score))
    ]


@pytest.mark.parametrize("protocol", ["dinov2-knn", "fewshot-lsr"])
def test_protocols(split: Path, protocol: str, page_of: PageOf) -> None:
    result = api.probe(split, protocol=protocol)
    page = page_of(result, points=20)
    assert f"protocol {protocol}" in page.source
    assert page.texts["accuracy"] == f"{100 * result.estimate.accuracy:.1f}%"
    assert ("fits a head for each support set" in page.source) == (protocol == "fewshot-lsr")


def test_several_labels(several: Path, page_of: PageOf) -> None:
    result = api.probe(several, head="logistic", **QUICK)
    page = page_of(result, points=20)
    _, rows = read_findings(several, str(result.result))
    judged = rows["judged"].astype(bool)
    given, targets = rows["probabilities"][judged], rows["targets"][judged].astype(bool)
    ranked = [average_precision_score(targets[:, k], given[:, k]) for k in range(4)]
    assert [row[-1] for row in page.tables["class-scores"][1:]] == [
        f"{100 * r:.1f}%" for r in ranked
    ]
    wrong = ((given > 0.5) != targets).any(axis=1).sum()
    assert f"{wrong} of {judged.sum()} held-out pictures" in page.texts["mistakes"]
    assert "every picture has one label" in page.texts["labels"]
    assert "; red" in page.texts["mistakes"]


def _kept(cache: Path, result: ProbeResult) -> str:
    """Keep another record with the rows of a real one."""
    record, rows = read_findings(cache, str(result.result))
    write_findings(cache, "made-up", record | result.to_json(), rows)
    return f"{cache}:made-up"


def test_a_sweep(cache: Path, probed: ProbeResult, page_of: PageOf) -> None:
    gain = Difference(-0.012, (-0.03, 0.006), 0.04, "paired", 62)
    base = DepthScore(0, "penultimate", 0.9, (0.8, 0.95), 1.0, 100, 10, 90, 1.5, 0.9, 0.3, 10**6)
    tta = Tta("mean", 2, 0.91, 0.9, 0.29, gain)
    first = replace(base, depth=1, cut="blocks.6", accuracy=0.95, against_depth_0=gain, tta=tta)
    scores = (base, replace(first, adjusted_p=0.08, rate=1e-3, epochs=4))
    sizes = tuple(
        DataSize(n, tuple(replace(s, accuracy=s.accuracy - 5 / n) for s in scores), depth, "")
        for n, depth in ((50, None), (200, 1))
    )
    made = replace(
        probed,
        unfreeze=scores,
        scratch=replace(base, cut="scratch", accuracy=0.4, ci95=(0.3, 0.5)),
        data_sizes=sizes,
        recommended_depth=1,
        advice="depth 1 <is> enough",
        against=Comparison("<other>", "0123", "softmax", 0.8, gain),
        warnings=("a <b>bold</b> warning",),
        converged=False,
    )
    page = page_of(_kept(cache, made))
    depths = page.tables["depths"][1:]
    assert [row[:2] for row in depths] == [["0", "90.0%"], ["1", "95.0%"], ["scratch", "40.0%"]]
    assert "\N{MINUS SIGN}1.2" in depths[1]
    assert [row[:3] for row in page.tables["sizes"][1:]] == [
        ["50", "80.0%", "85.0%"],
        ["200", "87.5%", "92.5%"],
    ]
    assert "depth 1 <is> enough" in "".join(page.source).replace("&lt;", "<").replace("&gt;", ">")
    assert "<other>" in page.texts["beside"]
    assert "<b>bold</b>" not in page.source


def test_many_classes(cache: Path, probed: ProbeResult, page_of: PageOf) -> None:
    """Of more classes than a table takes, the matrix is a picture."""
    k = 300
    counts = np.diag(np.full(k, 3))
    counts[7, 9] = 2
    record, rows = read_findings(cache, str(probed.result))
    record |= {"classes": [f"class {i}" for i in range(k)], "confusion": counts.tolist()}
    for name in ("probabilities", "judged", "trained"):
        rows.pop(name)
    write_findings(cache, "many", record, rows)
    page = page_of(f"{cache}:many", points=20)
    assert "confusion" not in page.tables
    (matrix,) = (image for image in page.images() if image.size == (k, k))
    alpha = np.asarray(matrix)[..., 3]
    assert (alpha.diagonal() > 190).all()
    assert {(7, 9)} == set(zip(*np.nonzero(alpha - np.diag(alpha.diagonal())), strict=True))
    assert page.tables["confused"][1:] == [["class 7", "class 9", "2", "40.0%"]]
    assert len(page.tables["class-scores"]) == k + 1


def test_a_result_by_its_names(cache: Path, probed: ProbeResult, tmp_path: Path) -> None:
    out, place = tmp_path / "page.html", cache / RESULTS / str(probed.result)
    for named in (probed, f"{cache}:{probed.result}", place):
        assert write_report(named, out, points=0).result == probed.result
    later = api.probe(cache, seed=3, **QUICK)
    assert write_report(cache, out, points=0).result == later.result


def test_what_cannot_be_reported(
    pictures: Path, light: dict[str, Any], cache: Path, probed: ProbeResult, tmp_path: Path
) -> None:
    fresh = tmp_path / "never probed"
    api.extract(pictures, out=fresh, **light)
    with pytest.raises(ProbeError, match=r"run `featcache probe '.*never probed'` first"):
        write_report(fresh, tmp_path / "a.html")
    with pytest.raises(CacheMissingError, match="no result 'nonsense'; there are"):
        write_report(f"{cache}:nonsense", tmp_path / "a.html")
    with pytest.raises(CacheMissingError):
        write_report(tmp_path / "nothing", tmp_path / "a.html")
    with pytest.raises(ProbeError, match="was not kept"):
        write_report(replace(probed, result=None), tmp_path / "a.html")
    with pytest.raises(StoreError, match="is a folder; name the file, such as"):
        write_report(probed, tmp_path)
    (tmp_path / "mine.fc").write_bytes(b"a classifier")
    with pytest.raises(StoreError, match=r"mine.fc: is there and is no page; give another name"):
        write_report(probed, tmp_path / "mine.fc")
    assert (tmp_path / "mine.fc").read_bytes() == b"a classifier"
    with pytest.raises(ProbeError, match="mistakes 48, points -1: give at least 0"):
        write_report(probed, tmp_path / "a.html", points=-1)
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize(
    ("change", "arrays", "said"),
    [
        ({"classes": ["one", "two"]}, {}, "probabilities are"),
        ({"confusion": [[1]]}, {}, "confusion is not 3 x 3"),
        (
            {"path": [{"C": 0.0, "accuracy": 1.0, "log_loss": 1.0, "log_loss_error": 0.0}]},
            {},
            "path",
        ),
        ({}, {"targets": np.full(62, 3)}, "targets from 3 to 3 of 3 classes"),
        ({}, {"hashes": np.zeros((62, 31), np.uint8)}, "hashes are"),
        ({}, {"targets": None}, "'targets'"),
        ({"estimate": {"accuracy": "high"}}, {}, "is not of type"),
    ],
)
def test_a_result_that_fits_nothing_is_refused(
    cache: Path,
    probed: ProbeResult,
    tmp_path: Path,
    change: dict[str, Any],
    arrays: dict[str, Any],
    said: str,
) -> None:
    record, rows = read_findings(cache, str(probed.result))
    changed = {name: a for name, a in (rows | arrays).items() if a is not None}
    write_findings(cache, "odd", record | change, changed)
    with pytest.raises(CacheDamagedError, match=f"result 'odd' is none .*{said}.*probe it again"):
        write_report(f"{cache}:odd", tmp_path / "a.html")


def test_a_page_is_replaced_whole(
    probed: ProbeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("<!doctype html>an earlier page")

    def dies(self: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dies)
        with pytest.raises(StoreError, match=r"page\.html: Input/output error"):
            write_report(probed, path, points=0)
    assert path.read_text() == "<!doctype html>an earlier page"
    write_report(probed, path, points=0)
    assert path.read_text().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
