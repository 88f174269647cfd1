"""One answer of several views of a picture: mean or maximum of what a head says of each."""

from __future__ import annotations

from typing import Literal

import numpy as np

Averaging = Literal["mean", "max"]


def averaged(probabilities: np.ndarray, how: Averaging, *, multi_label: bool = False) -> np.ndarray:
    """Probabilities of pictures from those of their views.

    Args:
        probabilities: (V, n, K) of each view.
        how: the mean over views, or the largest; the largest of classes that exclude each other
            are divided by their sum.
        multi_label: whether classes don't exclude each other.

    Returns:
        (n, K) float64.
    """
    if how == "mean":
        return probabilities.mean(axis=0, dtype=np.float64)
    largest = probabilities.max(axis=0).astype(np.float64)
    return largest if multi_label else largest / largest.sum(axis=1, keepdims=True)
