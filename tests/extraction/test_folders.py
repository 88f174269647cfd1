"""Folders and CSVs on disk through the whole of `extract`: what is computed again, and what not."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import BackboneError, CacheMismatchError, StoredOverflowError
from featcache.extraction import scanning
from featcache.results import ChangeCounts
from featcache.store import journal
from featcache.store.cache import Cache


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait until the clock has moved on from the files' times: this one is fine enough."""
    monkeypatch.setattr(scanning, "SETTLED_NS", 0)
    time.sleep(0.02)  # a kernel's tick, by which it stamps files


def rows(cache: Path) -> dict[str, bytes]:
    opened = Cache(cache)
    reader = opened.stream()
    features = reader.read(reader.positions(opened.index.hashes))
    return {path: row.tobytes() for path, row in zip(opened.index.paths, features, strict=True)}


def test_a_second_run_computes_nothing_and_commits_nothing(
    settled, class_folders, extract_light
) -> None:
    first = extract_light(class_folders)
    assert (first.samples, first.computed, first.reused, first.changes) == (36, 36, 0, None)
    assert first.classes == ("cat", "cup", "sky")
    cache = Path(first.cache)
    told = ("log.jsonl", ".lock")  # which names who holds it
    before = {p: p.stat() for p in cache.rglob("*") if p.is_file() and p.name not in told}
    again = extract_light(class_folders)
    assert (again.computed, again.reused, again.changes) == (0, 36, ChangeCounts())
    assert again.images_per_second == 0
    after = {p: p.stat() for p in cache.rglob("*") if p.is_file() and p.name not in told}
    assert {p: (s.st_mtime_ns, s.st_ino) for p, s in before.items()} == {
        p: (s.st_mtime_ns, s.st_ino) for p, s in after.items()
    }


def test_one_changed_picture_is_one_row(settled, class_folders, extract_light, jpegs) -> None:
    cache = Path(extract_light(class_folders).cache)
    before = rows(cache)
    (class_folders / "cat/03.jpg").write_bytes(jpegs["sky/00.jpg"] + b"\0")
    again = extract_light(class_folders)
    assert (again.computed, again.reused, again.changes.changed) == (1, 35, 1)
    after = rows(cache)
    assert [path for path in before if before[path] != after[path]] == ["cat/03.jpg"]


def test_renamed_copied_and_relabelled_pictures_are_no_work(
    settled, class_folders, extract_light
) -> None:
    cache = Path(extract_light(class_folders).cache)
    before = rows(cache)
    (class_folders / "cat/00.jpg").rename(class_folders / "cat/renamed.jpg")
    (class_folders / "cat/01.jpg").rename(class_folders / "cup/from_cat.jpg")
    shutil.copy(class_folders / "sky/02.jpg", class_folders / "sky/copy.jpg")
    again = extract_light(class_folders)
    assert (again.computed, again.reused, again.samples) == (0, 37, 37)
    assert (again.changes.moved, again.changes.new, again.changes.missing) == (2, 1, 0)
    after = rows(cache)
    assert after["cat/renamed.jpg"] == before["cat/00.jpg"]
    assert after["sky/copy.jpg"] == before["sky/02.jpg"]
    index = Cache(cache).index
    assert index.labels_of(list(index.paths).index("cup/from_cat.jpg")) == ("cup",)


def test_a_class_folder_renamed_is_a_relabelling(settled, class_folders, extract_light) -> None:
    extract_light(class_folders)
    (class_folders / "cup").rename(class_folders / "mug")
    again = extract_light(class_folders)
    assert (again.computed, again.classes) == (0, ("cat", "mug", "sky"))


