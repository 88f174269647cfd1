"""Which rows may be held out together: folds that are stratified and never split a group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from featcache.errors import ProbeError


def join_groups(groups: np.ndarray | None, hashes: np.ndarray) -> np.ndarray:
    """Ids of what must stay together: rows that share a group or their content, transitively.

    Args:
        groups: (n,) int, -1 where a row has no group; None where no row has one.
        hashes: (n, 32) uint8 content hashes.

    Returns:
        (n,) int64 ids from 0, numbered by first appearance.
    """
    n = len(hashes)
    _, content = np.unique(np.ascontiguousarray(hashes).view("V32")[:, 0], return_inverse=True)
    given = np.full(n, -1) if groups is None else groups
    grouped = np.flatnonzero(given >= 0)
    _, group = np.unique(given[grouped], return_inverse=True)
    # rows, contents and groups are the nodes of one graph; a row is joined to its content and group
    source = np.concatenate([np.arange(n), grouped])
    target = np.concatenate([n + content, n + n + group])
    links = coo_array((np.ones(len(source), bool), (source, target)), shape=(3 * n, 3 * n))
    _, component = connected_components(links, directed=False)
    return _by_appearance(component[:n])


def _by_appearance(ids: np.ndarray) -> np.ndarray:
    _, first, position = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[position]


@dataclass(frozen=True, eq=False)
class Folds:
    """A partition of the rows that may be held out.

    Attributes:
        held_out: (n,) int64: the fold in which a row is held out; -1: it trains in every fold.
        count: number of folds.
        only_train: classes that are never held out, because all their rows are in one group.
    """

    held_out: np.ndarray
    count: int
    only_train: tuple[int, ...]

    def train(self, fold: int) -> np.ndarray:
        """(n,) bool: the rows that train where `fold` is held out."""
        return self.held_out != fold

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


def stratified_folds(targets: np.ndarray, groups: np.ndarray, cv: int, seed: int) -> Folds:
    """Folds in which classes are spread evenly and groups stay whole.

    There are min(cv, groups of the smallest class) folds, among the classes with two groups or
    more. A class within one group cannot be both trained on and held out: its group only trains,
    with every row in it (so that nothing held out shares a group with a training row). Rows that
    are all groups of their own are split by scikit-learn's StratifiedKFold, others by its
    StratifiedGroupKFold, both shuffled by `seed`. With several labels a row the groups are dealt
    to the folds in shuffled order, not stratified, and no label is kept from being held out.

    Args:
        targets: (n,) int codes, or (n, K) bool labels.
        groups: (n,) int ids, as `join_groups` gives them.
        cv: the number of folds asked for.
        seed: of the shuffle; the same seed gives the same folds.

    Raises:
        ProbeError: fewer than two folds, or fewer than two classes that can be held out.
    """
    if cv < 2:
        raise ProbeError(f"cv is {cv}; cross-validation needs at least 2 folds")
    if targets.ndim == 2:
        return _dealt_folds(groups, cv, seed)
    only_train, free = _only_training(targets, groups)
    sizes = _groups_per_class(targets[free], groups[free])
    if len(sizes) < 2:
        raise ProbeError(
            f"{len(sizes)} of {len(np.unique(targets))} classes can be held out, 2 are needed; a "
            "class can be where its pictures are in at least 2 groups (rows with the same bytes "
            "are one group): add pictures, or separate groups that need not stay together"
        )
    count = min(cv, *sizes.values())
    held_out = np.full(len(targets), -1, np.int64)
    held_out[free] = _split(targets[free], groups[free], count, seed)
    return Folds(held_out, count, only_train)


def _groups_per_class(targets: np.ndarray, groups: np.ndarray) -> dict[int, int]:
    pairs = np.unique(np.stack([targets, groups], axis=1), axis=0)
    classes, counts = np.unique(pairs[:, 0], return_counts=True)
    return dict(zip(classes.tolist(), counts.tolist(), strict=True))


def _only_training(targets: np.ndarray, groups: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Classes that only train, and (n,) bool of the rows that may be held out.

    Keeping a group in training can leave another class with a single free group: repeat.
    """
    free = np.ones(len(targets), bool)
    only_train: set[int] = set()
    while True:
        sizes = _groups_per_class(targets[free], groups[free])
        lone = {c for c, size in sizes.items() if size < 2}
        if not lone:
            return tuple(sorted(only_train)), free
        only_train |= lone
        kept = np.unique(groups[np.isin(targets, list(lone))])
        free &= ~np.isin(groups, kept)


def _split(targets: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    if len(np.unique(groups)) == len(groups):
        splits = StratifiedKFold(count, shuffle=True, random_state=seed).split(targets, targets)
    else:
        by_group = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        splits = by_group.split(targets, targets, groups)
    held_out = np.empty(len(targets), np.int64)
    for fold, (_, rows) in enumerate(splits):
        held_out[rows] = fold
    return held_out


def _dealt_folds(groups: np.ndarray, cv: int, seed: int) -> Folds:
    ids, position = np.unique(groups, return_inverse=True)
    count = min(cv, len(ids))
    if count < 2:
        raise ProbeError(
            f"all {len(groups)} rows are in {len(ids)} group, 2 are needed to hold one out; add "
            "pictures, or separate groups that need not stay together"
        )
    deal = np.random.default_rng(seed).permutation(len(ids)) % count
    return Folds(deal[position], count, ())
