"""Pictures in the page: upright, small, in bounds, and only those that were probed."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache import api
from featcache.report import pictures as room
from featcache.report.pictures import SIDE, TILE, Pictures
from featcache.store.cache import Cache

Page = Any
"""What a page says; see `Page` in the fixtures."""

QUICK: dict[str, Any] = {"folds": 2, "tolerance": 0.5}


@pytest.fixture
def own(pictures: Path, light: dict[str, Any], tmp_path: Path) -> tuple[Path, Path]:
    """Pictures of one's own to change, and their probed cache."""
    folder, out = tmp_path / "own", tmp_path / "cache"
    shutil.copytree(pictures.parent, folder)
    api.extract(folder / "pictures.csv", out=out, **light)
    api.probe(out, **QUICK)
    return folder, out


def opened(uri: str | None) -> Image.Image:
    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_pictures_that_are_gone_leave_a_note(
    own: tuple[Path, Path], page_of: Callable[..., Page]
) -> None:
    folder, cache = own
    with_pictures = page_of(cache, points=20)
    assert len(with_pictures.images()) > 3
    shutil.rmtree(folder)
    page = page_of(cache, points=20)
    assert page.texts["class-scores"] == with_pictures.texts["class-scores"]
    assert page.images() == []
    assert "the pictures are gone" in page.texts["mistakes"]
    assert "No pictures." in page.source
    assert "url(" not in page.source


def test_a_changed_picture_is_not_shown(
    own: tuple[Path, Path], page_of: Callable[..., Page]
) -> None:
    folder, cache = own
    before = len(page_of(cache).images())
    for path in folder.glob("*.jpg"):
        with path.open("ab") as file:
            file.write(b"\0")
    page = page_of(cache)
    assert before > 3
    assert page.images() == []
    assert "changed since it was probed" in page.texts["mistakes"]
    assert f"{before} of {before} pictures could not be shown" in page.source


def test_pictures_that_left_the_cache_are_named_by_their_hash(
    own: tuple[Path, Path], light: dict[str, Any], page_of: Callable[..., Page]
) -> None:
    folder, cache = own
    table = folder / "pictures.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:1] + lines[11:]))
    api.extract(table, out=cache, **light)
    page = page_of(cache, points=100)
    first = hashlib.sha256((folder / "0-01.jpg").read_bytes()).hexdigest()
    assert f"{first[:12]}…" in page.texts["map"]
    assert "no longer in the cache" in page.texts["map"]


def test_a_thumbnail_is_upright_and_small(pictures: Path, cache: Path) -> None:
    wide = np.zeros((60, 240, 3), np.uint8)
    wide[:, :120] = (250, 10, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # the left side is up when it is turned a quarter to the right
    path = pictures.parent / "turned.jpg"
    Image.fromarray(wide).save(path, quality=95, exif=exif.tobytes())
    made = Pictures(Cache(cache)).thumbnail((path.name, hashlib.sha256(path.read_bytes()).digest()))
    shown = opened(made.uri)
    assert shown.size == (made.width, made.height) == (24, SIDE)
    assert np.abs(np.asarray(shown.convert("RGB"))[10, 12] - np.array([250, 10, 10])).max() < 30
    assert np.asarray(shown.convert("RGB"))[-10].max() < 30
    assert "exif" not in shown.info


def test_a_sheet_has_each_picture_in_its_tile(pictures: Path, cache: Path) -> None:
    folder = pictures.parent
    names = [f"{k}-{i:02}.jpg" for k in range(3) for i in range(1, 4)]
    wanted = [(n, hashlib.sha256((folder / n).read_bytes()).digest()) for n in names]
    wanted[4] = ("missing.jpg", wanted[4][1])
    sheet = Pictures(Cache(cache)).sheet(wanted)
    assert (sheet.columns, sheet.rows, list(sheet.reasons)) == (3, 3, [4])
    pixels = np.asarray(opened(sheet.uri).convert("RGBA"), np.float64)
    for number, name in enumerate(names):
        top, left = TILE * (number // 3), TILE * (number % 3)
        tile = pixels[top : top + TILE, left : left + TILE]
        if number == 4:
            assert not tile[..., 3].any()
            continue
        small = Image.open(folder / name).resize((TILE, 50), Image.Resampling.LANCZOS)
        middle = tile[8:56, 1:-1, :3]
        assert np.abs(middle - np.asarray(small, np.float64)[1:49, 1:-1]).mean() < 12


def test_a_sheet_is_bounded_in_bytes(
    pictures: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    wanted = []
    for number in range(16):
        path = pictures.parent / f"noise-{number}.png"
        Image.fromarray(rng.integers(256, size=(90, 90, 3), dtype=np.uint8)).save(path)
        wanted.append((path.name, hashlib.sha256(path.read_bytes()).digest()))
    made = Pictures(Cache(cache))
    sizes = []
    for limit in (1_000_000, 30_000, 1_000):
        monkeypatch.setattr(room, "_SHEET_BYTES", limit)
        uri = made.sheet(wanted).uri
        sizes.append(None if uri is None else len(uri) * 3 // 4)
    assert sizes[0] > 30_000 >= sizes[1] > 1_000  # coarser, until it fits
    assert sizes[2] is None
