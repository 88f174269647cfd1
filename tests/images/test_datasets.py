"""torchvision's data sets, from small copies in torchvision's own layout; no network."""

from __future__ import annotations

import json
import pickle
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from featcache.errors import DownloadError, PictureError, SourceError, SourceMissingError
from featcache.images.datasets import DATA_SETS, open_data_set
from featcache.images.listing import Listing

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where data sets lie; whoever asks the network is refused."""
    monkeypatch.setenv("FEATCACHE_DATA", str(tmp_path / "data"))

    def refuse(request: urllib.request.Request, *_: object, **__: object) -> object:
        raise urllib.error.URLError(f"no network for {request.full_url}")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path / "data"


@pytest.fixture
def no_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small copies don't have the checksums of the real ones; files must still be there."""
    for module in ("cifar", "stl10", "flowers102"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda file, _: Path(file).is_file()
        )


def _meaning(listing: Listing) -> list[tuple[str, tuple[str, ...], str | None]]:
    return [(s.path, s.labels, s.split) for s in listing.samples]


def _pets(root: Path, write_picture: Write) -> None:
    base = root / "oxford-iiit-pet"
    for number, name in enumerate(["Abyssinian_1", "Abyssinian_2", "basset_hound_1"]):
        write_picture(base / "images" / f"{name}.jpg", (number, 0, 0))
    (base / "annotations").mkdir()
    (base / "annotations/trainval.txt").write_text("Abyssinian_2 1 1 1\nbasset_hound_1 2 2 1\n")
    (base / "annotations/test.txt").write_text("Abyssinian_1 1 1 1\nbasset_hound_9 2 2 1\n")


def test_oxford_pets(root: Path, write_picture: Write) -> None:
    _pets(root, write_picture)
    source = open_data_set("oxford-pets")
    listing = source.scan()
    assert _meaning(listing) == [
        ("oxford-iiit-pet/images/Abyssinian_2.jpg", ("Abyssinian",), "train"),
        ("oxford-iiit-pet/images/basset_hound_1.jpg", ("Basset Hound",), "train"),
        ("oxford-iiit-pet/images/Abyssinian_1.jpg", ("Abyssinian",), "test"),
    ]
    assert listing.skips == [
        ("oxford-iiit-pet/images/basset_hound_9.jpg", "missing: there is no such file")
    ]
    file = root / "oxford-iiit-pet/images/Abyssinian_2.jpg"
    assert source.read(listing.samples[0].path) == file.read_bytes()
    stat = listing.samples[0].stat
    assert stat is not None
    assert stat.inode == file.stat().st_ino


def test_a_data_set_that_is_gone(root: Path, write_picture: Write) -> None:
    _pets(root, write_picture)
    source = open_data_set("oxford-pets")
    path = source.scan().samples[0].path
    (root / path).unlink()
    with pytest.raises(PictureError, match="missing"):
        source.read(path)
    root.rename(root.with_name("moved"))
    with pytest.raises(SourceMissingError):
        source.read(path)


@pytest.mark.usefixtures("no_checksums")
def test_flowers(root: Path, write_picture: Write) -> None:
    base = root / "flowers-102"
    for number in range(1, 5):
        write_picture(base / "jpg" / f"image_{number:05d}.jpg")
    scipy.io.savemat(base / "imagelabels.mat", {"labels": [[77, 1, 77, 1]]})
    splits = {"trnid": [[1, 2]], "valid": [[3, 3]], "tstid": [[4, 4]]}
    scipy.io.savemat(base / "setid.mat", splits)
    assert _meaning(open_data_set("flowers102").scan())[:3] == [
        ("flowers-102/jpg/image_00001.jpg", ("passion flower",), "train"),
        ("flowers-102/jpg/image_00002.jpg", ("pink primrose",), "train"),
        ("flowers-102/jpg/image_00003.jpg", ("passion flower",), "val"),
    ]


def test_food(root: Path, write_picture: Write) -> None:
    base = root / "food-101"
    for name in ("sushi/1", "apple_pie/2", "sushi/3"):
        write_picture(base / "images" / f"{name}.jpg")
    (base / "meta").mkdir()
    train, test = {"apple_pie": ["apple_pie/2"], "sushi": ["sushi/1"]}, {"sushi": ["sushi/3"]}
    (base / "meta/train.json").write_text(json.dumps(train))
    (base / "meta/test.json").write_text(json.dumps(test))
    assert _meaning(open_data_set("food101").scan()) == [
        ("food-101/images/apple_pie/2.jpg", ("apple_pie",), "train"),
        ("food-101/images/sushi/1.jpg", ("sushi",), "train"),
        ("food-101/images/sushi/3.jpg", ("sushi",), "test"),
    ]


