"""What of a cache can be probed: labelled rows with their features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.splits import join_groups
from featcache.heads.grid import differ
from featcache.probing.views import ViewChoice, Views, choose_views, fits, read_views
from featcache.recipe import PENULTIMATE
from featcache.store.cache import Cache, StreamReader
from featcache.store.index import Index
from featcache.store.mapped import MappedRows

_ROWS = 4096
"""Looked at at a time."""

Bools = npt.NDArray[np.bool_]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """The rows of a cache that have labels and activations.

    Attributes:
        features: (n, D) float32; where that is more than half of the memory asked for, rows of the
            memory map in their stored dtype, read when they are indexed (`MappedRows`).
        targets: (n,) int codes, or (n, K) bool for several labels.
        classes: K names.
        splits: (n,) int8, position in the index's `SPLITS` or -1.
        groups: (n,) int64, one id for rows that belong together.
        rows: (n,) their rows in the index.
        hashes: (n, 32) uint8, of the pictures' bytes.
        views: rows of all views, the plain ones among them, where training uses several.
    """

    features: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    classes: tuple[str, ...]
    splits: npt.NDArray[np.int8]
    groups: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint8]
    views: Views | None = None

    def __len__(self) -> int:
        return len(self.features)


def labelled_rows(
    cache: Cache,
    cut: str = PENULTIMATE,
    memory: int = 2 << 30,
    choice: ViewChoice | None = None,
) -> LabelledRows:
    """Read what a probe needs.

    Args:
        cache: where the activations are.
        cut: which of them.
        memory: bytes to stay within, about.
        choice: the views that train; None: all there are of one policy and seed.

    Raises:
        CacheIncompleteError: rows were never computed (an interrupted extraction).
        ProbeError: no labels, or fewer than two classes; not those views; or rows that are all
            equal, or no numbers.
    """
    index, reader = cache.index, cache.stream(cut)
    labelled = index.label_counts > 0
    if not labelled.any():
        raise ProbeError(
            f"{cache.folder}: none of its {len(index)} pictures has a label; extract class folders "
            f"or a CSV with labels with --out {cache.folder} --replace-source, nothing is computed "
            "again"
        )
    rows = np.flatnonzero(labelled & ~reader.is_skipped(index.hashes))
    if not len(rows):
        first = reader.skips[index.hashes[np.argmax(labelled)].tobytes()]
        raise ProbeError(
            f"{cache.folder}: none of its {labelled.sum()} labelled pictures could be used, the "
            f"first since {first!r}; mend the pictures or the weights, and extract again"
        )
    targets, classes = _targets(cache, index, rows)
    features, views = _features(cache, reader, rows, memory, choice or ViewChoice())
    _refuse_useless(cache, cut, features)
    if views is not None:
        _refuse_useless(cache, cut, views.features)
    groups = index.groups[rows] if (index.groups[rows] >= 0).any() else None
    return LabelledRows(
        features=features,
        targets=targets,
        classes=classes,
        splits=index.splits[rows],
        groups=join_groups(groups, index.hashes[rows]),
        rows=rows,
        hashes=index.hashes[rows],
        views=views,
    )


def _features(
    cache: Cache,
    reader: StreamReader,
    rows: npt.NDArray[np.int64],
    memory: int,
    choice: ViewChoice,
) -> tuple[npt.NDArray[Any], Views | None]:
    """Rows of the plain view, and of all views if there are others."""
    positions = reader.positions(cache.index.hashes[rows])
    reader.require(positions)
    mapped, stream = MappedRows(reader, positions), reader.entry.stream
    chosen = choose_views(cache, stream, choice)
    if chosen:
        return read_views(cache, stream, mapped, chosen, rows, memory)
    if not fits(mapped, memory):
        return cast("npt.NDArray[Any]", mapped), None
    return mapped[:].astype(np.float32, copy=False), None


def _refuse_useless(cache: Cache, cut: str, features: npt.NDArray[Any]) -> None:
    """Refuse rows that are no numbers, which no extraction keeps, and rows that are all equal.

    Raises:
        ProbeError: says how many there are.
    """
    blocks = [slice(start, start + _ROWS) for start in range(0, len(features), _ROWS)]
    broken = sum(int((~np.isfinite(features[b]).all(axis=1)).sum()) for b in blocks)
    if broken:
        raise ProbeError(
            f"{cache.folder}: {broken} of {len(features)} rows of {cut!r} are NaN or infinite, "
            "which featcache never keeps; extract into another --out"
        )
    if not differ(features[block] for block in blocks):
        raise ProbeError(
            f"{cache.folder}: all {len(features)} rows of {cut!r} are equal, so that nothing can "
            "be told apart by them; check the backbone's weights, or probe another --cut"
        )


def _targets(
    cache: Cache, index: Index, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Codes (one label each) or a bool matrix (several), over the classes that rows have."""
    matrix = np.zeros((len(index), len(index.label_names)), np.bool_)
    owners = np.repeat(np.arange(len(index)), index.label_counts)
    matrix[owners, index.label_codes] = True
    present = np.flatnonzero(matrix[rows].any(axis=0))
    classes = tuple(index.label_names[int(code)] for code in present)
    if len(classes) < 2:
        raise ProbeError(
            f"{cache.folder}: {', '.join(classes)!r} is the only class with usable pictures; a "
            "probe needs at least two: add pictures of another class and extract again"
        )
    several = bool((index.label_counts[rows] > 1).any())
    chosen = matrix[np.ix_(rows, present)]
    return (chosen if several else chosen.argmax(axis=1)), classes
