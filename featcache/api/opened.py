"""`open_cache`: a cache's rows as arrays without a copy; what `extract` returns gives them too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featcache.api.requests import PathLike
from featcache.errors import CacheIncompleteError, CacheMissingError, ProbeError
from featcache.naming import shown
from featcache.recipe import PENULTIMATE, Pooling
from featcache.results import ExtractResult, FeatureInfo
from featcache.results.looking import Shown, cell, listed
from featcache.results.tables import frame_of
from featcache.store.arrays import FeatureRows, Located, rows_of
from featcache.store.cache import Cache, StreamReader
from featcache.store.index import NO_SPLIT, SPLITS

if TYPE_CHECKING:
    from pandas import DataFrame

Array = npt.NDArray[Any]

_UNSPLIT = "none"
_TRAIN, _TEST = "train", "test"


def open_cache(cache: PathLike, *, trust: bool = False) -> FeatureCache:
    """Open a cache, to take its features and labels as arrays.

    Args:
        cache: folder of a cache, or what `extract` returned.
        trust: do not hash the shards before reading them.

    Raises:
        CacheMissingError, CacheDamagedError: there is no cache, or it is damaged.
    """
    return FeatureCache(os.fspath(cache), trust=trust)


class FeatureCache(Shown, os.PathLike[str]):
    """A cache of features, opened for reading; usable wherever the path of a cache is.

    The rows of `features`, `labels`, `label_matrix`, `paths`, `groups` and `splits` are those of
    the same pictures: all that have a feature, in the order in which these lie on disk. They stay
    those of the moment when the cache was opened.

    Attributes:
        cache: its folder.
    """

    def __init__(self, cache: PathLike, *, trust: bool = False) -> None:
        """Open a folder; see `open_cache`."""
        self.cache, self._trust = os.fspath(cache), trust
        self._readers: dict[str, StreamReader] = {}
        _ = self._opened.index  # refuses what is none

    @property
    def classes(self) -> tuple[str, ...]:
        """K class names, sorted."""
        return tuple(self._opened.index.label_names)

    @property
    def cuts(self) -> dict[str, FeatureInfo]:
        """By cut: shape of a picture's row, and its stored dtype."""
        named = dict.fromkeys(e.stream.cut for e in self._opened.manifest.streams.values())
        entries = {cut: self._opened.stream(cut).entry for cut in named}
        return {cut: FeatureInfo(e.shape, e.stream.dtype) for cut, e in entries.items()}

    def features(
        self,
        split: str | None = None,
        *,
        cut: str = PENULTIMATE,
        pooling: Pooling | None = None,
        views: int | None = 1,
        augment: str | None = None,
        augment_seed: int | None = None,
    ) -> Array | FeatureRows:
        """Rows of activations, without copying.

        Args:
            split: "train" (whatever is not marked val or test, as `probe` has it), "val" or "test";
                None: all pictures.
            cut: which activations; `cuts` names those there are.
            pooling: of these activations, where the cache has several.
            views: how many of each picture, the plain one first; None: all there are.
            augment: policy of the others, where the cache has those of several.
            augment_seed: the same of their seed.

        Returns:
            (n, *row) in the stored dtype, or (n, V, *row) for any `views` but 1. An array, part of
            the file's map and read-only, where these rows lie side by side in one file; else
            `FeatureRows`, which are read when they are indexed. `np.asarray` makes either an array.

        Raises:
            CacheMissingError: there are no such activations, or no picture is marked so.
            CacheIncompleteError: some of their rows were never computed.
            ProbeError: there are not those views.
            CacheDamagedError: a file is not as it was committed.
        """
        opened, rows = self._opened, self._rows(split)
        plain, hashes = opened.stream(cut, pooling=pooling), opened.index.hashes[rows]
        if views == 1:
            return rows_of(Located.of(self._kept(plain), hashes))
        from featcache.probing.views import ViewChoice, choose_views  # scikit-learn takes a second

        stream = plain.entry.stream
        others = choose_views(opened, stream, ViewChoice(views, augment, augment_seed))
        self._refuse_judged(rows, bool(others))
        readers = opened.views_of(stream)
        chosen = [self._kept(reader) for reader in (plain, *(readers[view] for view in others))]
        return FeatureRows([Located.of(reader, hashes) for reader in chosen], stacked=True)

    def labels(self, split: str | None = None) -> Array:
        """(n,) class names, row by row as `features` gives them; None where a picture has none.

        Args:
            split: as of `features`.

        Raises:
            ProbeError: pictures have several labels; `label_matrix` has them.
            CacheMissingError: no picture is marked so.
        """
        index, rows = self._opened.index, self._rows(split)
        counts = index.label_counts[rows]
        if counts.max(initial=0) > 1:
            raise ProbeError(
                f"{self._opened.folder}: {(counts > 1).sum()} of {len(rows)} pictures have several "
                "labels; take label_matrix() instead of labels()"
            )
        names = np.array([*index.label_names, None], object)
        codes = np.full(len(rows), -1)
        labelled = counts == 1
        codes[labelled] = index.label_codes[index.label_offsets[rows[labelled]]]
        found = names[codes]
        return found.astype(str) if labelled.all() else found

    def label_matrix(self, split: str | None = None) -> npt.NDArray[np.bool_]:
        """(n, K) which of the K classes each picture has; see `labels`."""
        index, rows = self._opened.index, self._rows(split)
        matrix = np.zeros((len(index), len(index.label_names)), np.bool_)
        matrix[np.repeat(np.arange(len(index)), index.label_counts), index.label_codes] = True
        return matrix[rows]

    def paths(self, split: str | None = None) -> list[str]:
        """Names of the n pictures within their source; see `labels`."""
        names = list(self._opened.index.paths)
        return [names[row] for row in self._rows(split).tolist()]

    def groups(self, split: str | None = None) -> npt.NDArray[np.int64]:
        """(n,) one number for pictures that must stay together; see `labels`.

        They are of one group, or the same byte for byte: what `GroupKFold` takes as `groups`.
        """
        from featcache.evaluation.splits import join_groups  # scikit-learn, as above

        index, rows = self._opened.index, self._rows(split)
        return join_groups(index.groups[rows], index.hashes[rows])

    def splits(self) -> npt.NDArray[np.str_]:
        """(n,) "train", "val" or "test", as the data says; "none" where it says nothing."""
        names = np.array([*SPLITS, _UNSPLIT])
        return names[self._opened.index.splits[self._rows(None)]]

    def _rows(self, split: str | None) -> npt.NDArray[np.int64]:
        """(n,) rows of the index, in the order of the penultimate feature's rows on disk.

        Raises:
            CacheMissingError: no picture is marked so.
            CacheIncompleteError: rows were never computed.
        """
        rows = self._stored
        if split is None:
            return rows
        splits = self._opened.index.splits[rows]
        if split == _TRAIN:
            chosen = (splits == NO_SPLIT) | (splits == SPLITS.index(_TRAIN))
        else:
            chosen = splits == (SPLITS.index(split) if split in SPLITS else len(SPLITS))
        if not chosen.any():
            names, counts = np.unique(self.splits(), return_counts=True)
            there = ", ".join(f"{name} ({n})" for name, n in zip(names, counts, strict=True))
            raise CacheMissingError(
                f"{self._opened.folder}: no picture of split {split!r}; there are: {there}"
            )
        return rows[chosen]

    @cached_property
    def _opened(self) -> Cache:
        return Cache(Path(self.cache), trust=self._trust)

    @cached_property
    def _stored(self) -> npt.NDArray[np.int64]:
        index, reader = self._opened.index, self._opened.stream()
        rows = np.flatnonzero(~reader.is_skipped(index.hashes))
        positions = reader.positions(index.hashes[rows])
        reader.require(positions)
        return rows[np.argsort(positions, kind="stable")]

    def _kept(self, reader: StreamReader) -> StreamReader:
        """The reader of the same stream that was used first: it has its shards mapped."""
        return self._readers.setdefault(reader.entry.stream.key, reader)

    def _refuse_judged(self, rows: npt.NDArray[np.int64], augmented: bool) -> None:
        if augmented and (self._opened.index.splits[rows] == SPLITS.index(_TEST)).any():
            raise CacheIncompleteError(
                f"{self._opened.folder}: pictures marked test have the plain view alone; ask for "
                "split='train', or for views=1"
            )

    def to_frame(self) -> DataFrame:
        """A pandas data frame of the pictures: path, labels (joined by ";"), split and group.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        index = self._opened.index
        columns = zip(self._stored, self.paths(), self.splits(), self.groups(), strict=True)
        return frame_of(
            [
                {
                    "path": path,
                    "label": ";".join(index.labels_of(row)),
                    "split": split,
                    "group": own,
                }
                for row, path, split, own in columns
            ]
        )

    def _headline(self) -> dict[str, str]:
        kept = [f"{cut} {cell(info.shape)} {info.dtype}" for cut, info in self.cuts.items()]
        return {
            "cache": shown(self.cache),
            "pictures": f"{len(self)} in {len(self.classes)} classes",
            "cuts": listed(kept),
            "classes": listed(self.classes),
        }

    def __len__(self) -> int:
        return len(self._stored)

    def __fspath__(self) -> str:
        return self.cache

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: it is opened again where it is needed."""
        return {"cache": self.cache, "_trust": self._trust, "_readers": {}}


