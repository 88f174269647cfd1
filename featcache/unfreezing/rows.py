"""Where what a depth trains from lies, or how it is made, for the pictures of a probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache as cache_once

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheMissingError
from featcache.probing import LabelledRows, cropped_rows
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
        shape: of one activation. bytes: of those that train or are judged, as stored.
        fresh: an epoch has views that no other has, so that keeping them would be in vain.
        crops: (n, N) rows of each picture's crops, which are predicted and nothing else; a picture
            without one stands there with its plain one. None: there are none.
    """

    rows: Indexable
    positions: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    bytes: int
    fresh: bool = False
    crops: npt.NDArray[np.int64] | None = None

    def examples(self, data: LabelledRows, pictures: npt.NDArray[np.bool_]) -> Examples:
        """Some pictures (n,) bool, to be trained on or judged."""
        return self._at(self.positions, data, pictures)

    def cropped(self, data: LabelledRows, pictures: npt.NDArray[np.bool_]) -> list[Examples]:
        """Some pictures (n,) bool by each of their crops, to be predicted."""
        crops = () if self.crops is None else self.crops.T
        return [self._at(positions, data, pictures) for positions in crops]

    def _at(
        self,
        positions: npt.NDArray[np.int64],
        data: LabelledRows,
        pictures: npt.NDArray[np.bool_],
    ) -> Examples:
        at, targets = positions[pictures], data.targets[pictures]
        return Examples(self.rows, at, targets, shape=self.shape, made=self.fresh)


def activations_of(
    cache: Cache,
    data: LabelledRows,
    rungs: Sequence[Rung],
    preprocessing: Preprocessing,
    fresh: tuple[View, ...] = (),
    crops: tuple[View, ...] = (),
) -> list[Activations]:
    """What some depths train from.

    Args:
        cache: of the pictures.
        data: the pictures.
        rungs: the depths, above 0.
        preprocessing: of pixels, where they train from those.
        fresh: views of pixels, the plain one first; none: those that the heads train on too.
        crops: views that are predicted beside the plain one of what is judged.

    Raises:
        CacheMissingError, CacheIncompleteError: activations were not, or not all, computed.
        SourceMissingError: pixels are needed, and their source is gone.
    """

    @cache_once
    def pixels() -> Activations:
        views = fresh or (View(), *(data.views.views if data.views else ()))
        rows = pixels_of(cache, data, preprocessing, (*views, *crops))
        found = Activations(rows, rows.positions, rows.shape[1:], 0, fresh=len(fresh) > 1)
        return _apart(found, len(crops))

    return [pixels() if rung.from_pixels else _cached(cache, rung, data, crops) for rung in rungs]


def _apart(found: Activations, crops: int) -> Activations:
    """The same, the last so many views being crops."""
    if not crops:
        return found
    positions, cropped = np.split(found.positions, [-crops], axis=1)
    return replace(found, positions=positions, crops=cropped)


def _cached(cache: Cache, rung: Rung, data: LabelledRows, crops: tuple[View, ...]) -> Activations:
    plain = cache.stream(rung.cut, pooling="none")
    hashes = cache.index.hashes[data.rows]
    plain_at = plain.positions(hashes)
    plain.require(plain_at)
    parts = [(MappedRows(plain, plain_at), np.arange(len(data)))]
    for reader in _view_readers(cache, rung, data, plain):
        at = reader.positions(hashes)
        there = np.flatnonzero(at >= 0)
        parts.append((MappedRows(reader, at[there]), there))
    size = sum(bytes_of(rows) for rows, _ in parts)
    parts += cropped_rows(cache, plain.entry.stream, crops, data.rows).parts
    rows, positions = _stacked(parts)
    return _apart(Activations(rows, positions, tuple(plain.shape), size), len(crops))


def _stacked(
    parts: Sequence[tuple[MappedRows, npt.NDArray[np.int64]]],
) -> tuple[MappedRows | StackedRows, npt.NDArray[np.int64]]:
    """Rows of views, one below the other, and where each picture's are, as `Activations` says.

    Args:
        parts: for each of V views its rows, and the picture that each is of; all plain ones first.
    """
    plain = parts[0][1]
    positions = np.repeat(plain[:, None], len(parts), axis=1)
    first = 0
    for view, (rows, owners) in enumerate(parts):
        positions[owners, view] = first + np.arange(len(rows))
        first += len(rows)
    mapped = [rows for rows, _ in parts]
    return mapped[0] if len(mapped) == 1 else StackedRows(mapped), positions


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
