"""A folder of hostile names, a cache of it, results of every kind, and what their pages say."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache import api
from featcache.report import write_report
from featcache.results import ProbeResult

SCRIPT = "<script>alert(1)</script>"
CLASSES = (SCRIPT, 'cup & "saucer"', "sky")
"""Labels, each cut from a photo of its own."""

QUICK: dict[str, Any] = {"folds": 2, "tolerance": 0.5}
_VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """What a page says, by element: tags with their attributes, texts by id, tables as rows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.source = path, path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(self.source)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag in _VOID or (self._open and self._open[-1][0] == "svg" and tag == "line"):
            return
        identity = given.get("id")
        self._open.append((tag, identity))
        if identity:
            self.texts[identity] = ""
        table = self._table()
        if table and tag == "tr":
            self.tables.setdefault(table, []).append([])
        if table and tag in ("td", "th"):
            self.tables[table][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag, (tag, self._open)

    def handle_data(self, data: str) -> None:
        for _, identity in self._open:
            if identity:
                self.texts[identity] += data
        table = self._table()
        if table and any(tag in ("td", "th") for tag, _ in self._open):
            self.tables[table][-1][-1] += data

    def _table(self) -> str | None:
        return next((identity for tag, identity in self._open if tag == "table" and identity), None)

    def sections(self) -> list[str]:
        return [a["id"] or "" for tag, a in self.tags if tag == "section" and "id" in a]

    def images(self) -> list[Image.Image]:
        import base64

        uris = [a["src"] or "" for tag, a in self.tags if tag == "img"]
        return [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in uris]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, photos: list[Image.Image]) -> Path:
    """A CSV of 62 crops of three photos; some labels are wrong, some pictures there twice."""
    root = tmp_path_factory.mktemp("hostile")
    rows: list[tuple[str, str]] = []
    for k, (label, photo) in enumerate(
        zip(CLASSES, (photos[1], photos[2], photos[4]), strict=True)
    ):
        for i, (x, y) in enumerate(np.random.default_rng(k).integers(190, size=(20, 2)).tolist()):
            name = f"{k}-{i:02}.jpg" if i else f'{k}"><script>alert(2)<script>.jpg'
            photo.crop((x, y, x + 90, y + 70)).save(root / name)
            rows.append((name, CLASSES[1] if (k, i) == (2, 5) else label))
    (root / "copy.jpg").write_bytes((root / "0-03.jpg").read_bytes())
    (root / "again.jpg").write_bytes((root / "1-04.jpg").read_bytes())
    rows += [("copy.jpg", "sky"), ("again.jpg", CLASSES[1])]
    return _table(root / "pictures.csv", rows)


def _table(path: Path, rows: list[tuple[str, ...]], *more: str) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", *more), *rows])
    return path


@pytest.fixture(scope="session")
def cache(pictures: Path, light: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the pictures, with an inner cut; read only, but for findings."""
    out = tmp_path_factory.mktemp("caches") / "hostile names"
    api.extract(pictures, out=out, cuts=("layer3.0",), tta=2, **light)
    return out


@pytest.fixture(scope="session")
def several(
    pictures: Path, light: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A cache of pictures with several labels."""
    out = tmp_path_factory.mktemp("caches") / "several"
    with pictures.open(newline="") as file:
        rows = [
            (str(pictures.parent / path), f"{label};red" if k % 4 < 2 else label)
            for k, (path, label) in enumerate(list(csv.reader(file))[1:])
        ]
    api.extract(_table(out.parent / "several.csv", rows), out=out, **light)
    return out


@pytest.fixture(scope="session")
def split(pictures: Path, light: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of pictures of which a third are marked test."""
    out = tmp_path_factory.mktemp("caches") / "split"
    with pictures.open(newline="") as file:
        rows = [
            (str(pictures.parent / path), label, "test" if k % 3 == 0 else "train")
            for k, (path, label) in enumerate(list(csv.reader(file))[1:])
        ]
    api.extract(_table(out.parent / "split.csv", rows, "split"), out=out, **light)
    return out


@pytest.fixture(scope="session")
def probed(cache: Path) -> ProbeResult:
    """Everything that a quick probe can be asked."""
    options: dict[str, Any] = {"shots": (1, 2, None), "seeds": 2, "suspects": 5}
    return api.probe(cache, cut="all", tta="mean", **options, **QUICK)


@pytest.fixture(scope="session")
def page(probed: ProbeResult, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("pages") / "report.html"
    write_report(probed, path)
    return Page(path)


@pytest.fixture
def page_of(tmp_path: Path) -> Callable[..., Page]:
    """Write the page of a result, without a map unless told otherwise."""

    def write(result: Any, **options: Any) -> Page:
        path = tmp_path / "page.html"
        write_report(result, path, **{"points": 0, **options})
        return Page(path)

    return write