def test_imagenette_has_readable_names_and_tests_on_its_val_part(
    root: Path, write_picture: Write
) -> None:
    for name in ("train/n01440764/1", "train/n02102040/2", "val/n01440764/3", "val/n02102040/4"):
        write_picture(root / "imagenette2" / f"{name}.JPEG")
    assert _meaning(open_data_set("imagenette").scan()) == [
        ("imagenette2/train/n01440764/1.JPEG", ("tench",), "train"),
        ("imagenette2/train/n02102040/2.JPEG", ("English springer",), "train"),
        ("imagenette2/val/n01440764/3.JPEG", ("tench",), "test"),
        ("imagenette2/val/n02102040/4.JPEG", ("English springer",), "test"),
    ]


def _dump(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content))


def _planes(*colours: tuple[int, int, int], side: int) -> np.ndarray:
    """Pictures of one colour each, (N, 3, side, side) uint8."""
    colour = np.array(colours, dtype=np.uint8)
    return np.broadcast_to(colour[:, :, None, None], (*colour.shape, side, side))


@pytest.mark.usefixtures("no_checksums")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(root: Path, name: str) -> None:
    ten = name == "cifar10"
    base = root / ("cifar-10-batches-py" if ten else "cifar-100-python")
    data = _planes((1, 2, 3), (4, 5, 6), side=32).reshape(2, -1)
    for batch in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "train", "test"]:
        _dump(base / batch, {"data": data, "labels" if ten else "fine_labels": [1, 0]})
    for meta in ("batches.meta", "meta"):
        _dump(base / meta, {"label_names": ["cat", "dog"], "fine_label_names": ["cat", "dog"]})
    source = open_data_set(name)
    samples = source.scan().samples
    assert len(samples) == (12 if ten else 4)
    assert (samples[0].path, samples[0].labels, samples[0].split) == (
        "train/00000",
        ("dog",),
        "train",
    )
    assert (samples[-1].path, samples[-1].stat) == ("test/00001", None)
    picture = source.read("test/00001")
    assert isinstance(picture, np.ndarray)
    assert (picture.shape, picture.dtype) == ((32, 32, 3), np.uint8)
    assert (picture == [4, 5, 6]).all()


@pytest.mark.usefixtures("no_checksums")
def test_stl10(root: Path) -> None:
    base = root / "stl10_binary"
    base.mkdir(parents=True)
    (base / "class_names.txt").write_text("airplane\nbird\n")
    for part in ("train", "test", "unlabeled"):
        pictures = _planes((1, 2, 3), (4, 5, 6), side=96).copy()
        pictures[:, :, 1, 0] = 99  # stored column by column: this is row 0, column 1
        pictures.tofile(base / f"{part}_X.bin")
        np.array([2, 1], dtype=np.uint8).tofile(base / f"{part}_y.bin")
    source = open_data_set("stl10")
    assert _meaning(source.scan()) == [
        ("train/00000", ("bird",), "train"),
        ("train/00001", ("airplane",), "train"),
        ("test/00000", ("bird",), "test"),
        ("test/00001", ("airplane",), "test"),
    ]
    picture = source.read("test/00000")
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (96, 96, 3)
    assert picture.flags.c_contiguous
    assert picture[0, 1].tolist() == [99, 99, 99]
    assert picture[1, 0].tolist() == [1, 2, 3]
    for path in ("test/00002", "val/00000", "test/x", "test"):
        with pytest.raises(PictureError, match="missing: stl10 has no such picture"):
            source.read(path)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_failed_download_says_what_to_do(name: str, root: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        open_data_set(name).scan()
    message = str(caught.value)
    for text in (f"{name}: ", str(root), "no network for http", "by hand", DATA_SETS[name].cls):
        assert text in message


@pytest.mark.parametrize("error", [RuntimeError, tarfile.ReadError, EOFError])
def test_a_broken_archive_is_a_failed_download(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("broken archive")

    monkeypatch.setattr("torchvision.datasets.food101.download_and_extract_archive", fail)
    with pytest.raises(DownloadError, match="broken archive"):
        open_data_set("food101").scan()


def test_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEATCACHE_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DownloadError, match="cache/featcache/data"):
        open_data_set("food101").scan()
    assert (tmp_path / ".cache/featcache/data").is_dir()


def test_an_unknown_name() -> None:
    with pytest.raises(SourceError, match="no data set 'mnist'"):
        open_data_set("mnist")
