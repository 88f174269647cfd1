"""The rows that one fold's fits train on: centred, scaled, reduced; and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Design:
    """Training rows in the coordinates of the fit.

    The objective's penalty sees W only through the rows' span, so an orthonormal basis of that
    span changes neither objective nor optimum. It is taken from these rows alone: held-out rows
    have no influence on anything here, not even on rounding.

    Attributes:
        X: (m, R) float64, columns with mean 0.
        mean: (D,) float64, of the training rows.
        scale: (D,) float64: standard deviations where standardised (of constant columns 1), or 1.
        basis: (R, D) float64 with orthonormal rows, or None where R = D.
    """

    X: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    basis: np.ndarray | None

    @classmethod
    def of(cls, rows: np.ndarray, standardize: bool) -> Self:
        """Centre, scale and reduce the rows (m, D) of one fold's training part."""
        mean = rows.mean(axis=0, dtype=np.float64)
        centred = rows - mean  # float64
        m, D = centred.shape
        scale = _scales(centred, mean) if standardize else np.ones(D)
        centred /= scale
        if 2 * m > D:  # a basis would cost more than it saves
            return cls(centred, mean, scale, None)
        Q, R = np.linalg.qr(centred.T)  # X = R'Q': (m, m) coordinates in the basis Q' (m, D)
        return cls(np.ascontiguousarray(R.T), mean, scale, Q.T)

    def original(self, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A solution for `X` as one for the features as they came: (K, R) to (K, D), and (K,)."""
        coef = (W if self.basis is None else W @ self.basis) / self.scale
        return coef, b - coef @ self.mean


def _scales(X: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Standard deviations of centred columns; 1 where a column is constant to float32's eye."""
    deviation = np.sqrt(np.mean(np.square(X), axis=0))
    return np.where(deviation > np.finfo(np.float32).eps * np.abs(mean), deviation, 1.0)
