"""The pictures that several caches have, in one order: what a comparison is paired by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.splits import join_groups
from featcache.probing import LabelledRows
from featcache.store.cache import Cache
from featcache.store.index import SPLITS, opaque
from featcache.store.mapped import MappedRows

_NAMED = 5

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CommonRows:
    """Rows of the same pictures in several caches.

    Attributes:
        chosen: of each cache's labelled rows, those to compare, in one order; None: all of them, in
            the order they have.
        count: pictures that are compared.
        warnings: what was left out.
    """

    chosen: tuple[Rows, ...] | None
    count: int
    warnings: tuple[str, ...] = ()

    def of(self, number: int, data: LabelledRows) -> LabelledRows:
        """The rows of a cache, by its number, that are compared."""
        if self.chosen is None:
            return data
        rows = self.chosen[number]
        features = data.features
        return replace(
            data,
            features=features.at(rows) if isinstance(features, MappedRows) else features[rows],
            targets=data.targets[rows],
            splits=data.splits[rows],
            groups=join_groups(data.groups[rows], data.hashes[rows]),
            rows=data.rows[rows],
            hashes=data.hashes[rows],
        )


def common_rows(caches: Sequence[Cache], data: Sequence[LabelledRows]) -> CommonRows:
    """Find the pictures that all caches have, by content.

    Where the caches list the same pictures in the same order, all are taken as they are. Else one
    row a content is, ordered by content.

    Args:
        caches: two at least.
        data: their labelled rows, of the plain view.

    Raises:
        ProbeError: other classes, labels, splits or groups; or no picture in common.
    """
    _refuse_other_classes(caches, data)
    if all(_is_same(data[0], other) for other in data[1:]):
        return CommonRows(None, len(data[0]))
    firsts = [np.unique(opaque(each.hashes), return_index=True) for each in data]
    both = reduce(np.intersect1d, (keys for keys, _ in firsts))
    if not len(both):
        raise ProbeError(
            f"{_named(caches)} have no picture in common, so nothing can be compared; extract the "
            "same pictures with each backbone"
        )
    chosen = tuple(rows[np.searchsorted(keys, both)] for keys, rows in firsts)
    found = CommonRows(chosen, len(both), (_left_out(caches, data, len(both)),))
    _refuse_other_labels(caches, [found.of(i, each) for i, each in enumerate(data)])
    return found


def _is_same(first: LabelledRows, other: LabelledRows) -> bool:
    pairs = ((getattr(first, name), getattr(other, name)) for name in _COMPARED)
    return np.array_equal(first.hashes, other.hashes) and all(np.array_equal(*p) for p in pairs)


_COMPARED = {"targets": "labels", "splits": "splits", "groups": "groups"}
"""What must be the same of a picture in all caches, and what it is called."""


def _refuse_other_classes(caches: Sequence[Cache], data: Sequence[LabelledRows]) -> None:
    for cache, other in zip(caches[1:], data[1:], strict=True):
        ours, theirs = set(data[0].classes), set(other.classes)
        if ours != theirs:
            only = [
                f"only {folder} has {_list(sorted(names))}"
                for folder, names in (
                    (caches[0].folder, ours - theirs),
                    (cache.folder, theirs - ours),
                )
                if names
            ]
            raise ProbeError(
                f"classes differ: {'; '.join(only)}; compare caches of the same labelled pictures"
            )


def _refuse_other_labels(caches: Sequence[Cache], data: Sequence[LabelledRows]) -> None:
    """Refuse pictures that are labelled, split or grouped otherwise in another cache."""
    for cache, other in zip(caches[1:], data[1:], strict=True):
        for field, name in _COMPARED.items():
            apart = _apart(getattr(data[0], field), getattr(other, field))
            if len(apart):
                picture = cache.index.paths[int(other.rows[apart[0]])]
                raise ProbeError(
                    f"{len(apart)} pictures have other {name} in {cache.folder} than in "
                    f"{caches[0].folder}, {picture!r} for one"
                    f"{_both(field, data[0], other, int(apart[0]))}; extract both again from the "
                    "same source (nothing is computed again)"
                )


def _apart(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> Rows:
    """Rows that differ; all of them where one cache has several labels a picture."""
    if ours.shape != theirs.shape:
        return np.arange(len(ours))
    differ = ours != theirs
    return np.flatnonzero(differ if differ.ndim == 1 else differ.any(axis=1))


def _both(field: str, first: LabelledRows, other: LabelledRows, row: int) -> str:
    """What the two say of a row, where that has a name."""
    if field == "groups":
        return ""
    name = _labels if field == "targets" else _split
    return f" ({name(other, row)} and {name(first, row)})"


def _labels(data: LabelledRows, row: int) -> str:
    target = data.targets[row]
    codes = [int(target)] if data.targets.ndim == 1 else np.flatnonzero(target).tolist()
    return repr(";".join(data.classes[code] for code in codes))


def _split(data: LabelledRows, row: int) -> str:
    code = int(data.splits[row])
    return repr(SPLITS[code] if code >= 0 else "no split")


def _left_out(caches: Sequence[Cache], data: Sequence[LabelledRows], count: int) -> str:
    sizes = ", ".join(
        f"{len(each)} in {cache.folder}" for cache, each in zip(caches, data, strict=True)
    )
    return (
        f"compared on the {count} different pictures that all caches have ({sizes}); the others "
        "are left out"
    )


def _named(caches: Sequence[Cache]) -> str:
    return " and ".join(str(cache.folder) for cache in caches)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
