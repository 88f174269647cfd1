"""The index: one row a sample, and what could not become one.

Labels live here and never in a shard: relabelling rewrites a small file and recomputes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheDamagedError
from featcache.recipe import View
from featcache.store import hdf5
from featcache.store.files import sha256_file, write_durably
from featcache.store.strings import Strings, are_offsets

SPLITS = ("train", "val", "test")
NO_SPLIT = -1
NO_GROUP = -1
HASH_BYTES = 32
NO_STAT = (-1, -1, -1, -1)


@dataclass(frozen=True, eq=False)
class Index:
    """One row a sample, in the order of its source.

    Attributes:
        paths: n names within the source.
        hashes: (n, 32) uint8, sha256 of each sample's content.
        label_names: the classes, sorted by name.
        label_offsets, label_codes: CSR; the labels of row i are
            `label_codes[label_offsets[i]:label_offsets[i + 1]]`: none, one or several.
        splits: (n,) int8, position in `SPLITS` or `NO_SPLIT`.
        group_names, groups: (n,) int64, position in `group_names` or `NO_GROUP`.
        stats: (n, 4) int64: size, mtime_ns, ctime_ns and inode of the file, `NO_STAT` for what is
            no file.
        skip_paths, skip_reasons: samples that the source names but that have no content.
    """

    paths: Strings
    hashes: npt.NDArray[np.uint8]
    label_names: Strings
    label_offsets: npt.NDArray[np.int64]
    label_codes: npt.NDArray[np.int32]
    splits: npt.NDArray[np.int8]
    group_names: Strings
    groups: npt.NDArray[np.int64]
    stats: npt.NDArray[np.int64]
    skip_paths: Strings = field(default_factory=lambda: Strings.of(()))
    skip_reasons: Strings = field(default_factory=lambda: Strings.of(()))

    def __len__(self) -> int:
        return len(self.hashes)

    @cached_property
    def unique_hashes(self) -> npt.NDArray[np.void]:
        """Sorted distinct content hashes as opaque 32-byte values."""
        return np.unique(opaque(self.hashes))

    def wanting(self, view: View) -> npt.NDArray[np.bool_]:
        """(n,) which samples are to have a row of a view: of one that only trains, not test's."""
        if view.only_trains:
            return self.splits != SPLITS.index("test")
        return np.ones(len(self), np.bool_)

    def contents(self, view: View) -> npt.NDArray[np.void]:
        """Sorted distinct contents of the samples that are to have a row of a view."""
        if not view.only_trains:
            return self.unique_hashes
        return np.unique(opaque(self.hashes[self.wanting(view)]))

    def labels_of(self, row: int) -> tuple[str, ...]:
        """The labels of one row, by name."""
        codes = self.label_codes[self.label_offsets[row] : self.label_offsets[row + 1]]
        return tuple(self.label_names[int(code)] for code in codes)

    @property
    def label_counts(self) -> npt.NDArray[np.int64]:
        """(n,) how many labels each row has."""
        return np.diff(self.label_offsets)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as arrays of fixed-size types, by name."""
        plain = {
            "hashes": self.hashes,
            "label_offsets": self.label_offsets,
            "label_codes": self.label_codes,
            "splits": self.splits,
            "groups": self.groups,
            "stats": self.stats,
        }
        for name in _TEXTS:
            texts: Strings = getattr(self, name)
            plain |= {f"{name}_blob": texts.blob, f"{name}_offsets": texts.offsets}
        return plain


_TEXTS = ("paths", "label_names", "group_names", "skip_paths", "skip_reasons")


def opaque(hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """(n, 32) uint8 as (n,) values that compare, sort and look up as wholes, bytewise."""
    return np.ascontiguousarray(hashes).view(f"V{HASH_BYTES}").reshape(-1)


def sorting(hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """(n,) the order in which hashes (n, 32) ascend as wholes, bytewise; stable."""
    columns = _columns(hashes)
    order = np.argsort(columns[:, 0], kind="stable")
    first = columns[order, 0]
    if (first[1:] == first[:-1]).any():  # hardly ever but of twins
        return np.lexsort(columns.T[::-1])
    return order


def look_up(
    keys: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """(n,) where wanted hashes stand among keys, and whether they do.

    Args:
        keys: (m, 32), ascending.
        wanted: (n, 32).
    """
    if not len(keys):
        return np.zeros(len(wanted), np.intp), np.zeros(len(wanted), np.bool_)
    ours, theirs = _columns(keys), _columns(wanted)
    slots = np.searchsorted(ours[:, 0], theirs[:, 0])
    if (ours[1:, 0] == ours[:-1, 0]).any():
        slots = np.searchsorted(opaque(keys), opaque(wanted))
    slots = np.minimum(slots, len(keys) - 1)
    return slots, (ours[slots] == theirs).all(axis=1)


def _columns(hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """(n, 4) numbers that order hashes as their bytes do, and are compared many times as fast."""
    return np.ascontiguousarray(hashes).view(">u8").astype(np.uint64)


def hashes_of(contents: Iterable[bytes]) -> npt.NDArray[np.uint8]:
    """(n, 32) uint8 of n content hashes."""
    return np.frombuffer(b"".join(contents), np.uint8).reshape(-1, HASH_BYTES)


def write_index(
    folder: Path, index: Index, check: Callable[[Path], None] | None = None
) -> tuple[str, str]:
    """Write an index under the name of its own hash; returns (file name, hex sha256).

    `check` is called before it is put in place; see `write_durably`.
    """
    content = hdf5.encode(index.arrays(), {"kind": "featcache index", "splits": ",".join(SPLITS)})
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / f"index-{sha256[:16]}.h5"
    if not path.exists() or sha256_file(path) != sha256:
        write_durably(path, content, check)
    return path.name, sha256


def read_index(path: Path) -> Index:
    """Read an index; its bytes are the caller's to check.

    Raises:
        CacheDamagedError: the file is not an index.
    """
    arrays = hdf5.map_arrays(path)
    try:
        plain: dict[str, Any] = {name: _plain(arrays[name], name) for name in _PLAIN}
        texts: dict[str, Any] = {
            name: Strings.checked(arrays[f"{name}_blob"], arrays[f"{name}_offsets"])
            for name in _TEXTS
        }
        return _consistent(Index(**plain, **texts))
    except KeyError as error:
        raise CacheDamagedError(f"{path}: {error} is missing; not an index of featcache") from error
    except ValueError as error:
        raise CacheDamagedError(f"{path}: {error}; not an index of featcache") from error


_PLAIN: dict[str, tuple[str, tuple[int, ...]]] = {
    "hashes": ("u1", (HASH_BYTES,)),
    "label_offsets": ("i8", ()),
    "label_codes": ("i4", ()),
    "splits": ("i1", ()),
    "groups": ("i8", ()),
    "stats": ("i8", (len(NO_STAT),)),
}
"""By name: dtype, and the shape of a row."""


def _plain(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    dtype, row = _PLAIN[name]
    if array.dtype != np.dtype(dtype) or not array.ndim or array.shape[1:] != row:
        raise ValueError(f"{name} are {array.dtype} {list(array.shape)}")
    return array


def _consistent(index: Index) -> Index:
    """An index of which every number leads to something."""
    n = len(index)
    lengths = {len(x) for x in (index.paths, index.splits, index.groups, index.stats)}
    within = (
        lengths == {n}
        and len(index.label_offsets) == n + 1
        and are_offsets(index.label_offsets, len(index.label_codes))
        and _between(index.label_codes, 0, len(index.label_names))
        and _between(index.splits, NO_SPLIT, len(SPLITS))
        and _between(index.groups, NO_GROUP, len(index.group_names))
        and len(index.skip_paths) == len(index.skip_reasons)
    )
    if not within:
        raise ValueError("its arrays do not fit together")
    return index


def _between(codes: npt.NDArray[Any], least: int, end: int) -> bool:
    return bool(codes.min(initial=least) >= least and codes.max(initial=least - 1) < end)
