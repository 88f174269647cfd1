"""Whatever decides a value and has changed is computed again, or refused with its field named."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from featcache import api
from featcache.backbones import timm_networks
from featcache.errors import CacheDamagedError, CacheMismatchError
from featcache.extraction import scanning
from featcache.images import folders
from featcache.images.listing import StatKey
from featcache.recipe import Preprocessing, Recipe
from featcache.results import ChangeCounts
from featcache.store import documents
from featcache.store.cache import Cache

Change = Callable[[dict[str, Any], pytest.MonkeyPatch], None]

NETWORK = "timm/test_resnet"
GIVEN = Preprocessing((32, 32), (36,), (0.5,) * 3, (0.25,) * 3)
YEAR = 365 * 86_400 * 10**9


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait until the clock has moved on from the files' times: this one is fine enough."""
    monkeypatch.setattr(scanning, "SETTLED_NS", 0)
    time.sleep(0.02)  # a kernel's tick, by which it stamps files


def another(**changes: Any) -> Change:
    return lambda options, _: options.update(changes)


def other_tensor(name: str) -> Change:
    """The weights' file holds another number in one tensor, by the least there is."""

    def change(options: dict[str, Any], _: pytest.MonkeyPatch) -> None:
        state = torch.load(options["weights"], weights_only=True)
        flat = state[name].reshape(-1)
        flat[0] = torch.nextafter(flat[0], flat[0] + 1) if flat.is_floating_point() else flat[0] + 1
        torch.save(state, options["weights"])

    return change


def other_default(**changes: Any) -> Change:
    """A new version of timm publishes another transform under the same name."""

    def change(options: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
        published = timm_networks.TimmOrigin.preprocessing

        def newer(origin: Any, image_size: int | None = None) -> Preprocessing:
            return replace(published(origin, image_size), **changes)

        patch.setattr(timm_networks.TimmOrigin, "preprocessing", newer)

    return change


REFUSED: dict[str, tuple[Change, str]] = {
    "one weight": (other_tensor("conv1.0.weight"), "weights: "),
    "one BatchNorm mean": (other_tensor("bn1.running_mean"), "weights: "),
    "one BatchNorm variance": (other_tensor("layer1.0.bn1.running_var"), "weights: "),
    "random weights": (another(weights="random:7"), "weights: "),
    "another network": (another(backbone="timm/test_convnext", weights="random"), "architecture: "),
    "image size": (another(image_size=48), r"preprocessing\.size: \[48, 48\] here, \[32, 32\]"),
    "mean": (
        another(preprocessing=replace(GIVEN, mean=(0.5, 0.5, 0.4))),
        r"preprocessing\.mean: \[0\.5, 0\.5, 0\.4\] here",
    ),
    "filter": (
        another(preprocessing=replace(GIVEN, interpolation="lanczos")),
        r"preprocessing\.interpolation: lanczos here, \w+ there",
    ),
    "default filter": (
        other_default(interpolation="box"),
        r"preprocessing\.interpolation: box here",
    ),
    "default crop": (other_default(resize=(32,)), r"preprocessing\.resize: \[32\] here"),
    "default scale": (other_default(std=(0.3,) * 3), r"preprocessing\.std: "),
    "decoder": (another(fast_decode=True), "decoder: pillow-draft here, pillow there"),
    "precision": (another(precision="bf16"), "precision: bf16 here, fp32 there"),
}


def test_every_field_of_a_recipe_is_tried() -> None:
    named = " ".join(pattern for _, pattern in REFUSED.values()).replace("\\", "")
    names = {f.name for f in fields(Recipe)} - {"calibration"}  # int8's, see test_calibrating
    assert all(f"{name}: " in named or f"{name}." in named for name in names)


@pytest.mark.faults
@pytest.mark.parametrize("what", REFUSED)
def test_another_recipe_is_refused_by_its_field_and_changes_nothing(
    tmp_path: Path,
    class_folders: Path,
    extract_light: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tried: Callable[..., None],
    what: str,
) -> None:
    torch.manual_seed(3)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "a.pt")
    options: dict[str, Any] = {"backbone": NETWORK, "weights": tmp_path / "a.pt"}
    if what in ("mean", "filter"):
        options |= {"preprocessing": GIVEN, "image_size": None}
    cache = Path(extract_light(class_folders, **options).cache)
    before = {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()}
    change, field = REFUSED[what]
    change(options, monkeypatch)
    with pytest.raises(CacheMismatchError, match=f"{field}.*--out"):
        extract_light(class_folders, **options)
    assert {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()} == before
    if what.startswith("one "):
        assert any("weights: " in line for line in api.info(cache).staleness.recipe)
    tried("another recipe", 1, sees="refused, the differing field named")


