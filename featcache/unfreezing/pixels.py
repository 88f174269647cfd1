"""Pictures as rows of pixels, made when they are asked for: read, checked, decoded, augmented."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from featcache.engines import available_cores
from featcache.engines.torch import means_and_deviations, normalised
from featcache.errors import SourceMissingError
from featcache.extraction.pipeline import Pixels, Slot, Unusable, load_views
from featcache.images.loading import pictures_in_order
from featcache.images.policies import FLIP, canonical_policy, views_of
from featcache.images.sources import Source, source_from_locator
from featcache.probing import LabelledRows
from featcache.recipe import PLAIN, Preprocessing, Recipe, View
from featcache.store.cache import Cache


@dataclass(frozen=True, eq=False)
class PixelRows:
    """Views of n pictures as a network takes them; row v n + i is view v of picture i.

    Attributes:
        source: where the pictures are.
        recipe: how files become pixels, at which size; mean and deviation.
        slots: n contents and their paths.
        views: V, the plain one first.
        threads: that decode.
    """

    source: Source
    recipe: Recipe
    slots: tuple[Slot, ...]
    views: tuple[View, ...]
    threads: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(V n, 3, H, W)."""
        return (len(self.views) * len(self.slots), 3, *self.recipe.preprocessing.size)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Float32: nothing is rounded."""
        return np.dtype(np.float32)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """(n, V) rows of each picture's views."""
        return np.arange(self.shape[0]).reshape(len(self.views), -1).T.copy()

    def __getitem__(self, key: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(b, 3, H, W) normalised pixels of rows (b,).

        Raises:
            SourceMissingError: a picture is gone, or is not what it was.
        """
        if not len(key):
            return np.empty((0, *self.shape[1:]), np.float32)
        pixels = torch.from_numpy(np.concatenate(list(self._loaded(key))))
        values = normalised(pixels, *means_and_deviations(self.recipe.preprocessing))
        return values.contiguous().numpy()

    def _loaded(self, key: npt.NDArray[np.int64]) -> Iterator[Pixels]:
        """(1, H, W, 3) pixels of each row."""
        rows = [divmod(int(row), len(self.slots)) for row in key]
        ahead = 2 * self.threads
        loading = pictures_in_order(self._load, rows, threads=self.threads, ahead=ahead)
        with closing(loading) as outcomes:
            for (_, picture), outcome in zip(rows, outcomes, strict=True):
                if isinstance(outcome, Unusable):
                    raise SourceMissingError(
                        f"{self.slots[picture].path}: the picture cannot be read as it was "
                        f"({outcome.reason}); run `featcache extract` again, then probe again"
                    )
                yield outcome

    def _load(self, row: tuple[int, int]) -> Pixels | Unusable:
        view, picture = row
        some = (self.views[view],)
        return load_views(self.source, self.recipe, some, self.slots[picture])


def pixels_of(
    cache: Cache, data: LabelledRows, preprocessing: Preprocessing, views: tuple[View, ...]
) -> PixelRows:
    """The pictures of a probe, from the source that the cache was made from.

    Raises:
        SourceMissingError: it is gone.
    """
    index = cache.index
    slots = tuple(Slot(index.hashes[row].tobytes(), index.paths[int(row)]) for row in data.rows)
    source = source_from_locator(cache.manifest.source)
    recipe = replace(cache.manifest.recipe, preprocessing=preprocessing)
    return PixelRows(source, recipe, slots, views, available_cores())


def fresh_views(policy: str, seed: int, first: int, count: int) -> tuple[View, ...]:
    """The plain view, and `count` of a policy from number `first` (0, 1, ...) on.

    Where a policy has no more than one or two views, those are all there are.

    Raises:
        AugmentationError: no such policy or seed.
    """
    name = canonical_policy(policy)
    if name in (PLAIN, FLIP):
        return views_of(name, 1 if name == PLAIN else 2)
    return (View(), *views_of(name, 1 + first + count, seed)[1 + first :])
