"""torchvision's data sets by name, loaded by torchvision's own classes.

The classes keep their lists of files, arrays and labels in attributes of their own; the functions
at the top of this file are the only place that knows those attributes.
"""

from __future__ import annotations

import http.client
import os
import tarfile
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import DownloadError, PictureError, SourceError
from featcache.images.files import absolute, read_below, regular_stat, stat_key
from featcache.images.labels import label_warnings
from featcache.images.listing import Listing, Sample, Source
from featcache.lean import compiler_deferred
from featcache.naming import shown


@dataclass(frozen=True)
class Part:
    """One split of a data set, as torchvision gives it.

    Attributes:
        items: absolute paths of files, or pictures (N, H, W, 3) uint8.
        labels: class number of each item.
        classes: names of the classes, by number.
    """

    items: Sequence[str] | np.ndarray
    labels: Sequence[int]
    classes: Sequence[str]


def _pets(dataset: Any) -> Part:
    return Part([str(file) for file in dataset._images], dataset._labels, dataset.classes)


def _flowers(dataset: Any) -> Part:
    files = [str(file) for file in dataset._image_files]
    numbers = [str(number) for number in range(1, 103)]
    return Part(files, dataset._labels, getattr(dataset, "classes", numbers))  # named since 0.22


def _food(dataset: Any) -> Part:
    return Part([str(file) for file in dataset._image_files], dataset._labels, dataset.classes)


def _imagenette(dataset: Any) -> Part:
    files, labels = zip(*dataset._samples, strict=True)
    return Part(files, labels, [synonyms[0] for synonyms in dataset.classes])


def _cifar(dataset: Any) -> Part:
    return Part(dataset.data, dataset.targets, dataset.classes)


def _stl(dataset: Any) -> Part:
    return Part(dataset.data.transpose(0, 2, 3, 1), dataset.labels, dataset.classes)


@dataclass(frozen=True)
class DataSet:
    """How a data set is asked for, and read.

    Attributes:
        cls: name of the class in `torchvision.datasets`.
        splits: our split -> arguments of the class.
        part: reads an instance.
        files: whether its pictures are files (else arrays).
    """

    cls: str
    splits: dict[str, dict[str, Any]]
    part: Callable[[Any], Part]
    files: bool


_TRAIN_FLAG: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_TRAIN_TEST: dict[str, dict[str, Any]] = {"train": {"split": "train"}, "test": {"split": "test"}}

DATA_SETS: dict[str, DataSet] = {
    "oxford-pets": DataSet(
        "OxfordIIITPet", {"train": {"split": "trainval"}, "test": {"split": "test"}}, _pets, True
    ),
    "flowers102": DataSet(
        "Flowers102",
        {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}},
        _flowers,
        True,
    ),
    "food101": DataSet("Food101", _TRAIN_TEST, _food, True),
    "imagenette": DataSet(
        "Imagenette",
        {"train": {"split": "train", "size": "full"}, "test": {"split": "val", "size": "full"}},
        _imagenette,
        True,
    ),
    "cifar10": DataSet("CIFAR10", _TRAIN_FLAG, _cifar, False),
    "cifar100": DataSet("CIFAR100", _TRAIN_FLAG, _cifar, False),
    "stl10": DataSet("STL10", _TRAIN_TEST, _stl, False),
}
"""Names that `open_data_set` takes. The part that Imagenette calls "val" is its only held-out one
and what results are published on: it is "test" here."""

_FAILURES = (
    OSError,
    RuntimeError,
    EOFError,
    http.client.HTTPException,
    tarfile.TarError,
    zlib.error,
)
"""What fetching and unpacking an archive can raise (URLError is an OSError)."""


def data_root() -> str:
    """The folder of all data sets."""
    return absolute(os.environ.get("FEATCACHE_DATA") or "~/.cache/featcache/data")