@pytest.mark.parametrize("policy", ["exif", "alpha", "cmyk", "deep", "frame"])
def test_a_cache_of_another_policy_is_refused_by_its_field(
    class_folders: Path, extract_light: Callable[..., Any], policy: str
) -> None:
    """As a later version may write it; one that does not know that policy must not use it."""
    cache = Path(extract_light(class_folders).cache)
    body, _ = documents.decode((cache / "manifest.json").read_bytes())
    body["recipe"]["preprocessing"][policy] = "ignore"
    (cache / "manifest.json").write_bytes(documents.encode(body))
    for use in (lambda: extract_light(class_folders), lambda: Cache(cache)):
        with pytest.raises(CacheDamagedError, match=f"preprocessing: {policy} must be"):
            use()


def test_a_turned_picture_is_computed_again(
    settled: None, class_folders: Path, extract_light: Callable[..., Any]
) -> None:
    """Its EXIF orientation alone changes, not a byte of its pixels."""
    cache = Path(extract_light(class_folders).cache)
    path = class_folders / "cat/00.jpg"
    content, (before,) = path.read_bytes(), features(cache, "cat/00.jpg")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"
    path.write_bytes(
        content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]
    )
    assert extract_light(class_folders).computed == 1
    (after,) = features(cache, "cat/00.jpg")
    assert not np.array_equal(before, after)


def features(cache: Path, *paths: str) -> np.ndarray:
    opened = Cache(cache)
    rows = [list(opened.index.paths).index(path) for path in paths]
    reader = opened.stream()
    return reader.read(reader.positions(opened.index.hashes[rows]))


def test_a_class_added_and_one_removed(
    settled: None, class_folders: Path, extract_light: Callable[..., Any], tmp_path: Path
) -> None:
    cache = Path(extract_light(class_folders).cache)
    shutil.move(class_folders / "sky", tmp_path / "away")
    gone = extract_light(class_folders)
    assert (gone.classes, gone.samples, gone.computed) == (("cat", "cup"), 24, 0)
    assert not any(path.startswith("sky/") for path in Cache(cache).index.paths)
    shutil.move(tmp_path / "away", class_folders / "air")
    back = extract_light(class_folders)
    assert (back.classes, back.samples, back.computed) == (("air", "cat", "cup"), 36, 0)
    assert (back.changes.new, back.changes.missing) == (12, 0)


def replaced_in_place(path: Path) -> None:
    """Other bytes of the same number, and the time of the last change set back."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_file_of_the_same_size_and_times_in_its_place_is_seen_by_its_inode(
    settled: None,
    class_folders: Path,
    extract_light: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = class_folders / "cat/00.jpg"
    before = path.stat()
    same_change_time(monkeypatch, before.st_ctime_ns, inode=None)
    extract_light(class_folders)
    other = path.with_name("other")
    shutil.copy2(path, other)
    replaced_in_place(other)
    other.rename(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino != before.st_ino
    again = extract_light(class_folders)
    assert (again.computed, again.changes) == (1, ChangeCounts(changed=1))


def same_change_time(patch: pytest.MonkeyPatch, ctime_ns: int, inode: int | None) -> None:
    """What no program can do to a file and a faulty disk or a restored image can."""
    real = folders.stat_key

    def restored(status: os.stat_result) -> StatKey:
        key = real(status)
        return key._replace(ctime_ns=ctime_ns, inode=inode or key.inode)

    patch.setattr(folders, "stat_key", restored)


def test_only_verify_content_sees_what_restored_every_stamp(
    settled: None,
    class_folders: Path,
    extract_light: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = class_folders / "cat/00.jpg"
    same_change_time(monkeypatch, path.stat().st_ctime_ns, inode=7)
    extract_light(class_folders)
    replaced_in_place(path)
    assert extract_light(class_folders).computed == 0
    again = extract_light(class_folders, verify_content=True)
    assert (again.computed, again.changes) == (1, ChangeCounts(changed=1))


@pytest.mark.faults
@pytest.mark.parametrize(("first", "second"), [(0, -YEAR), (YEAR, 0), (YEAR, -YEAR), (-YEAR, YEAR)])
def test_a_clock_set_back_or_ahead_serves_nothing_stale(
    class_folders: Path,
    extract_light: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tried: Callable[..., None],
    first: int,
    second: int,
) -> None:
    clock = time.time_ns
    time.sleep(0.02)
    monkeypatch.setattr(scanning.time, "time_ns", lambda: clock() + first)
    extract_light(class_folders)
    replaced_in_place(class_folders / "cat/00.jpg")
    monkeypatch.setattr(scanning.time, "time_ns", lambda: clock() + second)
    again = extract_light(class_folders)
    assert (again.computed, again.changes) == (1, ChangeCounts(changed=1))
    replaced_in_place(class_folders / "cat/01.jpg")
    assert extract_light(class_folders).computed == 1
    tried("clock set back or ahead", 2, sees="the changed picture computed again")
