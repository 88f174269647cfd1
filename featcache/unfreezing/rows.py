"""Where the activations of a cut lie, for the pictures of a probe, view by view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheMissingError
from featcache.probing import LabelledRows
from featcache.store.cache import Cache, StreamReader
from featcache.store.mapped import MappedRows, StackedRows
from featcache.training.examples import Examples
from featcache.unfreezing.depths import PIXELS, Rung


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of n pictures at a cut.

    Attributes:
        rows: mapped, flat.
        positions: (n, V) rows of each picture's views, the plain one first; a picture that has no
            augmented views (one of the test split) stands there with its plain one.
        shape: of one activation. bytes: of all of them, as stored.
    """

    rows: MappedRows | StackedRows
    positions: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    bytes: int

    def examples(self, data: LabelledRows, pictures: npt.NDArray[np.bool_]) -> Examples:
        """Some pictures (n,) bool, to be trained on or judged."""
        targets = data.targets[pictures]
        return Examples(self.rows, self.positions[pictures], targets, shape=self.shape)


def activations_of(cache: Cache, rung: Rung, data: LabelledRows) -> Activations:
    """Those that a depth trains from.

    Raises:
        CacheMissingError, CacheIncompleteError: they were not, or not all, computed.
    """
    if rung.cut == PIXELS:
        raise CacheMissingError(
            f"depth {rung.depth} trains the whole network, for which nothing is cached; give a "
            "smaller depth"
        )
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
