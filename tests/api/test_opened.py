"""Features as arrays: the rows that h5py finds, beside their own labels, without a copy."""

from __future__ import annotations

import copy
import csv
import dataclasses
import hashlib
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

import featcache as fc
from featcache.errors import CacheIncompleteError, CacheMissingError, ProbeError

UNIT = "layer1.0"


@pytest.fixture(scope="module")
def split(folders: Path, light: dict[str, Any], tmp_path_factory: Any) -> fc.ExtractedCache:
    """A cache in four shards a stream, of three splits and one label that is not given."""
    table = folders.parent / "split.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        for number, path in enumerate(sorted(folders.glob("*/*.jpg"))):
            label = "" if number == 7 else path.parent.name
            where = ("train", "val", "test")[number % 3]
            writer.writerow([path.relative_to(table.parent), label, where, path.stem[:-3]])
    out = tmp_path_factory.mktemp("opened") / "split"
    options = {"cuts": (UNIT,), "pooling": "none", "views": 3, "batch_size": 16}
    return fc.extract(table, out=out, shard_rows=32, **options, **light)


def rows_on_disk(cache: Any, shape: tuple[int, ...]) -> dict[bytes, np.ndarray]:
    """By content, what h5py reads of the plain rows of a shape: the first stream that has it."""
    for stream in sorted(Path(cache, "shards").iterdir()):
        found: dict[bytes, np.ndarray] = {}
        for shard in sorted(stream.glob("*.h5")):
            with h5py.File(shard) as file:
                if file["features"].shape[1:] != shape or b'"policy":"none"' not in bytes(
                    file.attrs["stream"]
                ):
                    break
                contents = [row.tobytes() for row in file["hashes"][:]]
                found |= dict(zip(contents, file["features"][:], strict=True))
        if found:
            return found
    raise AssertionError(f"no rows of {shape}")


@pytest.mark.parametrize("cut", ["penultimate", UNIT])
@pytest.mark.parametrize("part", [None, "train", "val", "test"])
def test_each_row_is_that_of_its_path_and_label(
    split: fc.ExtractedCache, folders: Path, cut: str, part: str | None
) -> None:
    rows, labels = split.features(part, cut=cut), split.labels(part)
    paths, matrix = split.paths(part), split.label_matrix(part)
    disk = rows_on_disk(split, split.open().cuts[cut].shape)
    assert len(rows) == len(labels) == len(paths) == len(matrix) == (117 if part is None else 39)
    for row, path, label, has in zip(rows, paths, labels, matrix, strict=True):
        file = folders.parent / path
        np.testing.assert_array_equal(row, disk[hashlib.sha256(file.read_bytes()).digest()])
        assert label in (None, file.parent.name)
        assert [c for c, of in zip(split.classes, has, strict=True) if of] == (
            [label] * (label is not None)
        )
    if part:
        numbers = [sorted(folders.glob("*/*.jpg")).index(folders.parent / p) for p in paths]
        assert {n % 3 for n in numbers} == {("train", "val", "test").index(part)}


def test_one_file_is_given_as_it_lies(extracted: fc.ExtractedCache) -> None:
    rows = extracted.features()
    assert isinstance(rows, np.ndarray)
    assert not rows.flags.owndata
    assert not rows.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 1
    assert np.shares_memory(rows, extracted.open().features())
    assert np.shares_memory(rows[:5], extracted.features("train"))  # nothing is marked: all train
    assert list(extracted.splits()) == ["none"] * 117


def test_rows_of_several_files_take_no_memory(split: fc.ExtractedCache) -> None:
    opened = fc.open_cache(split)
    opened.labels()
    tracemalloc.start()
    rows = opened.features("train", cut=UNIT)
    some = rows[[3, 1]]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = int(np.prod(rows.shape)) * rows.dtype.itemsize
    assert isinstance(rows, fc.FeatureRows)
    assert peak < size / 4
    np.testing.assert_array_equal(some, np.asarray(rows)[[3, 1]])


def test_views_stand_on_an_axis_of_their_own(split: fc.ExtractedCache) -> None:
    rows = split.features("train", views=None)
    assert rows.shape == (39, 3, 96)
    np.testing.assert_array_equal(rows[:, 0], split.features("train"))
    assert not np.array_equal(rows[:, 1], rows[:, 2])
    np.testing.assert_array_equal(
        split.features("val", views=2)[:, 1], split.features("val", views=3)[:, 1]
    )
    with pytest.raises(CacheIncompleteError, match="marked test have the plain view alone"):
        split.features(views=2)
    with pytest.raises(ProbeError, match="4 views asked for"):
        split.features("train", views=4)


