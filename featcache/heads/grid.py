"""Where on the axis of C to look: a grid placed by the size of the features."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from featcache.errors import ProbeError

WEAKEST_DECADE, STRONGEST_DECADE = -1.0, 5.0
"""Decades of C x (mean squared norm) that the grid spans, ends included."""

_ROWS = 16384
"""Read at a time."""

_FEW = 64
"""Compared at a time."""

ROUNDING = 1e-6
"""Share of its size by which a feature may differ from another through float32's rounding alone."""


def default_grid(
    features: np.ndarray, count: int = 25, rows: np.ndarray | None = None
) -> np.ndarray:
    """Values of C for features of any scale.

    C = 10^k / msn, where msn is the mean squared norm of the centred features and `count` values
    of k are evenly spaced from -1 to 5 (7: whole decades; 25: quarters). C x msn has no unit, so
    that scaling the features scales the grid and fits the same heads.

    Args:
        features: (n, D), anything that is indexed like an array.
        count: how many values, at least 2.
        rows: (n,) bool, the training rows, where others must have no influence; None: all.

    Returns:
        (count,) float64, ascending.

    Raises:
        ProbeError: `count` is below 2, or the features are not finite or all rows are equal.
    """
    if count < 2:
        raise ProbeError(f"a grid of {count} values of C; ask for at least 2")
    kept = np.arange(len(features)) if rows is None else np.flatnonzero(rows)
    mean_squared_norm, rounding = _mean_squared_norm(features, kept)
    if not np.isfinite(mean_squared_norm) or mean_squared_norm <= rounding:
        raise ProbeError(
            f"features of shape {features.shape} have the mean squared norm {mean_squared_norm} "
            "after centring, so that no C can be placed: they are constant or not finite; "
            "check the pictures and the backbone's weights"
        )
    return np.logspace(WEAKEST_DECADE, STRONGEST_DECADE, count) / mean_squared_norm


def differ(blocks: Iterable[np.ndarray]) -> bool:
    """Whether any rows differ by more than rounding; reads no further than the first that do.

    Args:
        blocks: of rows (n, ...).
    """
    first = allowed = None
    for rows in (block[at : at + _FEW] for block in blocks for at in range(0, len(block), _FEW)):
        if first is None or allowed is None:
            first = rows[0].astype(np.float64)
            allowed = ROUNDING * abs(first).max(initial=0)
        if (abs(rows - first) > allowed).any():
            return True
    return False


def _mean_squared_norm(features: np.ndarray, kept: np.ndarray) -> tuple[float, float]:
    """Of the centred rows, read block by block; and what rounding alone may make of it."""
    blocks = [kept[start : start + _ROWS] for start in range(0, len(kept), _ROWS)]
    mean = sum(features[block].sum(axis=0, dtype=np.float64) for block in blocks) / len(kept)
    squares = sum(float(np.square(features[block] - mean).sum()) for block in blocks)
    return squares / len(kept), ROUNDING**2 * float(np.square(mean).sum())
