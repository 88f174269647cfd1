"""A classifier is saved only if, from pixels, it gives the logits that were measured."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featcache import api
from featcache.classifier import files
from featcache.classifier.joined import join
from featcache.classifier.parity import (
    ROUNDED_TOLERANCE,
    ROWS,
    TOLERANCE,
    CheckedRows,
    choose_rows,
    measure,
)
from featcache.errors import ClassifierError, ParityError, SourceMissingError, StoreError
from featcache.extraction.pipeline import Slot
from featcache.images.sources import source_from_locator
from featcache.store.cache import Cache
from featcache.store.findings import list_findings

BACKBONE = "timm/test_resnet"


def test_rows_are_evenly_spread() -> None:
    assert choose_rows(3).tolist() == [0, 1, 2]
    many = choose_rows(1000)
    assert len(many) == ROWS
    assert (many[0], many[-1]) == (0, 999)
    assert np.diff(many).max() - np.diff(many).min() <= 1


def tamper(cache: Path) -> None:
    """Change one cached feature of each row."""
    (shard,) = cache.glob("shards/*/*.h5")
    with h5py.File(shard, "r+") as file:
        features = file["features"]
        features[:, 0] = features[:, 0] + 50.0


def test_tampered_features_are_refused(own_cache: Path, tmp_path: Path, fails: Any) -> None:
    tamper(own_cache)
    target = tmp_path / "out" / "a.fc"
    target.parent.mkdir()
    target.write_bytes(b"an older classifier")
    text = fails(
        ParityError,
        lambda: api.probe(own_cache, folds=2, trust=True, save=target),
        target.parent,
    )
    assert str(target) in text
    assert "not saved" in text
    assert f"(allowed: {TOLERANCE:g})" in text
    assert "of their size" in text


def test_findings_are_kept_where_saving_fails(own_cache: Path, tmp_path: Path) -> None:
    tamper(own_cache)
    before = list_findings(own_cache)
    with pytest.raises(ParityError):
        api.probe(own_cache, folds=2, seed=77, trust=True, save=tmp_path / "a.fc")
    assert len(list_findings(own_cache)) == len(before) + 1


def test_another_preprocessing_is_refused(checked: Any, tmp_path: Path, fails: Any) -> None:
    recipe = checked.content.recipe
    other = replace(recipe, preprocessing=replace(recipe.preprocessing, mean=(0.1, 0.9, 0.5)))
    text = fails(ParityError, lambda: checked.save(tmp_path / "a.fc", recipe=other), tmp_path)
    assert "differ from the cached ones by" in text


def test_another_head_is_refused(checked: Any, tmp_path: Path, fails: Any) -> None:
    """What the file gives is compared, not what was meant to be put into it."""
    head = checked.content.head
    other = replace(head, bias=head.bias + 0.1 * np.abs(checked.rows.logits).max())
    fails(ParityError, lambda: checked.save(tmp_path / "a.fc", head=other), tmp_path)


def test_logits_that_are_not_finite_are_refused(checked: Any, tmp_path: Path, fails: Any) -> None:
    logits = checked.rows.logits.copy()
    logits[0, 0] = np.nan
    broken = replace(checked.rows, logits=logits)
    fails(ParityError, lambda: replace(checked, rows=broken).save(tmp_path / "a.fc"), tmp_path)


def test_other_weights_are_refused(
    pictures: Path, tmp_path: Path, weights: Any, fails: Any
) -> None:
    file = weights("net.safetensors", 5)
    cache = api.extract(
        pictures, backbone="timm/test_resnet", weights=file, image_size=48, out=tmp_path / "c"
    )
    weights("net.safetensors", 6)  # another network's tensors at the same place
    out = tmp_path / "out"
    out.mkdir()
    text = fails(ClassifierError, lambda: api.probe(cache, folds=2, save=out / "a.fc"), out)
    assert "weights: " in text


def test_an_existing_file_is_replaced_when_all_is_well(checked: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.fc"
    path.write_bytes(b"an older classifier")
    checked.save(path)
    assert files.read(path).classes == ("cat", "coffee")
    assert [p.name for p in tmp_path.iterdir()] == ["a.fc"]


def test_pictures_that_are_gone_matter_only_where_a_classifier_is_saved(
    pictures: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(pictures, tmp_path / "moved"))
    cache = api.extract(
        moved, backbone="timm/test_resnet", weights="random", image_size=48, out=tmp_path / "c"
    )
    one = moved / "cat" / "00.png"
    one.write_bytes((moved / "cat" / "01.png").read_bytes())  # choose_rows takes all 28
    with pytest.raises(SourceMissingError, match=r"a\.fc: not saved.*cat/00\.png"):
        api.probe(cache, folds=2, save=tmp_path / "a.fc")
    shutil.rmtree(moved)
    assert api.probe(cache, folds=2).estimate.n == 28
    with pytest.raises(SourceMissingError, match=r"a\.fc: not saved.*moved: the pictures are no"):
        api.probe(cache, folds=2, save=tmp_path / "a.fc")
    assert not (tmp_path / "a.fc").exists()


def test_a_folder_is_refused_before_anything_is_fitted(cache: Path, tmp_path: Path) -> None:
    fitted: list[Any] = []
    with pytest.raises(ClassifierError, match="is a folder; name the file"):
        api.probe(cache, save=tmp_path, progress=lambda *a: fitted.append(a))
    assert not fitted


def test_a_place_that_cannot_be_written_is_named(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=str(tmp_path / "file")):
        api.probe(cache, folds=2, save=tmp_path / "file" / "a.fc")


def test_a_new_folder_is_made(checked: Any, tmp_path: Path) -> None:
    checked.save(tmp_path / "new" / "deep" / "a.fc")
    assert (tmp_path / "new" / "deep" / "a.fc").is_file()


def test_features_of_half_precision_are_compared_as_rounded(pictures: Path, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    options = {"weights": "random:1", "image_size": 48, "store_dtype": "float16"}
    api.extract(pictures, backbone=BACKBONE, out=cache, **options)
    api.probe(cache, folds=2, save=tmp_path / "a.fc")
    content, opened = files.read(tmp_path / "a.fc"), Cache(cache)
    reader, chosen = opened.stream(), choose_rows(len(opened.index))
    features = reader.read(reader.positions(opened.index.hashes[chosen]))
    assert features.dtype == np.float16
    slots = [Slot(opened.index.hashes[i].tobytes(), opened.index.paths[int(i)]) for i in chosen]
    source = source_from_locator(opened.manifest.source)
    found = measure(join(content), CheckedRows(source, slots, content.logits(features)))
    assert found.worst < 1e-5
    assert TOLERANCE < found.unrounded < ROUNDED_TOLERANCE