class CutFeatures(dict[str, FeatureInfo]):
    """By cut: shape of a picture's row, and its stored dtype; called, it gives the rows.

    `cache.features["penultimate"].shape` is a shape, `cache.features(split="train")` are rows; see
    `FeatureCache.features`.
    """

    def __init__(self, infos: Iterable[tuple[str, FeatureInfo]] | dict[str, FeatureInfo]) -> None:
        """Take what is kept, by cut."""
        super().__init__(infos)
        self.opened: Callable[[], FeatureCache] | None = None

    def __call__(self, split: str | None = None, **options: Any) -> Array | FeatureRows:
        """Rows of activations, without copying; see `FeatureCache.features`."""
        if self.opened is None:
            raise TypeError("these are shapes alone; open_cache() gives the rows")
        return self.opened().features(split, **options)


@dataclass(frozen=True, repr=False)
class ExtractedCache(ExtractResult):
    """What `extract` did, and the rows that are now in its cache, as `open_cache` gives them.

    Attributes:
        features: by cut; called, they are the rows: `cache.features(split="train")`.
    """

    features: CutFeatures

    def __post_init__(self) -> None:
        features = CutFeatures(self.features)
        features.opened = self.open
        object.__setattr__(self, "features", features)

    def open(self) -> FeatureCache:
        """The cache as it was when it was first asked for."""
        return self._opened

    def labels(self, split: str | None = None) -> Array:
        """(n,) class names; see `FeatureCache.labels`."""
        return self._opened.labels(split)

    def label_matrix(self, split: str | None = None) -> npt.NDArray[np.bool_]:
        """(n, K) which classes each picture has; see `FeatureCache.label_matrix`."""
        return self._opened.label_matrix(split)

    def paths(self, split: str | None = None) -> list[str]:
        """Names of the n pictures; see `FeatureCache.paths`."""
        return self._opened.paths(split)

    def groups(self, split: str | None = None) -> npt.NDArray[np.int64]:
        """(n,) one number for what must stay together; see `FeatureCache.groups`."""
        return self._opened.groups(split)

    def splits(self) -> npt.NDArray[np.str_]:
        """(n,) the split of each picture; see `FeatureCache.splits`."""
        return self._opened.splits()

    @cached_property
    def _opened(self) -> FeatureCache:
        return FeatureCache(self.cache)
