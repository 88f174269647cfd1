"""What a cache has goes out whole, and others read it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pyarrow import parquet
from skimage.data import chelsea
from sklearn.datasets import load_digits

import featcache as fc
from featcache.errors import (
    CacheMissingError,
    ExportError,
    MissingExtraError,
    SourceMissingError,
    StoreError,
)
from featcache.export import samples
from featcache.export.pictures import picture_file
from featcache.images.sources import content_hash, open_source
from featcache.store.cache import Cache
from featcache.store.findings import read_findings

FORMATS = ("npz", "parquet", "csv", "h5")
ODD = os.fsdecode(b"cup/caf\xe9.png")


def features_of(cache: Path, cut: str = "penultimate", paths: Any = None) -> np.ndarray:
    """The cache's own rows of its index, or of some paths."""
    opened = Cache(cache)
    reader = opened.stream(cut)
    places = {path: i for i, path in enumerate(opened.index.paths)}
    rows = [places[path] for path in paths]
    return reader.read(reader.positions(opened.index.hashes[rows]))


@pytest.fixture(scope="session")
def exported(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, fc.CacheExport]:
    """One file of each format. Read only."""
    out = tmp_path_factory.mktemp("exported")
    return {name: fc.export_cache(cache, out / f"drinks.{name}") for name in FORMATS}


def test_numpy_alone_reads_an_npz(exported: dict[str, Any], cache: Path, pictures: Path) -> None:
    read = np.load(exported["npz"].file)  # pickles are refused
    assert ODD in read["path"]
    assert np.array_equal(read["features"], features_of(cache, paths=read["path"]))
    for i, path in enumerate(read["path"]):
        file = pictures / path
        assert read["filepath"][i] == str(file)
        assert read["sha256"][i] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert read["classes"][read["labels"][i]] == read["label"][i] == file.parent.name
    description = json.loads(str(read["description"]))
    assert description["recipe"] == Cache(cache).manifest.recipe.to_dict()
    assert (exported["npz"].rows, exported["npz"].skipped) == (25, 1)


def test_every_format_has_the_same_rows(exported: dict[str, Any]) -> None:
    read = np.load(exported["npz"].file)
    spelt = [path.encode("utf-8", "backslashreplace").decode() for path in read["path"]]
    frame, table = pd.read_parquet(exported["parquet"].file), pd.read_csv(exported["csv"].file)
    assert np.array_equal(np.stack(frame.features), read["features"])
    assert np.array_equal(table.filter(regex="^f[0-9]").to_numpy(np.float32), read["features"])
    assert frame.path.tolist() == spelt == [p.removeprefix("'") for p in table.path]
    assert [os.fsdecode(path) for path in frame.path_bytes] == read["path"].tolist()
    assert frame.labels.tolist() == read["labels"].tolist()
    assert frame.attrs["classes"] == read["classes"].tolist()
    with h5py.File(exported["h5"].file) as file:
        assert np.array_equal(file["features/penultimate"], read["features"])
        assert np.array_equal(file["labels"], read["labels"])
        assert np.array_equal(file["pred_probs"], read["pred_probs"])
        paths = file["path"].asstr(errors="surrogateescape")[:]
        assert paths.tolist() == read["path"].tolist()


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_runs_without_featcache(exported: dict[str, Any], name: str) -> None:
    code = "import sys; sys.modules['featcache'] = None\n" + exported[name].example
    code += "print(len(X), len(y), X.dtype, X.ndim)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "25 25 float32 2\n", done.stderr


def test_hdf5_has_all_cuts_views_and_skips(cache: Path, table: Path, tmp_path: Path) -> None:
    done = fc.export_cache(cache, tmp_path / "all.hdf5", views=True)
    with h5py.File(done.file) as file:
        assert set(file["features"]) == {"penultimate", "layer3.0 (none)", "layer3.0 (avg)"}
        maps = file["features/layer3.0 (none)"]
        assert maps.dtype == np.float16
        assert maps.shape[1:] == done.features["features/layer3.0 (none)"]
        assert json.loads(maps.attrs["description"])["pooling"] == "none"
        assert list(file["skipped/path"].asstr()) == ["cup/broken.jpg"]
        assert "not a picture" in file["skipped/reason"].asstr()[0]
        assert set(file["views/standard/0/1"]) == {"penultimate", "layer3.0 (none)"}
    with h5py.File(fc.export_cache(cache, tmp_path / "plain.h5").file) as file:
        assert "views" not in file
    with h5py.File(fc.export_cache(table, tmp_path / "t.h5", views=True).file) as file:
        made = ~np.isnan(file["views/standard/0/1/penultimate"]).any(axis=1)
        assert np.array_equal(made, file["split"].asstr()[:] != "test")


