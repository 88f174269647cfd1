"""`.npz`: arrays that numpy alone reads, written row by row, so of any size."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from featcache.export.found import Found
from featcache.export.samples import Features, Samples

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The first time a zip file can name: the same arrays give the same bytes."""


def write_npz(
    path: Path,
    samples: Samples,
    features: Features,
    found: Found | None,
    description: dict[str, Any],
) -> None:
    """Write features, labels and names; `numpy.load` reads them without pickle.

    Arrays: features (n, *shape) as stored; labels (n,) int64, or (n, K) bool; classes (K,); path,
    filepath, split, group, sha256, label (n,) texts; pred_probs (n, K) where there is a result;
    description, JSON.
    """
    with zipfile.ZipFile(path, "x") as file:
        _numbers(file, "features", (len(samples), *features.shape), features.blocks())
        _numbers(
            file,
            "labels",
            (len(samples), len(samples.classes)) if samples.several else (len(samples),),
            (samples.labels(block) for block in samples.blocks()),
        )
        if found is not None:
            _numbers(file, "pred_probs", found.shape, map(found.read, samples.blocks()))
        _texts(file, "classes", (len(samples.classes),), lambda: [list(samples.classes)])
        for name, of in samples.texts().items():
            _texts(file, name, (len(samples),), lambda of=of: map(of, samples.blocks()))
        text = json.dumps(description, sort_keys=True)
        _texts(file, "description", (), lambda: [[text]])


def _numbers(
    file: zipfile.ZipFile, name: str, shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]]
) -> None:
    """One array, by blocks of its rows; at least one block."""
    with _member(file, name, zipfile.ZIP_STORED) as member:
        for i, block in enumerate(blocks):
            if not i:
                _head(member, shape, block.dtype)
            member.write(np.ascontiguousarray(block).tobytes())


def _texts(file: zipfile.ZipFile, name: str, shape: tuple[int, ...], blocks: Any) -> None:
    """One array of texts, as wide as the longest, which deflating makes up for.

    Args:
        file: where it goes.
        name: of the array.
        shape: of it.
        blocks: called twice: its texts, some at a time.
    """
    longest = max((len(text) for block in blocks() for text in block), default=0)
    dtype = np.dtype(f"<U{max(longest, 1)}")
    with _member(file, name, zipfile.ZIP_DEFLATED) as member:
        _head(member, shape, dtype)
        for block in blocks():
            member.write(np.array(block, dtype).tobytes())


def _member(file: zipfile.ZipFile, name: str, compression: int) -> IO[bytes]:
    entry = zipfile.ZipInfo(f"{name}.npy", _LONG_AGO)
    entry.compress_type = compression
    return file.open(entry, "w", force_zip64=True)


def _head(member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)
