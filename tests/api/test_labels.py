"""Caches whose labels do not allow a probe, or only a certain one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import api
from featcache.errors import CacheMissingError, ProbeError
from featcache.evaluation.metrics import score
from featcache.store.findings import read_findings

Extract = Callable[..., Path]


@pytest.fixture
def extract_table(folders: Path, light: dict[str, Any], tmp_path: Path) -> Extract:
    """Extract a CSV whose labels a function of (picture's path, its number) gives."""

    def run(label: Callable[[Path, int], str], every: int = 3) -> Path:
        table, out = tmp_path / "table.csv", tmp_path / "cache"
        paths = sorted(folders.glob("*/*.jpg"))[::every]
        lines = [f"{path},{label(path, i)}" for i, path in enumerate(paths)]
        table.write_text("\n".join(["path,label", *lines]))
        api.extract(table, out=out, **light)
        return out

    return run


def test_no_labels(extract_table: Extract) -> None:
    cache = extract_table(lambda path, i: "")
    with pytest.raises(ProbeError, match="none of its 39 pictures has a label") as caught:
        api.probe(cache)
    assert f"--out {cache} --replace-source" in str(caught.value)


def test_one_class(extract_table: Extract) -> None:
    cache = extract_table(lambda path, i: "only" if i % 2 else "")
    with pytest.raises(ProbeError, match="'only' is the only class with usable pictures") as caught:
        api.probe(cache)
    assert str(cache) in str(caught.value)


def test_unlabelled_pictures_stay_out(extract_table: Extract) -> None:
    cache = extract_table(lambda path, i: path.parent.name if i % 2 else "")
    assert api.probe(cache, folds=2, tolerance=0.5).n_train == 19


def test_no_readable_picture(tmp_path: Path, light: dict[str, Any]) -> None:
    for label in ("a", "b"):
        (tmp_path / "p" / label).mkdir(parents=True)
        (tmp_path / "p" / label / "1.png").write_bytes(b"no picture at all, " + label.encode())
    api.extract(tmp_path / "p", out=tmp_path / "c", **light)
    with pytest.raises(ProbeError, match=r"none of its 2 labelled .* could be used.*not a picture"):
        api.probe(tmp_path / "c")


def several(path: Path, i: int) -> str:
    kind = path.parent.name
    return {"sky": "flat;print", "texture": "flat;rough", "thing": "deep"}[kind]


def test_several_labels(extract_table: Extract, unseen: Path, tmp_path: Path) -> None:
    cache = extract_table(several)
    with pytest.raises(ProbeError, match=r"26 of 39 pictures .*--head logistic"):
        api.probe(cache)
    result = api.probe(cache, head="logistic", tolerance=0.5, folds=2, save=tmp_path / "m.fc")
    assert result.multi_label
    assert result.classes == ("deep", "flat", "print", "rough")
    assert result.confusion == ()
    _, rows = read_findings(cache, str(result.result))
    judged = rows["judged"].astype(bool)
    scores = score(rows["probabilities"][judged], rows["targets"][judged].astype(bool))
    assert (scores.accuracy, scores.log_loss) == (
        result.estimate.accuracy,
        result.estimate.log_loss,
    )

    predictions = api.predict(tmp_path / "m.fc", unseen, top=4)
    for prediction in predictions:
        over = tuple(entry.label for entry in prediction.top if entry.probability >= 0.5)
        assert prediction.labels == over
    assert any(len(p.labels or ()) > 1 for p in predictions)
    least = api.predict(tmp_path / "m.fc", unseen, min_probability=0)
    assert all(len(p.labels or ()) == 4 for p in least)
    none = api.predict(tmp_path / "m.fc", unseen, min_probability=1)
    assert any(p.label is None and p.labels == () for p in none)


def test_the_same_picture_under_two_labels(
    folders: Path, light: dict[str, Any], tmp_path: Path
) -> None:
    for label in ("sky", "thing"):
        (tmp_path / "p" / label).mkdir(parents=True)
        for path in sorted((folders / label).glob("*.jpg"))[:9]:
            (tmp_path / "p" / label / path.name).write_bytes(path.read_bytes())
    twin = tmp_path / "p" / "thing" / "twin.jpg"
    twin.write_bytes(min((tmp_path / "p" / "sky").iterdir()).read_bytes())
    extracted = api.extract(tmp_path / "p", out=tmp_path / "c", **light)
    assert any("under different labels" in w for w in extracted.warnings)
    result = api.probe(extracted, folds=3, tolerance=0.5)
    _, rows = read_findings(tmp_path / "c", str(result.result))
    pair = (rows["hashes"] == rows["hashes"][-1]).all(axis=1)
    assert pair.sum() == 2
    one, other = rows["probabilities"][pair]
    np.testing.assert_allclose(one, other, rtol=1e-12)  # held out together, by the same head


def test_a_head_that_is_not_there(extracted: Any) -> None:
    with pytest.raises(ProbeError, match="head 'forest': unknown; give one of softmax, logistic"):
        api.probe(extracted, head="forest")


def test_no_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheMissingError, match="none"):
        api.probe(tmp_path / "none")