def open_data_set(name: str, *, fetch: bool = True) -> Source:
    """A data set of torchvision; fetched when it is first scanned, if it isn't there.

    Args:
        name: one of `DATA_SETS`.
        fetch: else one that isn't there cannot be read.

    Raises:
        SourceError: there is no data set of that name.
    """
    if name not in DATA_SETS:
        raise SourceError(f"no data set {shown(name)!r}; there are {', '.join(DATA_SETS)}")
    return (FileDataSet if DATA_SETS[name].files else ArrayDataSet)(name, fetch=fetch)


class _Loaded:
    """A data set's place on disk and its parts, loaded once."""

    def __init__(self, name: str, *, fetch: bool = True) -> None:
        self.name, self._fetch = name, fetch
        self.locator = {"kind": "torchvision", "location": name}
        self._root = data_root()
        self._lock = threading.Lock()
        self._parts: dict[str, Part] = {}

    def _load(self) -> dict[str, Part]:
        """All parts by split.

        Raises:
            DownloadError: the data set is neither there nor to be fetched.
        """
        with self._lock:
            if not self._parts:
                entry = DATA_SETS[self.name]
                self._parts = {
                    split: entry.part(self._construct(entry.cls, arguments))
                    for split, arguments in entry.splits.items()
                }
            return self._parts

    def _construct(self, cls: str, arguments: dict[str, Any]) -> Any:
        with compiler_deferred():
            from torchvision import datasets

        make = getattr(datasets, cls)
        try:
            return make(self._root, download=False, **arguments)
        except (RuntimeError, OSError) as error:
            if not self._fetch:
                raise DownloadError(f"{self.name}: not in {shown(self._root)}") from error
            # not there (whole): fetch it, which gives the reason if that fails too
        try:
            return make(self._root, download=True, **arguments)
        except _FAILURES as error:
            raise DownloadError(
                f"{self.name}: not in {shown(self._root)}, and the download failed "
                f"({type(error).__name__}: {error}). Try again with a connection; or place its "
                f"files there by hand, laid out as torchvision.datasets.{cls} describes "
                "(FEATCACHE_DATA names another place); or give a folder of class folders instead"
            ) from error


class FileDataSet(_Loaded):
    """A data set whose pictures are files; paths are relative to the folder of all data sets."""

    def scan(self) -> Listing:
        """List the pictures in torchvision's order; see `Source.scan`."""
        samples: list[Sample] = []
        skips: list[tuple[str, str]] = []
        for split, part in self._load().items():
            for file, number in zip(part.items, part.labels, strict=True):
                path = str(file).removeprefix(f"{self._root}/")
                try:
                    key = stat_key(regular_stat(Path(file)))
                except PictureError as error:
                    skips.append((path, str(error)))
                else:
                    samples.append(Sample(path, (part.classes[number],), split, None, key))
        return Listing(samples, {}, skips, label_warnings(samples))

    def read(self, path: str) -> bytes | np.ndarray:
        """Bytes of one picture; see `Source.read`."""
        return read_below(self._root, path)


class ArrayDataSet(_Loaded):
    """A data set that torchvision holds in memory; paths are `train/00000`, `train/00001`, ..."""

    def scan(self) -> Listing:
        """List the pictures in torchvision's order; see `Source.scan`."""
        samples = [
            Sample(f"{split}/{index:05d}", (part.classes[number],), split, None, None)
            for split, part in self._load().items()
            for index, number in enumerate(part.labels)
        ]
        return Listing(samples, {}, [], label_warnings(samples))

    def read(self, path: str) -> bytes | np.ndarray:
        """One picture, (H, W, 3) uint8; see `Source.read`."""
        split, _, number = path.partition("/")
        part = self._load().get(split)
        known = number.isdecimal() and len(number) < 10
        if part is None or not known or int(number) >= len(part.items):
            raise PictureError(f"missing: {self.name} has no such picture")
        return np.ascontiguousarray(part.items[int(number)])
