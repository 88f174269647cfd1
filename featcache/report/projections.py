"""Maps of the features: many numbers a picture, laid out on a plane."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.store.cache import Cache

_PERPLEXITY = 30
_FEWEST = 8
"""Rows that are worth a map."""

_DIRECTIONS = 50
"""Of the principal ones, that t-SNE is given, as is usual (van der Maaten and Hinton 2008)."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A plane of m pictures.

    Attributes:
        name: of the method.
        at: (m, 2) from 0 to 1.
        note: what is to be known when reading it.
    """

    name: str
    at: npt.NDArray[np.float64]
    note: str


def sampled_rows(count: int, most: int) -> npt.NDArray[np.intp]:
    """At most so many of the rows, drawn alike each time, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def features_of(
    cache: Cache, cut: str, hashes: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(m, D) of those rows that the cache still has, and (n,) which these are."""
    reader = cache.stream(cut)
    positions = reader.positions(hashes)
    there = positions >= 0
    return reader.read(positions[there]).astype(np.float64), there


def projections(features: npt.NDArray[np.float64]) -> tuple[Projection, ...]:
    """The first two principal directions, and t-SNE; none of a few rows."""
    from sklearn.decomposition import PCA

    n, width = features.shape
    if n < _FEWEST or width < 2:
        return ()
    directions = PCA(min(n, width, _DIRECTIONS), svd_solver="full").fit(features)
    turned = directions.transform(features)
    share = directions.explained_variance_ratio_
    note = f"{share[0]:.0%} of the variance to the right, {share[1]:.0%} upward"
    return (Projection("PCA", _fitted(turned[:, :2]), note), _neighbours(turned))


def _neighbours(turned: npt.NDArray[np.float64]) -> Projection:
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(turned) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of defaults that are given here
        found = TSNE(
            perplexity=perplexity, init="pca", learning_rate="auto", random_state=0, n_jobs=1
        ).fit_transform(turned)
    note = (
        "neighbours stay neighbours; distances and sizes of groups say little "
        f"(perplexity {perplexity:.0f})"
    )
    return Projection("t-SNE", _fitted(np.asarray(found, np.float64)), note)


def _fitted(at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Both directions in one scale, centred in the unit square, with a margin."""
    low, high = at.min(axis=0), at.max(axis=0)
    span = float((high - low).max()) or 1.0
    return 0.5 + 0.94 * (at - (low + high) / 2) / span