def test_several_labels_none_groups_and_splits(table: Path, tmp_path: Path) -> None:
    read = np.load(fc.export_cache(table, tmp_path / "t.npz").file)
    given = [set(filter(None, label.split(";"))) for label in read["label"]]
    chosen = [set(read["classes"][row]) for row in read["labels"]]
    assert chosen == given
    assert {"+1", "a", "b"} == set(read["classes"])
    assert set() in given
    frame = pd.read_parquet(fc.export_cache(table, tmp_path / "t.parquet").file)
    assert [sorted(codes) for codes in frame.labels] == [
        np.flatnonzero(row).tolist() for row in read["labels"]
    ]
    assert frame.label.isna().tolist() == [not labels for labels in given]
    assert frame.group.tolist() == read["group"].tolist()
    assert set(frame.split) == {"train", "test"}


def test_cleanlab_finds_the_wrong_label(exported: dict[str, Any]) -> None:
    from cleanlab.filter import find_label_issues

    read = np.load(exported["npz"].file)
    assert read["pred_probs"].sum(axis=1) == pytest.approx(1)
    found = find_label_issues(
        read["labels"], read["pred_probs"], return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert read["path"][found[0]] == "cup/wrong.png"
    frame = pd.read_parquet(exported["parquet"].file)
    issues = find_label_issues(
        frame.labels.to_numpy(), np.stack(frame.pred_probs.tolist()), n_jobs=1
    )
    assert frame.path[issues].str.endswith("wrong.png").any()


def test_probabilities_stand_beside_their_pictures(table: Path, tmp_path: Path) -> None:
    identity = fc.probe(table, head="logistic", folds=2, tolerance=0.5, views=1).result
    read = np.load(fc.export_cache(table, tmp_path / "t.npz", result=identity).file)
    _, rows = read_findings(table, identity)
    paths = Cache(table).index.paths
    found = zip(rows["row"], rows["probabilities"], strict=True)
    expected = {paths[int(row)]: probabilities for row, probabilities in found}
    assert set(expected) == set(read["path"][read["label"] != ""])
    for path, given in zip(read["path"], read["pred_probs"], strict=True):
        assert np.array_equal(given, expected.get(path, np.full(3, np.nan)), equal_nan=True)


def test_a_spreadsheet_runs_nothing(exported: dict[str, Any], table: Path, tmp_path: Path) -> None:
    with Path(exported["csv"].file).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"'=cat", "cup"}
    assert all(not row["path"].startswith("=") for row in rows)
    assert "got a ' before them" in exported["csv"].warnings[-1]
    numbers = fc.export_cache(table, tmp_path / "t.csv")
    assert not numbers.warnings
    assert "+1" in set(pd.read_csv(numbers.file, dtype=str).label)


def test_the_pictures_themselves(cache: Path, pictures: Path, tmp_path: Path) -> None:
    done = fc.export_cache(cache, tmp_path / "o.parquet", images="originals")
    frame = pd.read_parquet(done.file)
    for path, image in zip(frame.path_bytes, frame.image, strict=True):
        assert image["bytes"] == (pictures / os.fsdecode(path)).read_bytes()
    known = json.loads(parquet.read_schema(done.file).metadata[b"huggingface"])
    assert known["info"]["features"] == {"image": {"_type": "Image"}}
    small = fc.export_cache(cache, tmp_path / "s.parquet", images="thumbnails")
    first = pd.read_parquet(small.file).image[0]
    assert Image.open(io.BytesIO(first["bytes"])).size == (120, 120)


def test_pictures_that_are_arrays_become_files() -> None:
    source = open_source("digits")
    content = np.frombuffer(content_hash(source.read("0007")), np.uint8)
    expected = np.rint(load_digits().images[7] * 255 / 16)
    for images in ("originals", "thumbnails"):
        file = Image.open(io.BytesIO(picture_file(source, "0007", content, images)))
        assert np.array_equal(np.asarray(file)[..., 0], expected)


def test_a_thumbnail_is_small() -> None:
    source = open_source("digits")
    source.read = lambda path: chelsea()  # type: ignore[method-assign]
    content = np.frombuffer(content_hash(chelsea()), np.uint8)
    made = picture_file(source, "cat", content, "thumbnails")
    assert Image.open(io.BytesIO(made)).size == (256, 170)
    assert len(made) < 30_000


def test_a_changed_or_missing_picture_is_no_one_elses(
    class_folders: Path, extract_light: Any, tmp_path: Path
) -> None:
    made = extract_light(class_folders).cache
    changed = class_folders / "cat" / "00.jpg"
    changed.write_bytes((class_folders / "cat" / "01.jpg").read_bytes())
    with pytest.raises(ExportError, match=r"cat/00\.jpg: it changed since it was extracted"):
        fc.export_cache(made, tmp_path / "x.parquet", images="originals")
    changed.unlink()
    with pytest.raises(ExportError, match=r"cat/00\.jpg: missing: .* without --images"):
        fc.export_cache(made, tmp_path / "x.parquet", images="thumbnails")
    class_folders.rename(tmp_path / "gone")
    with pytest.raises(SourceMissingError):
        fc.export_cache(made, tmp_path / "x.parquet", images="thumbnails")
    assert not list(tmp_path.glob("*x.parquet"))
    assert fc.export_cache(made, tmp_path / "x.parquet").rows == 36


