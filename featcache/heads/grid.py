"""Where on the axis of C to look: a grid placed by the size of the features."""

from __future__ import annotations

import numpy as np

from featcache.errors import ProbeError

WEAKEST_DECADE, STRONGEST_DECADE = -1.0, 5.0
"""Decades of C x (mean squared norm) that the grid spans, ends included."""


_ROWS = 16384
"""Read at a time."""


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
    mean_squared_norm = _mean_squared_norm(features, kept)
    if not np.isfinite(mean_squared_norm) or mean_squared_norm <= 0:
        raise ProbeError(
            f"features of shape {features.shape} have the mean squared norm {mean_squared_norm} "
            "after centring, so that no C can be placed: they are constant or not finite; "
            "check the pictures and the backbone's weights"
        )
    return np.logspace(WEAKEST_DECADE, STRONGEST_DECADE, count) / mean_squared_norm


def _mean_squared_norm(features: np.ndarray, kept: np.ndarray) -> float:
    """Of the centred rows, read block by block."""
    blocks = [kept[start : start + _ROWS] for start in range(0, len(kept), _ROWS)]
    mean = sum(features[block].sum(axis=0, dtype=np.float64) for block in blocks) / len(kept)
    return sum(float(np.square(features[block] - mean).sum()) for block in blocks) / len(kept)