def test_removed_and_new_pictures(settled, class_folders, extract_light, jpegs) -> None:
    cache = Path(extract_light(class_folders).cache)
    (class_folders / "cat/05.jpg").unlink()
    (class_folders / "dog").mkdir()
    for i in range(3):
        (class_folders / f"dog/{i}.jpg").write_bytes(jpegs["cup/00.jpg"] + bytes([i]))
    again = extract_light(class_folders)
    assert (again.computed, again.reused, again.samples) == (3, 35, 38)
    assert again.classes == ("cat", "cup", "dog", "sky")
    assert "cat/05.jpg" not in rows(cache)
    assert {"dog/0.jpg", "dog/1.jpg", "dog/2.jpg"} <= set(rows(cache))


def test_a_change_of_the_same_size_and_time_is_seen(settled, class_folders, extract_light) -> None:
    extract_light(class_folders)
    path = class_folders / "cat/00.jpg"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert path.stat().st_size == status.st_size
    again = extract_light(class_folders)
    assert (again.computed, again.changes.changed) == (1, 1)


def test_a_touched_picture_is_read_and_not_computed(settled, class_folders, extract_light) -> None:
    first = extract_light(class_folders)
    os.utime(class_folders / "cat/00.jpg", ns=(1, 1))
    hashed: list[tuple[str, int, int]] = []
    again = extract_light(class_folders, progress=lambda *call: hashed.append(call))
    assert hashed == [("hash", 1, 1)]
    assert (again.computed, again.changes) == (0, ChangeCounts())
    assert Cache(Path(first.cache)).index.stats[0, 1] == 1


def test_a_change_right_after_the_scan_is_caught(class_folders, extract_light, jpegs) -> None:
    extract_light(class_folders)
    path = class_folders / "cat/00.jpg"
    path.write_bytes(jpegs["sky/01.jpg"] + b"\0")
    assert extract_light(class_folders).computed == 1


def test_verify_content_reads_every_file(settled, class_folders, extract_light) -> None:
    extract_light(class_folders)
    calls: list[tuple[str, int, int]] = []
    extract_light(class_folders, verify_content=True, progress=lambda *call: calls.append(call))
    assert calls == [("hash", i, 36) for i in range(1, 37)]


def test_a_lost_log_costs_a_reading(settled, class_folders, extract_light) -> None:
    cache = Path(extract_light(class_folders).cache)
    (cache / journal.JOURNAL).unlink()
    calls: list[tuple[str, int, int]] = []
    done = extract_light(class_folders, progress=lambda *call: calls.append(call))
    assert (len(calls), done.computed) == (36, 0)


def test_another_place_is_refused_until_it_is_meant(
    settled, tmp_path, class_folders, extract_light
) -> None:
    extract_light(class_folders)
    moved = class_folders.rename(tmp_path / "elsewhere")
    with pytest.raises(CacheMismatchError, match=r"elsewhere here.*--replace-source"):
        extract_light(moved)
    again = extract_light(moved, replace_source=True)
    assert (again.computed, again.reused) == (0, 36)


def test_other_weights_size_or_network_are_refused_by_name(class_folders, extract_light) -> None:
    extract_light(class_folders)
    for options, named in (
        ({"weights": "random:1"}, "weights: "),
        ({"image_size": 48}, r"preprocessing\.size: \[48, 48\] here, \[32, 32\] there"),
        ({"backbone": "timm/test_convnext"}, "architecture: timm/test_convnext here"),
    ):
        with pytest.raises(CacheMismatchError, match=named):
            extract_light(class_folders, **options)


def test_unlabelled_rows_of_a_csv_are_extracted(tmp_path, class_folders, extract_light) -> None:
    csv = tmp_path / "list.csv"
    csv.write_text(
        "path,label,split,group\n"
        "pictures/cat/00.jpg,cat,train,g1\n"
        "pictures/cup/00.jpg,,train,\n"
        "pictures/sky/00.jpg,sky;blue,test,g1\n"
        "pictures/sky/gone.jpg,sky,test,\n",
        "utf-8",
    )
    done = extract_light(csv)
    assert (done.samples, done.computed) == (4, 3)
    ((skip),) = done.skipped
    assert (skip.path, skip.reason) == (
        "pictures/sky/gone.jpg",
        "missing: there is no such file",
    )
    index = Cache(Path(done.cache)).index
    assert [index.labels_of(i) for i in range(3)] == [("cat",), (), ("sky", "blue")]
    assert index.splits.tolist() == [0, 0, 2]
    assert index.groups.tolist() == [0, -1, 0]


