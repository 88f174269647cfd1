"""Augmented views of pictures: rows that train beside the plain one, and are never measured on.

A picture stands for one row everywhere in `probing`: folds, splits, counts and scores know pictures
alone. Its other views join it only where heads are fitted, so none can stand on the other side of
a split. Each of its V rows weighs 1/V there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheIncompleteError, CacheMissingError, ProbeError
from featcache.images.policies import canonical_policy
from featcache.recipe import PENULTIMATE, TTA, Stream, View
from featcache.store.cache import Cache, StreamReader
from featcache.store.mapped import MappedRows, StackedRows


@dataclass(frozen=True)
class ViewChoice:
    """Which cached views heads train on.

    Attributes:
        count: how many of a picture, the plain one included; None: all there are.
        policy, seed: of the others; needed where the cache has those of several.
    """

    count: int | None = None
    policy: str | None = None
    seed: int | None = None

    @property
    def given(self) -> bool:
        """Whether anything but the plain view was asked for by name."""
        return self.count not in (None, 1) or (self.policy, self.seed) != (None, None)


@dataclass(frozen=True, eq=False)
class Views:
    """All rows of n pictures that have several views.

    Attributes:
        views: V - 1 of one policy and seed, in order.
        features: (m, D), the plain rows of the pictures in their order, then those of each view;
            as `LabelledRows.features`, an array or a memory map.
        owners: (m,) int64, the picture from 0 to n - 1 that each row is a view of.
    """

    views: tuple[View, ...]
    features: npt.NDArray[Any]
    owners: npt.NDArray[np.int64]

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(m,): a picture's rows weigh 1 together."""
        return 1 / np.bincount(self.owners)[self.owners]

    def plain_only(self, pictures: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(..., m) the plain rows of some pictures (..., n)."""
        others = len(self.owners) - pictures.shape[-1]
        return np.pad(pictures, [(0, 0)] * (pictures.ndim - 1) + [(0, others)])


def choose_views(cache: Cache, stream: Stream, choice: ViewChoice) -> tuple[View, ...]:
    """The augmented views of a stream that are meant; none where only the plain one is.

    Raises:
        ProbeError: they are not there, or those of several policies or seeds are.
    """
    if choice.count == 1:
        return ()
    sets = _sets(cache.views_of(stream))
    policy = None if choice.policy is None else canonical_policy(choice.policy)
    fitting = [
        views
        for (name, seed), views in sets.items()
        if policy in (None, name) and choice.seed in (None, seed)
    ]
    if not fitting and not choice.given:
        return ()
    there = ", ".join(f"{p} (seed {s}): {len(v) + 1}" for (p, s), v in sets.items()) or "none"
    if len(fitting) != 1:
        what = "views of several policies or seeds" if fitting else "no such views"
        raise ProbeError(
            f"{cache.folder}: {what} of this cut; there are: {there}. Choose by --augment and "
            "--augment-seed, or take the plain one by --views 1"
        )
    wanted = len(fitting[0]) if choice.count is None else choice.count - 1
    if not 0 < wanted <= len(fitting[0]):
        raise ProbeError(
            f"{cache.folder}: {choice.count} views asked for; there are: {there}. Give fewer, or "
            "run `featcache extract` with more --views"
        )
    return fitting[0][:wanted]


def _sets(views: Iterable[View]) -> dict[tuple[str, int], tuple[View, ...]]:
    """Views for training by policy and seed, the plain one left out."""
    sets: dict[tuple[str, int], tuple[View, ...]] = {}
    for view in views:
        if view.only_trains:
            key = view.policy, view.seed
            sets[key] = (*sets.get(key, ()), view)
    return sets


def read_views(
    cache: Cache,
    stream: Stream,
    plain: MappedRows,
    views: tuple[View, ...],
    rows: npt.NDArray[np.int64],
    memory: int,
) -> tuple[npt.NDArray[Any], Views]:
    """The plain rows (n, D), and rows of views of all pictures that may train.

    Args:
        cache: where they are.
        stream: of the plain view.
        plain: the pictures' rows of it.
        views: see `choose_views`.
        rows: (n,) the pictures, as rows of the index.
        memory: bytes to stay within, about.

    Raises:
        CacheIncompleteError: some were never computed.
    """
    parts, owners = [plain], [np.arange(len(rows))]
    readers = cache.views_of(stream)
    for view in views:
        found, own = _of_view(cache, readers[view], rows)
        parts.append(found)
        owners.append(own)
    stacked = StackedRows(parts)
    own = np.concatenate(owners)
    if not fits(stacked, memory):
        mapped = cast("tuple[npt.NDArray[Any], npt.NDArray[Any]]", (plain, stacked))
        return mapped[0], Views(views, mapped[1], own)
    features = stacked[:].astype(np.float32, copy=False)
    return features[: len(rows)], Views(views, features, own)


@dataclass(frozen=True, eq=False)
class CroppedRows:
    """Crops of pictures that are predicted beside the plain view, mapped.

    Attributes:
        parts: for each crop its rows, and the picture from 0 to n - 1 that each is of, ascending.
    """

    parts: tuple[tuple[MappedRows, npt.NDArray[np.int64]], ...]


def crop_views(cache: Cache, cut: str = PENULTIMATE) -> tuple[View, ...]:
    """The crops that `extract --tta` made of a cut; of several seeds, those of the most.

    Raises:
        ProbeError: there are none.
    """
    crops = [v for v in cache.views_of(cache.stream(cut).entry.stream) if v.policy == TTA]
    seeds = [view.seed for view in crops]
    if not seeds:
        raise ProbeError(
            f"{cache.folder}: no crops of cut {cut!r} to predict from; make some with "
            "`featcache extract` and --tta N"
        )
    most = max(sorted(set(seeds)), key=seeds.count)
    return tuple(view for view in crops if view.seed == most)


def cropped_rows(
    cache: Cache, stream: Stream, crops: Sequence[View], rows: npt.NDArray[np.int64]
) -> CroppedRows:
    """Crops of some pictures.

    Args:
        cache: where they are.
        stream: of the plain view.
        crops: see `crop_views`.
        rows: (n,) the pictures, as rows of the index.

    Raises:
        CacheMissingError: the stream has no such view.
        CacheIncompleteError: some were never computed.
    """
    readers = cache.views_of(stream)
    if lacking := [view for view in crops if view not in readers]:
        raise CacheMissingError(
            f"{cache.folder}: no activations of {lacking[0]} at {stream.cut!r}; run `featcache "
            f"extract` with --cut {stream.cut} --pool {stream.pooling} and {_asking(lacking[0])}"
        )
    return CroppedRows(tuple(_of_view(cache, readers[view], rows) for view in crops))


def fits(mapped: MappedRows | StackedRows, memory: int) -> bool:
    """Whether rows take less than half of the memory as float32."""
    return 4 * len(mapped) * mapped.shape[1] <= memory // 2


def _asking(view: View) -> str:
    """The options that compute a view, and those that do without."""
    if view.policy == TTA:
        return "--tta again, or probe without"
    return f"--views and --augment {view.policy} again, or probe with --views 1"


def _of_view(
    cache: Cache, reader: StreamReader, rows: npt.NDArray[np.int64]
) -> tuple[MappedRows, npt.NDArray[np.int64]]:
    """Rows of one view, and the picture each is of; what could not be used is left out."""
    index, view = cache.index, reader.entry.stream.view
    own = np.flatnonzero(index.wanting(view)[rows])
    hashes = index.hashes[rows[own]]
    own = own[~reader.is_skipped(hashes)]
    positions = reader.positions(index.hashes[rows[own]])
    if positions.min(initial=0) < 0:
        raise CacheIncompleteError(
            f"{cache.folder}: {(positions < 0).sum()} pictures have no row of {view}; run "
            f"`featcache extract` with {_asking(view)}"
        )
    return MappedRows(reader, positions), own