@pytest.mark.parametrize("name", ["npz", "csv"])
def test_blocks_change_nothing(
    exported: dict[str, Any],
    cache: Path,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row by row the same file comes to be, so memory needs to hold no more than a block."""
    monkeypatch.setattr(samples, "_BLOCK_BYTES", 1)
    done = fc.export_cache(cache, tmp_path / f"drinks.{name}")
    assert Path(done.file).read_bytes() == Path(exported[name].file).read_bytes()


def test_blocks_are_of_few_bytes(cache: Path) -> None:
    opened = Cache(cache)
    some = samples.Samples(opened, [opened.stream()])
    for row_bytes in (1, 4 << 20, 1 << 30):
        taken = [np.arange(25)[block] for block in some.blocks(row_bytes)]
        assert np.array_equal(np.concatenate(taken), np.arange(25))
        assert max(map(len, taken)) * row_bytes <= max(32 << 20, row_bytes)


def test_what_is_there_stays(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.npz"
    file.write_bytes(b"mine")
    with pytest.raises(ExportError, match=r"mine\.npz: is there already; .* --overwrite"):
        fc.export_cache(cache, file)
    monkeypatch.setattr("featcache.export.npz._head", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fc.export_cache(cache, file, overwrite=True)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]
    monkeypatch.undo()
    fc.export_cache(cache, file, overwrite=True)
    assert np.load(file)["labels"].shape == (25,)
    assert list(tmp_path.iterdir()) == [file]


def test_what_another_puts_there_meanwhile_stays(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.csv"
    monkeypatch.setattr(
        "featcache.export.caches.write_csv", lambda draft, *_: file.write_bytes(b"theirs") * 0
    )
    with pytest.raises(ExportError, match="is there already"):
        fc.export_cache(cache, file)
    assert file.read_bytes() == b"theirs"


def test_a_full_disk_is_named(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="/dev/full"):
        fc.export_cache(cache, "/dev/full/x.npz")


def test_a_result_of_other_labels_stays_out(
    class_folders: Path, extract_light: Any, tmp_path: Path
) -> None:
    made = extract_light(class_folders).cache
    assert fc.export_cache(made, tmp_path / "none.npz").result is None
    result = fc.probe(made, folds=2, tolerance=0.5).result
    ridge = fc.probe(made, folds=2, head="ridge").result
    with pytest.raises(ExportError, match=f"result '{ridge}' has none; probe with a softmax"):
        fc.export_cache(made, tmp_path / "r.npz", result=ridge)
    assert fc.export_cache(made, tmp_path / "r.npz", result=result).result == result
    assert fc.export_cache(made, tmp_path / "o.npz", result="none").result is None
    with pytest.raises(CacheMissingError, match="no result 'abc'; there are"):
        fc.export_cache(made, tmp_path / "a.npz", result="abc")
    (class_folders / "cat" / "00.jpg").rename(class_folders / "cup" / "99.jpg")
    extract_light(class_folders)
    result = fc.probe(made, folds=2, tolerance=0.5).result
    (class_folders / "cup" / "99.jpg").rename(class_folders / "sky" / "99.jpg")
    extract_light(class_folders)
    with pytest.raises(ExportError, match=r"is of other pictures or labels .* probe again"):
        fc.export_cache(made, tmp_path / "n.npz", result=result)
    (left_out,) = fc.export_cache(made, tmp_path / "n.npz").warnings
    assert left_out.startswith("without held-out probabilities: result ")


def test_what_cannot_be_written_so(cache: Path, tmp_path: Path) -> None:
    wrong = {
        "says none of a cache's formats; give --format, one of npz,": {"file": "x.onnx"},
        "'onnx': a cache is exported as one of npz, parquet,": {"file": "x", "format": "onnx"},
        "is a folder": {"file": ".", "format": "npz"},
        "--views are for": {"file": "x.npz", "views": True},
        "--images are for": {"file": "x.npz", "images": "originals"},
        "images 'all': none of": {"file": "x.parquet", "images": "all"},
        "a CSV holds no --result": {"file": "x.csv", "result": "abc"},
        "no activations of cut 'layer9'": {"file": "x.npz", "cut": "layer9"},
    }
    for says, options in wrong.items():
        with pytest.raises(fc.FeatcacheError, match=says):
            fc.export_cache(cache, **{**options, "file": tmp_path / options["file"]})
    assert not list(tmp_path.iterdir())


def test_a_csv_of_a_map_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.export.table.MOST_COLUMNS", 100)
    with pytest.raises(ExportError, match="columns of features, and a CSV of more than 100"):
        fc.export_cache(cache, tmp_path / "x.csv", cut="layer3.0")


def test_parquet_without_pyarrow_says_what_to_install(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = r"needs pyarrow, not installed; run: pip install 'featcache\[parquet\]'"
    with pytest.raises(MissingExtraError, match=said):
        fc.export_cache(cache, tmp_path / "x.parquet")


def test_a_cache_without_features_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = staticmethod(lambda hashes: np.ones(len(hashes), np.bool_))
    monkeypatch.setattr("featcache.store.cache.StreamReader.is_skipped", nothing)
    with pytest.raises(ExportError, match="drinks: no picture of it has features; extract again"):
        fc.export_cache(cache, tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())
