"""What the user types becomes a source, and a locator finds it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import PictureError, SourceError, SourceMissingError
from featcache.images.datasets import DATA_SETS
from featcache.images.digits import DigitsSource
from featcache.images.sources import content_hash, open_source, source_from_locator
from featcache.naming import folder_safe, name_some


def test_importing_needs_no_torch() -> None:
    script = (
        "import sys, featcache.images.sources, featcache.images.decode\n"
        "print([name for name in ('torch', 'torchvision', 'sklearn') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert shown.stdout.strip() == b"[]"


def test_folder_and_csv(class_folders: Path, tmp_path: Path) -> None:
    assert open_source(str(class_folders)).locator["kind"] == "folder"
    (tmp_path / "Pets.CSV").touch()
    source = open_source(tmp_path / "Pets.CSV")
    assert source.locator == {"kind": "csv", "location": str(tmp_path / "Pets.CSV")}


def test_location_is_absolute_and_named_as_typed(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my link").symlink_to(class_folders)
    monkeypatch.chdir(tmp_path)
    source = open_source("./x/../my link/")  # whether there is an x or not
    assert source.name == "my-link"
    assert source.locator["location"] == str(tmp_path / "my link")


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets_are_not_loaded_when_opened(name: str) -> None:
    source = open_source(name)
    assert source.name == name
    assert source.locator == {"kind": "torchvision", "location": name}


def test_a_name_wins_over_a_folder_unless_it_is_written_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_source("digits").locator["kind"] == "digits"
    assert open_source("./digits").locator["kind"] == "folder"
    assert open_source(Path("digits").absolute()).locator["kind"] == "folder"


@pytest.mark.parametrize(
    ("data", "problem"),
    [("nowhere", "is no folder or file"), ("oxfordpets", "did you mean oxford-pets?")],
)
def test_what_is_not_understood_lists_what_is(data: str, problem: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(data)
    message = str(caught.value)
    for text in (data, problem, "CSV", "class folders", "digits", *DATA_SETS):
        assert text in message


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pets.zip").touch()
    with pytest.raises(SourceError, match=r"is a file, but not a \.csv"):
        open_source(tmp_path / "pets.zip")


def test_locators_come_back(class_folders: Path, tmp_path: Path) -> None:
    (tmp_path / "pets.csv").touch()
    for data in (class_folders, tmp_path / "pets.csv", "digits", "cifar10"):
        source = open_source(data)
        again = source_from_locator(source.locator)
        assert (again.name, again.locator) == (source.name, source.locator)


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_a_gone_location_is_missing(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SourceMissingError, match="--replace-source"):
        source_from_locator({"kind": kind, "location": str(tmp_path / "gone")})


@pytest.mark.parametrize(
    "locator", [{}, {"kind": "s3", "location": "x"}, {"kind": "torchvision", "location": "mnist"}]
)
def test_unknown_locators_are_refused(locator: dict[str, str]) -> None:
    with pytest.raises(SourceError):
        source_from_locator(locator)


def test_digits() -> None:
    source = DigitsSource()
    listing = source.scan()
    assert source.locator == {"kind": "digits", "location": "digits"}
    assert len(listing.samples) == 1797
    assert listing.samples[0].path == "0000"
    assert listing.samples[-1].path == "1796"
    assert {s.labels for s in listing.samples} == {(str(digit),) for digit in range(10)}
    assert listing.warnings == ()
    picture = source.read("0000")
    assert isinstance(picture, np.ndarray)
    assert (picture.shape, picture.dtype) == ((8, 8), np.uint8)
    assert picture[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 sixteenths
    for path in ("1797", "x", "-1"):
        with pytest.raises(PictureError, match="missing"):
            source.read(path)


def test_content_hash_of_a_file_is_its_sha256() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert content_hash(b"").hex() == empty


def test_content_hash_of_an_array_knows_its_dtype_shape_and_order() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    variants = [array, array.T, array.reshape(2, 6), array.astype(np.int8), array.tobytes()]
    assert len({content_hash(variant) for variant in variants}) == len(variants)
    assert content_hash(array) == content_hash(np.asfortranarray(array))
    assert len(content_hash(array)) == 32


@given(st.text(st.characters()))
def test_source_names_are_safe_in_a_folders_name(name: str) -> None:
    safe = folder_safe(name)
    assert 0 < len(safe.encode()) <= 255
    assert not set(safe) & set('/\\:*?"<>|\0\n ')
    assert not safe.startswith((".", "-"))


def test_few_names_are_all_named() -> None:
    assert name_some(["a", "b\n"]) == "a, b\\n"
    assert name_some([str(n) for n in range(6)]) == "0, 1, 2, 3, 4 and 1 more"
