"""The page says what the record says, of names only as text, and needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from featcache.report import write_report
from featcache.results import ProbeResult
from featcache.store.findings import read_findings

Page = Any
"""What a page says; see `Page` in the fixtures."""

SCRIPT = "<script>alert(1)</script>"
CLASSES = (SCRIPT, 'cup & "saucer"', "sky")


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


@pytest.fixture(scope="module")
def rows(probed: ProbeResult) -> dict[str, np.ndarray]:
    return read_findings(Path(probed.cache), str(probed.result))[1]


def test_the_headline_is_the_records(page: Page, probed: ProbeResult) -> None:
    estimate = probed.estimate
    assert page.texts["accuracy"] == percent(estimate.accuracy)
    assert f"95% interval {percent(estimate.ci95[0])} to {percent(estimate.ci95[1])}" in re.sub(
        r"</?b>", "", page.source
    )
    assert estimate.method in page.source
    most = max(sum(row) for row in probed.confusion)
    assert page.texts["chance"].startswith(percent(most / estimate.n))


def test_the_path_is_the_records(page: Page, probed: ProbeResult) -> None:
    (section,) = re.findall(r'<section id="path">.*?</section>', page.source, re.DOTALL)
    cells = re.findall(r"<td>(.*?)</td>", section)
    assert cells[1::4] == [percent(point.accuracy) for point in probed.path]
    assert cells[2::4] == [f"{point.log_loss:.4f}" for point in probed.path]
    assert cells[3::4] == [f"{point.log_loss_error:.4f}" for point in probed.path]
    assert section.count('class="chosen"') == 1


def test_the_confusion_matrix_is_the_records(page: Page, probed: ProbeResult) -> None:
    head, *body = page.tables["confusion"]
    assert tuple(head[1:]) == tuple(row[0] for row in body) == CLASSES
    counts = [[int(cell or 0) for cell in row[1:]] for row in body]
    assert counts == [list(row) for row in probed.confusion]


def test_classes_score_as_scikit_learn_has_it(page: Page, rows: dict[str, np.ndarray]) -> None:
    judged = rows["judged"].astype(bool)
    given, predicted = rows["targets"][judged], rows["probabilities"][judged].argmax(axis=1)
    expected = precision_recall_fscore_support(given, predicted, zero_division=0)
    head, *body = page.tables["class-scores"]
    columns = ["".join(c for c in name if c.isalnum()) for name in head]
    for name, values in zip(("precision", "recall", "F1"), expected[:3], strict=True):
        at = columns.index(name)
        assert [row[at] or "0.0%" for row in body] == [percent(value) for value in values]
    assert [int(row[1]) for row in body] == expected[3].tolist()


def test_the_bins_give_the_records_calibration_error(page: Page, probed: ProbeResult) -> None:
    from featcache.api.kept_results import kept_result
    from featcache.report.reliability import reliability
    from featcache.report.rows import rows_of

    diagram = reliability(rows_of(kept_result(f"{probed.cache}:{probed.result}")))
    assert diagram is not None
    assert probed.calibration is not None
    n = sum(one.n for one in diagram.bins)
    error = sum(one.n * abs(one.right - one.confidence) for one in diagram.bins) / n
    assert n == probed.estimate.n
    assert error == pytest.approx(probed.calibration.ece_before)
    shown = page.tables["bins"][1:]
    assert [int(row[0]) for row in shown] == [one.n for one in diagram.bins]
    assert [row[2] for row in shown] == [percent(one.right) for one in diagram.bins]


def test_mistakes_are_those_of_the_rows(page: Page, rows: dict[str, np.ndarray]) -> None:
    judged = rows["judged"].astype(bool)
    given = rows["probabilities"][judged]
    wrong = given.argmax(axis=1) != rows["targets"][judged]
    assert wrong.sum() > 3
    assert f"{wrong.sum()} of {judged.sum()} held-out pictures are wrong" in page.texts["mistakes"]
    surest = given[wrong].max(axis=1).max()
    first = re.search(r"\d+\.\d%", page.texts["mistakes"])
    assert first is not None
    assert first[0] == percent(surest)


def test_suspects_are_the_records(page: Page, probed: ProbeResult) -> None:
    assert probed.suspects
    places = [page.texts["labels"].index(suspect.path) for suspect in probed.suspects]
    assert places == sorted(places)


def test_copies_are_found_within_and_across_classes(page: Page, probed: ProbeResult) -> None:
    (overlap,) = probed.overlaps
    across, _, within = page.texts["twins"].partition("Copies within a class")
    assert all(path in across for path in overlap.paths)
    assert "again.jpg" in within
    assert "1-04.jpg" in within
    assert "again.jpg" not in across


def test_shots_and_cuts_are_the_records(page: Page, probed: ProbeResult) -> None:
    shots = page.tables["shot-scores"][1:]
    assert [row[0] for row in shots] == ["1", "2", "all"]
    assert [row[1] for row in shots] == [percent(one.mean) for one in probed.shots]
    layers = page.tables["layers"][1:]
    assert [row[0] for row in layers] == [one.cut for one in probed.layers]
    assert [row[2] for row in layers] == [percent(one.accuracy) for one in probed.layers]
    assert probed.tta is not None
    assert percent(probed.tta.accuracy) in page.texts["beside"]


def test_the_recipe_stands_in_full(page: Page, probed: ProbeResult) -> None:
    from featcache import api

    recipe = api.info(probed.cache).recipe
    said = page.texts["recipe"]
    assert recipe["weights"] in said
    assert recipe["key"] in said
    for name in recipe["preprocessing"]:
        assert f"preprocessing.{name}" in said
    assert str(probed.result) in said


def test_names_are_text(page: Page) -> None:
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert SCRIPT in page.texts["class-scores"]
    assert '0"><script>alert(2)<script>.jpg' in page.texts["map"]
    assert not any(name.startswith("on") for _, given in page.tags for name in given)


def test_nothing_is_loaded(page: Page) -> None:
    for _, given in page.tags:
        for name in ("src", "href", "srcset", "poster", "data", "action", "xlink:href"):
            assert re.match("data:image/|#", given.get(name) or "#")
    assert set(re.findall(r"url\(\"?(.{11})", page.source)) <= {"data:image/"}
    assert "@import" not in page.source


def test_the_policy_allows_this_style_and_this_script_alone(page: Page) -> None:
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not any("style" in given for _, given in page.tags)


def test_the_same_result_gives_the_same_bytes(
    page: Page, probed: ProbeResult, tmp_path: Path
) -> None:
    written = write_report(f"{probed.cache}:{probed.result}", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.path.read_bytes()
    assert written.bytes == page.path.stat().st_size
    assert (written.cache, written.result) == (probed.cache, probed.result)


def test_numbers_of_pictures_are_bounded(
    probed: ProbeResult, page_of: Callable[..., Page], page: Page
) -> None:
    few = page_of(probed, mistakes=2, points=20)
    assert few.texts["mistakes"].count("\npredicted ") == 2
    assert few.source.count('<i id="p') == 20
    assert "20 of 62 pictures, drawn at random" in few.texts["map"]
    none = page_of(probed, mistakes=0)
    assert "map" not in none.sections()
    assert len(none.source) < len(few.source) < len(page.source)