def test_scikit_learn_takes_the_rows_as_they_are(split: fc.ExtractedCache) -> None:
    rows, labels = split.features("test"), split.labels("test")
    assert isinstance(rows, fc.FeatureRows)
    head, other = (LogisticRegression().fit(x, labels) for x in (rows, np.asarray(rows)))
    np.testing.assert_array_equal(head.coef_, other.coef_)
    np.testing.assert_array_equal(head.predict(rows), other.predict(np.asarray(rows)))
    groups = split.groups("test")
    assert len(np.unique(groups)) == 9
    for train, held_out in GroupKFold(3).split(rows, labels, groups):
        assert not set(groups[train]) & set(groups[held_out])


def test_what_is_not_there_is_named(split: fc.ExtractedCache, extracted: fc.ExtractedCache) -> None:
    with pytest.raises(CacheMissingError, match=r"no picture of split 'test'; .* none \(117\)"):
        extracted.features("test")
    with pytest.raises(CacheMissingError, match=r"split 'dev'; .* test \(39\), train \(39\)"):
        split.labels("dev")
    with pytest.raises(CacheMissingError, match="no activations of cut 'layer9'"):
        split.features(cut="layer9")
    with pytest.raises(CacheMissingError):
        fc.open_cache("nowhere")


def test_several_labels_are_a_matrix(folders: Path, light: dict[str, Any], tmp_path: Path) -> None:
    lines = ["path,label"]
    for i, path in enumerate(sorted(folders.glob("sky/*.jpg"))):
        lines.append(f"{path},{('a', 'a;b', 'b')[i % 3]}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    cache = fc.extract(tmp_path / "t.csv", out=tmp_path / "c", **light)
    with pytest.raises(ProbeError, match=r"13 of 39 pictures have several labels; .*label_matrix"):
        cache.labels()
    order = [sorted(folders.glob("sky/*.jpg")).index(Path(path)) % 3 for path in cache.paths()]
    expected = np.array([[1, 0], [1, 1], [0, 1]], bool)[order]
    np.testing.assert_array_equal(cache.label_matrix(), expected)


def test_twins_stand_twice_and_together(
    folders: Path, light: dict[str, Any], tmp_path: Path
) -> None:
    for label in ("a", "b"):
        (tmp_path / "p" / label).mkdir(parents=True)
        for i in range(3):
            content = (folders / "sky" / f"moon-0{i}.jpg").read_bytes()
            (tmp_path / "p" / label / f"{i}.jpg").write_bytes(content)
    cache = fc.extract(tmp_path / "p", out=tmp_path / "c", **light)
    rows, groups = np.asarray(cache.features()), cache.groups()
    assert rows.shape[0] == 6
    for i, path in enumerate(cache.paths()):
        twin = cache.paths().index(("b" if path[0] == "a" else "a") + path[1:])
        np.testing.assert_array_equal(rows[i], rows[twin])
        assert groups[i] == groups[twin]
    assert len(np.unique(groups)) == 3


def test_what_was_opened_stays_as_it_was(
    class_folders: Path, light: dict[str, Any], tmp_path: Path
) -> None:
    cache = fc.extract(class_folders, out=tmp_path / "c", **light)
    before, paths = np.array(cache.features()), cache.paths()
    (class_folders / "cat" / "00.jpg").unlink()
    (class_folders / "cat" / "11.jpg").rename(class_folders / "cup" / "moved.jpg")
    again = fc.extract(class_folders, out=tmp_path / "c", **light)
    np.testing.assert_array_equal(cache.features(), before)
    assert cache.paths() == paths
    assert len(again.paths()) == len(paths) - 1
    assert "cup/moved.jpg" in again.paths()


def test_it_is_kept_and_copied_like_any_record(extracted: fc.ExtractedCache) -> None:
    extracted.features()
    for again in (pickle.loads(pickle.dumps(extracted)), copy.deepcopy(extracted)):
        assert again == extracted
        np.testing.assert_array_equal(again.features(), extracted.features())
    opened = pickle.loads(pickle.dumps(extracted.open()))
    assert (len(opened), opened.paths()) == (117, extracted.paths())
    assert dataclasses.replace(extracted, samples=3).features().shape == (117, 96)
    plain = dataclasses.asdict(extracted)["features"]
    assert plain["penultimate"]["shape"] == (96,)
    with pytest.raises(TypeError, match="shapes alone"):
        plain()


def test_an_opened_cache_goes_where_its_path_goes(extracted: fc.ExtractedCache) -> None:
    opened = fc.open_cache(extracted)
    assert fc.probe(opened, folds=2, tolerance=0.5).cache == extracted.cache
    assert fc.info(opened).samples == len(opened) == 117