def test_relabelling_a_csv_is_no_work(tmp_path, class_folders, extract_light) -> None:
    csv = tmp_path / "list.csv"
    csv.write_text("path,label\npictures/cat/00.jpg,cat\npictures/cup/00.jpg,cup\n", "utf-8")
    extract_light(csv)
    csv.write_text("path,label\npictures/cat/00.jpg,pet\npictures/cup/00.jpg,cup\n", "utf-8")
    again = extract_light(csv)
    assert (again.computed, again.changes.relabelled) == (0, 1)
    assert again.classes == ("cup", "pet")


def test_twins_are_named_among_the_warnings(class_folders, extract_light) -> None:
    shutil.copy(class_folders / "cat/00.jpg", class_folders / "cup/twin.jpg")
    done = extract_light(class_folders)
    assert any("cat/00.jpg = cup/twin.jpg" in warning for warning in done.warnings)


def test_float16_is_a_stream_beside_float32(class_folders, extract_light) -> None:
    cache = Path(extract_light(class_folders).cache)
    done = extract_light(class_folders, store_dtype="float16")
    assert done.computed == 36
    streams = Cache(cache).manifest.streams.values()
    assert {entry.stream.dtype for entry in streams} == {"float32", "float16"}
    single, half = (
        Cache(cache).reader(entry.stream.key).read(np.arange(36))
        for entry in sorted(streams, key=lambda e: e.stream.dtype, reverse=True)
    )
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, single.astype(np.float16))


def test_what_overflows_float16_names_the_way_out(make_lab) -> None:
    lab = make_lab(range(4))
    lab.stem.shift = 70000.0
    with pytest.raises(StoredOverflowError, match="--store-dtype float32"):
        lab.run(dtype="float16")
    assert lab.run().computed == 4


def test_a_weights_file_that_moved_is_found_where_it_is_now(
    settled, tmp_path, class_folders, extract_light
) -> None:
    import timm
    import torch

    torch.manual_seed(3)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "a.pt")
    cache = Path(extract_light(class_folders, weights=tmp_path / "a.pt").cache)
    (tmp_path / "a.pt").rename(tmp_path / "b.pt")
    assert extract_light(class_folders, weights=tmp_path / "b.pt").computed == 0
    assert Cache(cache).manifest.backbone["locator"]["path"] == str(tmp_path / "b.pt")
    with pytest.raises(BackboneError):
        extract_light(class_folders, weights=tmp_path / "a.pt")


def test_ten_thousand_unchanged_pictures_are_neither_read_nor_computed(
    settled, tmp_path, extract_light, jpegs
) -> None:
    small = min(jpegs.values(), key=len)
    for i in range(10_000):
        path = tmp_path / f"many/class{i % 10}/{i:05d}.jpg"
        if i < 10:
            path.parent.mkdir(parents=True)
        path.write_bytes(small + i.to_bytes(4, "little"))  # what follows a JPEG's end is ignored
    first = extract_light(tmp_path / "many")
    assert (first.computed, first.samples, first.skipped) == (10_000, 10_000, ())
    time.sleep(0.02)
    manifest = (tmp_path / "cache/manifest.json").read_bytes()
    extract_light(tmp_path / "many")
    calls: list[tuple[str, int, int]] = []
    again = extract_light(tmp_path / "many", progress=lambda *call: calls.append(call))
    assert (again.computed, again.reused, calls) == (0, 10_000, [])
    assert again.changes == ChangeCounts()
    assert (tmp_path / "cache/manifest.json").read_bytes() == manifest
