"""`export_cache`: features and labels of a cache in one file that others read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from featcache.api.requests import PathLike
from featcache.errors import ExportError
from featcache.export.everything import (
    other_views,
    plain_streams,
    require_views,
    write_hdf5,
)
from featcache.export.found import NEWEST, NONE, Found, found_of
from featcache.export.npz import write_npz
from featcache.export.parquet import write_parquet
from featcache.export.pictures import Images
from featcache.export.places import format_of, refuse_taken, write_export
from featcache.export.samples import Features, Samples, described, stream_described
from featcache.export.table import write_csv
from featcache.recipe import PENULTIMATE
from featcache.results import CacheExport
from featcache.store.cache import Cache
from featcache.store.writing import check_space

SUFFIXES = {
    ".npz": "npz",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}
"""Formats of a cache's export by what a file's name ends with."""

_CSV_DIGITS = 14
"""Characters of a number in a CSV, at most."""


@dataclass(frozen=True, eq=False)
class _Export:
    """What is to be written, and what came of it.

    Attributes:
        streams: by the names of HDF5's datasets; of other formats there is one.
        notes: what a person should know; grows while it is written.
    """

    cache: Cache
    samples: Samples
    streams: dict[str, Features]
    found: Found | None
    images: Images
    description: dict[str, Any]
    notes: list[str] = field(default_factory=list[str])

    @property
    def features(self) -> Features:
        """Of the first stream."""
        return next(iter(self.streams.values()))


def export_cache(
    cache: PathLike,
    file: PathLike,
    *,
    format: str | None = None,
    cut: str | None = None,
    views: bool = False,
    result: str = NEWEST,
    images: Images = "none",
    overwrite: bool = False,
) -> CacheExport:
    """Write a cache's features, labels and names into one file that others read.

    The file appears whole under its name, or not at all; rows are read and written in blocks, so
    memory does not grow with the cache.

    Args:
        cache: folder of a cache.
        file: to be written.
        format: "npz", "parquet", "csv" or "hdf5"; None: as the file's name ends.
        cut: which activations; None is the penultimate feature, and all there are for "hdf5".
        views: "hdf5": augmented views, too.
        result: the probe whose held-out probabilities go along: its identity, "newest" (if there is
            one that fits) or "none". A CSV has none.
        images: "parquet": "thumbnails" or "originals" puts the pictures into a column.
        overwrite: what is there already.

    Raises:
        ExportError: it cannot be written so, or is there already.
        StoreError: the cache cannot be read or the file not be written.
        SourceMissingError: pictures are asked for and are gone.
    """
    started = time.perf_counter()
    place = Path(file)
    kind = format_of("cache", place, format, SUFFIXES)
    _refuse_misfits(kind, views=views, result=result, images=images)
    refuse_taken(place, overwrite=overwrite)
    export = _opened(Path(cache), kind, cut, result, images, views=views)
    check_space(_standing(place), _size(kind, export), "choose another place for the file")
    write_export(place, lambda draft: _WRITERS[kind](draft, export), overwrite=overwrite)
    found = export.found
    return CacheExport(
        file=os.fspath(file),
        format=kind,
        bytes=place.stat().st_size,
        rows=len(export.samples),
        skipped=export.samples.skipped + len(export.cache.index.skip_paths),
        classes=export.samples.classes,
        features={name: features.shape for name, features in export.streams.items()},
        result=None if found is None else found.result,
        warnings=tuple(export.notes),
        example=_EXAMPLES[kind].format(file=os.fspath(file), first=next(iter(export.streams))),
        seconds=time.perf_counter() - started,
    )


def _refuse_misfits(kind: str, *, views: bool, result: str, images: Images) -> None:
    if images not in get_args(Images):
        raise ExportError(f"images {images!r}: none of {', '.join(get_args(Images))}")
    if views and kind != "hdf5":
        raise ExportError("--views are for --format hdf5; the others hold one stream")
    if images != "none" and kind != "parquet":
        raise ExportError("--images are for --format parquet; the others hold no pictures")
    if kind == "csv" and result not in (NEWEST, NONE):
        raise ExportError("a CSV holds no --result; take --format npz, parquet or hdf5")


def _opened(
    folder: Path, kind: str, cut: str | None, result: str, images: Images, *, views: bool
) -> _Export:
    cache = Cache(folder)
    everything = kind == "hdf5"
    readers = plain_streams(cache, cut if everything else cut or PENULTIMATE)
    samples = Samples(cache, list(readers.values()))
    if everything:
        others = other_views(cache, readers) if views else {}
        require_views(cache, samples, list(others.values()))
        readers = {f"features/{name}": reader for name, reader in readers.items()}
        readers |= {f"views/{name}": reader for name, reader in others.items()}
    streams = {name: Features(reader, samples) for name, reader in readers.items()}
    found, why = found_of(cache, samples, NONE if kind == "csv" else result)
    description = described(cache, samples)
    description["result"] = None if found is None else found.result
    if not everything:
        description["stream"] = stream_described(next(iter(streams.values())))
    export = _Export(cache, samples, streams, found, images, description)
    export.notes.extend([why] if why else [])
    return export


def _standing(file: Path) -> Path:
    """The nearest folder above a file that is there."""
    return next(folder for folder in file.absolute().parents if folder.is_dir())


def _size(kind: str, export: _Export) -> int:
    """Bytes of the features in a format, about."""
    values = sum(f.row_bytes // f.dtype.itemsize for f in export.streams.values())
    stored = sum(f.row_bytes for f in export.streams.values())
    each = {"csv": _CSV_DIGITS * values, "parquet": 4 * values}.get(kind, stored)
    return len(export.samples) * each


def _npz(draft: Path, export: _Export) -> None:
    write_npz(draft, export.samples, export.features, export.found, export.description)


def _hdf5(draft: Path, export: _Export) -> None:
    index = export.cache.index
    write_hdf5(draft, export.samples, export.streams, export.found, export.description, index)


def _parquet(draft: Path, export: _Export) -> None:
    if count := export.samples.not_utf8():
        export.notes.append(f"{count} paths are not UTF-8; path_bytes has them as they are")
    write_parquet(
        draft, export.samples, export.features, export.found, export.description, export.images
    )


def _csv(draft: Path, export: _Export) -> None:
    if count := export.samples.not_utf8():
        export.notes.append(
            f"{count} paths are not UTF-8; such bytes are spelt out, other formats keep them"
        )
    if changed := write_csv(draft, export.samples, export.features):
        export.notes.append(
            f"{changed} texts begin as a formula does and got a ' before them, so that no "
            "spreadsheet runs them; other formats keep them as they are"
        )


_WRITERS: dict[str, Callable[[Path, _Export], None]] = {
    "npz": _npz,
    "parquet": _parquet,
    "csv": _csv,
    "hdf5": _hdf5,
}

_EXAMPLES = {
    "npz": """\
import numpy as np
data = np.load({file!r})
X, y, classes = data["features"], data["labels"], data["classes"]
""",
    "parquet": """\
import numpy as np, pandas as pd
frame = pd.read_parquet({file!r})
X, y, classes = np.stack(frame.features), frame.labels, frame.attrs["classes"]
""",
    "csv": """\
import pandas as pd
frame = pd.read_csv({file!r}, dtype={{"path": str, "label": str, "group": str}})
X, y = frame.filter(regex="^f[0-9]+$").to_numpy("float32"), frame.label
""",
    "hdf5": """\
import h5py
file = h5py.File({file!r})
X, y = file[{first!r}][:], file["labels"][:]
classes = file["classes"].asstr()[:]
""",
}
