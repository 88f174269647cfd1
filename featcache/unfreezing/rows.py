"""Where what a depth trains from lies, or how it is made, for the pictures of a probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as cache_once

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheMissingError
from featcache.probing import LabelledRows
from featcache.recipe import Preprocessing, View
from featcache.store.cache import Cache, StreamReader
from featcache.store.mapped import MappedRows, StackedRows
from featcache.training.examples import Examples, Indexable
from featcache.unfreezing.depths import Rung
from featcache.unfreezing.pixels import pixels_of


def bytes_of(rows: Indexable) -> int:
    """Of all rows as they are stored."""
    return int(np.prod(rows.shape)) * rows.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of n pictures at a cut, or their pixels.

    Attributes:
        rows: flat; mapped, an array, or made when they are asked for.
        positions: (n, V) rows of each picture's views, the plain one first; a picture that has no
            augmented views (one of the test split) stands there with its plain one.
        shape: of one activation. bytes: of all of them, as stored.
        fresh: an epoch has views that no other has, so that keeping them would be in vain.
    """

    rows: Indexable
    positions: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    bytes: int
    fresh: bool = False

    def examples(self, data: LabelledRows, pictures: npt.NDArray[np.bool_]) -> Examples:
        """Some pictures (n,) bool, to be trained on or judged."""
        at, targets = self.positions[pictures], data.targets[pictures]
        return Examples(self.rows, at, targets, shape=self.shape, made=self.fresh)


def activations_of(
    cache: Cache,
    data: LabelledRows,
    rungs: Sequence[Rung],
    preprocessing: Preprocessing,
    fresh: tuple[View, ...] = (),
) -> list[Activations]:
    """What some depths train from.

    Args:
        cache: of the pictures.
        data: the pictures.
        rungs: the depths, above 0.
        preprocessing: of pixels, where they train from those.
        fresh: views of pixels, the plain one first; none: those that the heads train on too.

    Raises:
        CacheMissingError, CacheIncompleteError: activations were not, or not all, computed.
        SourceMissingError: pixels are needed, and their source is gone.
    """

    @cache_once
    def pixels() -> Activations:
        views = fresh or (View(), *(data.views.views if data.views else ()))
        rows = pixels_of(cache, data, preprocessing, views)
        return Activations(rows, rows.positions, rows.shape[1:], 0, fresh=len(fresh) > 1)

    return [pixels() if rung.from_pixels else _cached(cache, rung, data) for rung in rungs]


def _cached(cache: Cache, rung: Rung, data: LabelledRows) -> Activations:
    plain = cache.stream(rung.cut, pooling="none")
    hashes = cache.index.hashes[data.rows]
    plain_at = plain.positions(hashes)
    plain.require(plain_at)
    parts, places = [MappedRows(plain, plain_at)], [np.arange(len(data))]
    for reader in _view_readers(cache, rung, data, plain):
        at = reader.positions(hashes)
        there = np.flatnonzero(at >= 0)
        place = np.arange(len(data))
        place[there] = sum(map(len, parts)) + np.arange(len(there))
        parts.append(MappedRows(reader, at[there]))
        places.append(place)
    rows = parts[0] if len(parts) == 1 else StackedRows(parts)
    each = int(np.prod(plain.shape)) * rows.dtype.itemsize
    return Activations(rows, np.stack(places, axis=1), tuple(plain.shape), len(rows) * each)


def _view_readers(
    cache: Cache, rung: Rung, data: LabelledRows, plain: StreamReader
) -> list[StreamReader]:
    """Of the views that the heads train on too."""
    if data.views is None:
        return []
    there = cache.views_of(plain.entry.stream)
    lacking = [view for view in data.views.views if view not in there]
    if lacking:
        raise CacheMissingError(
            f"{cache.folder}: no activations of {lacking[0]} at {rung.cut!r}; run `featcache "
            f"extract` with the same --views and --augment and --cut {rung.cut} --pool none, or "
            "probe with --views 1"
        )
    return [there[view] for view in data.views.views]
