"""Folders and CSVs of strangers: what is no plain file is never opened, and no name is too odd."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from featcache import api
from featcache.store.cache import Cache

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="FIFOs, sockets and names of any bytes are POSIX's"
)


class Watch:
    """What this process opens while it watches, with links resolved."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.watching = False
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event == "open" and isinstance(arguments[0], str | bytes):
            self.opened.append(os.path.realpath(os.fsdecode(arguments[0])))


@pytest.fixture(scope="module")
def watch() -> Watch:
    """One for all tests, since a hook cannot be removed again."""
    return Watch()


@pytest.fixture
def opened(watch: Watch) -> Iterator[list[str]]:
    watch.opened.clear()
    watch.watching = True
    yield watch.opened
    watch.watching = False


@pytest.fixture
def no_files(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """A FIFO, a socket and devices, by the names that pictures have."""
    place = tmp_path / "no-files"
    place.mkdir()
    os.mkfifo(place / "pipe.jpg")
    listening = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(place)  # a socket's path may have 107 bytes
    listening.bind("socket.jpg")
    os.chdir(before)
    yield {
        "pipe.jpg": place / "pipe.jpg",
        "socket.jpg": place / "socket.jpg",
        "zero.jpg": Path("/dev/zero"),
        "tty.jpg": Path("/dev/tty"),
        "null.jpg": Path("/dev/null"),
    }
    listening.close()


@pytest.mark.faults
def test_what_is_no_file_is_never_opened_in_a_folder(
    class_folders: Path,
    no_files: dict[str, Path],
    extract_light: Callable[..., Any],
    opened: list[str],
    tried: Callable[..., None],
) -> None:
    for name, target in no_files.items():
        (class_folders / "cat" / name).symlink_to(target)
    os.mkfifo(class_folders / "cup" / "pipe.png")
    (class_folders / "sky" / "up").symlink_to(class_folders)
    (class_folders / "sky" / "circle").symlink_to("circle")
    (class_folders / "sky" / "circle.jpg").symlink_to("circle.jpg")
    for options in ({}, {"verify_content": True}):
        done = extract_light(class_folders, **options)
        assert done.passed_over["not a regular file"] == len(no_files) + 1
        assert done.passed_over["link to a folder it lies in"] == 1
        assert [skip.path for skip in done.skipped] == ["sky/circle.jpg"]
        assert done.samples == 36 + 1
    assert opened
    assert not set(opened) & {os.path.realpath(path) for path in no_files.values()}
    tried("no plain file in a folder", 2 * (len(no_files) + 4), sees="counted by kind, not opened")


@pytest.mark.faults
def test_what_is_no_file_is_never_opened_from_a_csv(
    tmp_path: Path,
    class_folders: Path,
    no_files: dict[str, Path],
    extract_light: Callable[..., Any],
    opened: list[str],
    tried: Callable[..., None],
) -> None:
    table = tmp_path / "list.csv"
    named = [f"pictures/cat/{i:02d}.jpg,cat" for i in range(3)]
    table.write_text("\n".join(["path,label", *named, *(f"{p},x" for p in no_files.values())]))
    for options in ({}, {"verify_content": True}):
        done = extract_light(table, **options)
        assert {skip.reason for skip in done.skipped} == {"not a regular file"}
        assert len(done.skipped) == len(no_files)
    assert not set(opened) & {os.path.realpath(path) for path in no_files.values()}
    tried("no plain file in a CSV", 2 * len(no_files), sees="not a regular file")


@pytest.mark.faults
def test_predict_opens_no_fifo_and_takes_any_name(
    tmp_path: Path,
    class_folders: Path,
    no_files: dict[str, Path],
    extract_light: Callable[..., Any],
    opened: list[str],
    tried: Callable[..., None],
) -> None:
    cache = extract_light(class_folders).cache
    api.probe(cache, save=tmp_path / "a.fc", folds=2)
    odd = named_oddly(tmp_path / "odd", class_folders)
    found = api.predict(tmp_path / "a.fc", [*no_files.values(), tmp_path / "odd"])
    told = {p.path: p.error for p in found if p.error}
    assert told == {str(path): "not a regular file" for path in no_files.values()}
    assert sorted(p.path for p in found if p.label) == sorted(map(str, odd))
    assert not set(opened) & {os.path.realpath(path) for path in no_files.values()}
    tried("no plain file to predict", len(no_files), sees="not a regular file")


NAMES = [
    "line\nbreak.jpg",
    "\x1b[31mred\x1b[0m.jpg",
    os.fsdecode(b"caf\xe9.jpg"),
    "-rf.jpg",
    "%s{0}$HOME.jpg",
    "case.jpg",
    "CASE.jpg",
    "cAsE.JPG",
    "n" * 251 + ".jpg",
    " .jpg",
]


def named_oddly(folder: Path, pictures: Path) -> list[Path]:
    """A picture of each name, all different."""
    folder.mkdir()
    contents = [p.read_bytes() for p in sorted(pictures.rglob("*.jpg"))]
    for name, content in zip(NAMES, contents, strict=False):
        (folder / name).write_bytes(content)
    return [folder / name for name in NAMES]


@pytest.mark.faults
def test_any_name_of_a_picture_and_of_a_class_is_kept_byte_for_byte(
    tmp_path: Path,
    class_folders: Path,
    extract_light: Callable[..., Any],
    tried: Callable[..., None],
) -> None:
    labels = ["line\nbreak", os.fsdecode(b"\xff\xfe"), "Case", "case", "l" * 255]
    root = tmp_path / "odd"
    root.mkdir()
    for label in labels:
        named_oddly(root / label, class_folders)
    done = extract_light(root)
    assert (done.samples, done.computed, done.skipped) == (50, len(NAMES), ())
    assert sorted(done.classes) == sorted(labels)
    index = Cache(Path(done.cache)).index
    assert set(index.paths) == {f"{label}/{name}" for label in labels for name in NAMES}
    for row, path in enumerate(index.paths):
        assert index.labels_of(row) == (path.partition("/")[0],)
    assert all(warning.isprintable() for warning in done.warnings)
    assert extract_light(root).computed == 0
    tried("names of any bytes", len(labels) * len(NAMES), sees="rows and labels as named")
