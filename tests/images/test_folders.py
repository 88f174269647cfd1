"""Folders of pictures, as people lay them out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import PictureError, SourceError, SourceMissingError
from featcache.images.files import PICTURE_SUFFIXES
from featcache.images.folders import FolderSource

Write = Callable[..., Path]


def test_class_folders(class_folders: Path) -> None:
    source = FolderSource(class_folders)
    listing = source.scan()
    assert source.name == "pets"
    assert source.locator == {"kind": "folder", "location": str(class_folders)}
    assert [(s.path, s.labels) for s in listing.samples] == [
        ("cat/1.jpg", ("cat",)),
        ("cat/2.PNG", ("cat",)),
        ("cat/kittens/3.webp", ("cat",)),
        ("dog/1.jpeg", ("dog",)),
        ("dog/2.bmp", ("dog",)),
        ("dog/3.tif", ("dog",)),
    ]
    assert all(s.split is None and s.group is None for s in listing.samples)
    assert (listing.passed_over, listing.skips, listing.warnings) == ({}, [], ())


def test_stat_key_is_the_files_own(class_folders: Path) -> None:
    first = FolderSource(class_folders).scan().samples[0]
    status = (class_folders / "cat/1.jpg").stat()
    expected = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    assert first.stat == expected


def test_read_gives_the_files_bytes(class_folders: Path) -> None:
    source = FolderSource(class_folders)
    assert source.read("dog/2.bmp") == (class_folders / "dog/2.bmp").read_bytes()


@pytest.mark.parametrize("path", ["../mine.jpg", "cat/../../mine.jpg", "/etc/passwd"])
def test_nothing_outside_the_folder_is_read(class_folders: Path, path: str) -> None:
    """An index may come from a stranger, and name any path."""
    (class_folders.parent / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(PictureError, match="not below the folder of pictures"):
        FolderSource(class_folders).read(path)


def test_sorted_by_bytes_of_the_whole_path(tmp_path: Path, write_picture: Write) -> None:
    for name in ["b/1.jpg", "a/z.jpg", "a/é.jpg", "a.b/1.jpg", "a/Z.jpg", "a/sub/1.jpg"]:
        write_picture(tmp_path / name)
    paths = [s.path for s in FolderSource(tmp_path).scan().samples]
    assert paths == sorted(paths, key=os.fsencode)
    assert paths[0] == "a.b/1.jpg"


@pytest.mark.parametrize("suffix", [*PICTURE_SUFFIXES, ".JPG", ".Tiff"])
def test_every_picture_suffix(tmp_path: Path, suffix: str) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"x{suffix}").touch()
    assert len(FolderSource(tmp_path).scan().samples) == 2


def test_what_is_passed_over_is_counted(tmp_path: Path, write_picture: Write) -> None:
    for name in ["cat/1.jpg", "dog/1.jpg", "beside.jpg", ".hidden/1.jpg", "cat/.2.jpg"]:
        write_picture(tmp_path / name)
    write_picture(tmp_path / "__MACOSX" / "cat" / "1.jpg")
    for name in ["cat/Thumbs.db", "cat/desktop.ini", "cat/notes.txt", "README.md", "cat/jpg"]:
        (tmp_path / name).touch()
    listing = FolderSource(tmp_path).scan()
    assert [s.path for s in listing.samples] == ["cat/1.jpg", "dog/1.jpg"]
    assert listing.passed_over == {"hidden": 5, "not a picture": 3, "outside class folders": 1}
    assert any("beside the class folders, passed over: 1" in w for w in listing.warnings)


def test_fifos_are_never_opened(tmp_path: Path, write_picture: Write) -> None:
    write_picture(tmp_path / "cat/1.jpg")
    os.mkfifo(tmp_path / "cat/pipe.jpg")
    source = FolderSource(tmp_path)
    assert source.scan().passed_over == {"not a regular file": 1}
    with pytest.raises(PictureError, match="not a regular file"):
        source.read("cat/pipe.jpg")


def test_links(tmp_path: Path, write_picture: Write) -> None:
    target = write_picture(tmp_path / "elsewhere/1.jpg")
    root = tmp_path / "data"
    write_picture(root / "cat/1.jpg")
    (root / "cat/linked.jpg").symlink_to(target)
    (root / "dog").symlink_to(target.parent)
    (root / "cat/broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "cat/circle.jpg").symlink_to("circle.jpg")
    listing = FolderSource(root).scan()
    assert [s.path for s in listing.samples] == ["cat/1.jpg", "cat/linked.jpg", "dog/1.jpg"]
    linked = listing.samples[1].stat
    assert linked is not None
    assert linked.inode == target.stat().st_ino
    assert [path for path, _ in listing.skips] == ["cat/broken.jpg", "cat/circle.jpg"]
    assert listing.skips[0][1] == "missing: there is no such file"
    assert listing.skips[1][1].startswith("unreadable: ")


def test_a_link_back_ends_the_walk(tmp_path: Path, write_picture: Write) -> None:
    write_picture(tmp_path / "cat/1.jpg")
    write_picture(tmp_path / "dog/1.jpg")
    (tmp_path / "cat/sub").mkdir()
    (tmp_path / "cat/sub/up").symlink_to(tmp_path / "cat")
    (tmp_path / "dog/root").symlink_to(tmp_path)
    listing = FolderSource(tmp_path).scan()
    assert [s.path for s in listing.samples] == ["cat/1.jpg", "dog/1.jpg"]
    assert listing.passed_over == {"link to a folder it lies in": 2}


def test_one_folder_linked_into_two_splits_is_listed_in_both(
    tmp_path: Path, write_picture: Write
) -> None:
    shared = write_picture(tmp_path / "elsewhere/1.jpg").parent
    for split in ("train", "test"):
        write_picture(tmp_path / "data" / split / "dog/1.jpg")
        (tmp_path / "data" / split / "cat").symlink_to(shared)
    assert len(FolderSource(tmp_path / "data").scan().samples) == 4


@pytest.mark.parametrize(
    "name", ["line\nbreak.jpg", os.fsdecode(b"caf\xe9.jpg"), "日本.jpg", 'a;b,".jpg']
)
def test_unusual_names(tmp_path: Path, write_picture: Write, name: str) -> None:
    for label in ("c\nat", os.fsdecode(b"d\xff")):
        write_picture(tmp_path / label / name)
    source = FolderSource(tmp_path)
    listing = source.scan()
    assert {s.path for s in listing.samples} == {f"c\nat/{name}", os.fsdecode(b"d\xff/") + name}
    assert all(source.read(s.path) for s in listing.samples)
    for warning in listing.warnings:
        assert warning.isprintable()
        warning.encode()


def test_splits(tmp_path: Path, write_picture: Write) -> None:
    for name in ["Train/cat/1.jpg", "Train/cat/2.jpg", "Train/dog/1.jpg", "Train/dog/2.jpg"]:
        write_picture(tmp_path / name)
    for name in ["valid/cat/1.jpg", "TESTING/dog/1.jpg", "TESTING/beside.jpg"]:
        write_picture(tmp_path / name)
    listing = FolderSource(tmp_path).scan()
    assert [(s.path, s.labels, s.split) for s in listing.samples] == [
        ("TESTING/dog/1.jpg", ("dog",), "test"),
        ("Train/cat/1.jpg", ("cat",), "train"),
        ("Train/cat/2.jpg", ("cat",), "train"),
        ("Train/dog/1.jpg", ("dog",), "train"),
        ("Train/dog/2.jpg", ("dog",), "train"),
        ("valid/cat/1.jpg", ("cat",), "val"),
    ]
    assert listing.passed_over == {"outside class folders": 1}


def test_a_class_that_is_only_tested_is_named(tmp_path: Path, write_picture: Write) -> None:
    for name in ["train/cat/1.jpg", "train/cat/2.jpg", "train/dog/1.jpg", "train/dog/2.jpg"]:
        write_picture(tmp_path / name)
    write_picture(tmp_path / "test/emu/1.jpg")
    (warning,) = FolderSource(tmp_path).scan().warnings
    assert "not in train" in warning
    assert warning.endswith(": emu")


def test_splits_beside_other_folders_are_refused(tmp_path: Path, write_picture: Write) -> None:
    for name in ["train/cat/1.jpg", "cat/1.jpg", "dog/1.jpg"]:
        write_picture(tmp_path / name)
    with pytest.raises(SourceError, match="train named like splits, beside cat, dog"):
        FolderSource(tmp_path).scan()


def test_a_split_of_loose_pictures_is_refused(tmp_path: Path, write_picture: Write) -> None:
    for name in ["train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg"]:
        write_picture(tmp_path / name)
    with pytest.raises(SourceError, match=r"/test: .* not in class folders"):
        FolderSource(tmp_path).scan()


def test_one_split_under_two_names_is_refused(tmp_path: Path, write_picture: Write) -> None:
    for name in ["train/cat/1.jpg", "val/cat/1.jpg", "valid/cat/1.jpg"]:
        write_picture(tmp_path / name)
    with pytest.raises(SourceError, match="name one split twice"):
        FolderSource(tmp_path).scan()


def test_an_empty_split_is_named(tmp_path: Path, write_picture: Write) -> None:
    for name in ["train/cat/1.jpg", "train/cat/2.jpg", "train/dog/1.jpg", "train/dog/2.jpg"]:
        write_picture(tmp_path / name)
    (tmp_path / "val").mkdir()
    assert FolderSource(tmp_path).scan().warnings == ("val has no class folders",)


def test_a_flat_folder_is_unlabelled(tmp_path: Path, write_picture: Write) -> None:
    write_picture(tmp_path / "2.jpg")
    write_picture(tmp_path / "1.jpg")
    (tmp_path / ".git").mkdir()
    listing = FolderSource(tmp_path).scan()
    assert [(s.path, s.labels) for s in listing.samples] == [("1.jpg", ()), ("2.jpg", ())]
    (warning,) = listing.warnings
    assert "every picture is unlabelled" in warning


def test_warnings_name_classes(tmp_path: Path, write_picture: Write) -> None:
    for name in ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]:
        write_picture(tmp_path / name)
    for name in "abcdefg":
        (tmp_path / f"empty-{name}").mkdir()
    empty, single = FolderSource(tmp_path).scan().warnings
    assert empty.endswith("empty-a, empty-b, empty-c, empty-d, empty-e and 2 more")
    assert "one training picture" in single
    assert single.endswith(": dog")


def test_only_one_class_is_named(tmp_path: Path, write_picture: Write) -> None:
    for name in ["cat/1.jpg", "cat/2.jpg"]:
        write_picture(tmp_path / name)
    (warning,) = FolderSource(tmp_path).scan().warnings
    assert "only one class, cat" in warning


def test_no_pictures_at_all(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing at all"):
        FolderSource(tmp_path).scan()
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/notes.txt").touch()
    (tmp_path / "cat/.x.jpg").touch()
    (tmp_path / "cat/gone.jpg").symlink_to("nowhere")
    with pytest.raises(SourceError, match="no pictures") as caught:
        FolderSource(tmp_path).scan()
    for count in ("not a picture: 1", "hidden: 1", "unreadable or missing: 1"):
        assert count in str(caught.value)


def test_a_folder_that_cannot_be_listed_is_skipped(
    tmp_path: Path, write_picture: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "cat/1.jpg")
    write_picture(tmp_path / "dog/1.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert FolderSource(tmp_path).scan().skips == [("dog", "unreadable: Permission denied")]


def test_a_picture_that_is_gone_and_a_source_that_is_gone(
    tmp_path: Path, write_picture: Write
) -> None:
    root = tmp_path / "pets"
    picture = write_picture(root / "cat/1.jpg")
    source = FolderSource(root)
    picture.unlink()
    with pytest.raises(PictureError, match="missing: there is no such file"):
        source.read("cat/1.jpg")
    root.rename(tmp_path / "moved")
    with pytest.raises(SourceMissingError, match="pets: the pictures are no longer there"):
        source.read("cat/1.jpg")
    with pytest.raises(SourceMissingError):
        source.scan()
