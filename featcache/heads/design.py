"""Coordinates of a solve: features centred, scaled, and turned into the eigenbasis of their Gram.

An orthonormal basis of the rows' span changes neither objective nor optimum (the penalty sees W
only through that span, and as a length), and in the eigenbasis the Hessian of the mean loss is
about diagonal: what the walk divides by.
"""

# torch ships few types: what it returns is known here by its shape, written beside it
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportConstantRedefinition=false

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
_TRAVELLING = (np.dtype(np.float16), np.dtype(np.float32))

_ROWS = 16384
"""Read at a time."""

_EVEN = 1e-5
"""Where the squares of the rows' singular values are all above this share of the largest, products
of the rows are decomposed: an error of float64's unit over it is far below any tolerance."""

_LARGEST = 5000
"""Side of the largest matrix that is decomposed: beyond it, coordinates stay as they are."""


@dataclass(frozen=True, eq=False)
class Design:
    """A change of coordinates, made by training rows alone.

    Attributes:
        mean: (D,) float64, of the training rows.
        scale: (D,) float64: standard deviations where standardised (of constant columns 1), or 1.
        basis: (D, R) float64, R = min(m, D), with orthonormal columns, of which one may be 0
            instead (centred rows sum to 0); None stands for the identity.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor | None

    @classmethod
    def of(cls, features: np.ndarray, kept: np.ndarray, standardize: bool, device: str) -> Self:
        """Read training rows.

        Args:
            features: (N, D) of any float dtype, anything that is indexed like an array.
            kept: (m,) the rows to read.
            standardize: divide by standard deviations.
            device: of the coordinates.
        """
        mean = _mean(features, kept, device)
        scale = _deviation(features, kept, mean) if standardize else torch.ones_like(mean)
        plain, m, D = cls(mean, scale, None), len(kept), len(mean)
        if min(m, D) > _LARGEST:
            return plain
        if m >= D:
            return cls(mean, scale, torch.linalg.eigh(_gram(features, kept, plain))[1])
        X = plain.centred(features[kept], torch.float64)
        even = _of_even(X)
        if even is not None:
            return cls(mean, scale, even)
        Q, R = torch.linalg.qr(X.T)  # (D, m), (m, m): X = R'Q'
        return cls(mean, scale, Q @ torch.linalg.eigh(R @ R.T)[1])

    @property
    def width(self) -> int:
        """R."""
        return len(self.mean) if self.basis is None else self.basis.shape[1]

    def centred(self, rows: np.ndarray, dtype: torch.dtype) -> Tensor:
        """(n, D) features centred and scaled, not turned."""
        X = _tensor(rows, dtype, self.mean.device)
        return X.sub_(self.mean.to(dtype)).div_(self.scale.to(dtype))

    def turned(self, rows: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
        """(n, D) features as (n, R) coordinates; where R < D, their share in the span."""
        X = self.centred(rows, dtype)
        return X if self.basis is None else X @ self.basis.to(dtype)

    def original(self, W: Tensor) -> tuple[Tensor, Tensor]:
        """(K, R + 1) of a solve as coefficients (K, D) and bias (K,) for features as they came."""
        turned, bias = W[:, : self.width], W[:, -1]
        if self._turn is not None:
            turned = (turned.float() @ self._turn.T).double()
        coef = turned / self.scale
        return coef, bias - coef @ self.mean

    @cached_property
    def _turn(self) -> Tensor | None:
        """(D, R): the way back, in float32 as heads are."""
        return None if self.basis is None else self.basis.float()


def _of_even(X: Tensor) -> Tensor | None:
    """(D, m) eigenbasis of centred rows X (m, D) by their products, half the work of a QR.

    None where their singular values are so far apart that it would not be orthonormal. The first
    column, the centring's, is 0: how wide it is must not depend on what the rows hold (`abreast`).
    """
    squares, V = torch.linalg.eigh(X @ X.T)
    squares, V = squares[1:], V[:, 1:]
    if not len(squares) or not bool(squares[0] > _EVEN * squares[-1]):
        return None
    return pad((X.T @ V).div_(squares.sqrt()), (1, 0))


def _mean(features: np.ndarray, kept: np.ndarray, device: str) -> Tensor:
    """(D,) of the rows kept."""
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=device)
    for part in _parts(kept):
        total += _tensor(features[part], torch.float64, total.device).sum(dim=0)
    return total / len(kept)


def _deviation(features: np.ndarray, kept: np.ndarray, mean: Tensor) -> Tensor:
    """Standard deviations (D,) of the rows kept; 1 where a column is constant to float32's eye."""
    squares = torch.zeros_like(mean)
    for part in _parts(kept):
        X = _tensor(features[part], torch.float64, mean.device)
        squares += X.sub_(mean).square_().sum(dim=0)
    deviation = (squares / len(kept)).sqrt()
    eye = torch.finfo(torch.float32).eps
    return torch.where(deviation > eye * mean.abs(), deviation, 1.0)


def _parts(kept: np.ndarray) -> list[np.ndarray]:
    return [kept[start : start + _ROWS] for start in range(0, len(kept), _ROWS)]


def _tensor(rows: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A copy of rows on a device; they travel in the shorter of the two dtypes."""
    wanted = np.dtype(_NUMPY[dtype])
    travelling = rows.dtype if rows.dtype in _TRAVELLING else wanted
    return torch.from_numpy(np.array(rows, travelling)).to(device).to(dtype)


def _gram(features: np.ndarray, kept: np.ndarray, design: Design) -> Tensor:
    """(D, D) of the centred and scaled rows.

    Few rows are multiplied in float64, many in float32 and added up in float64: the basis must be
    orthonormal, which its decomposition sees to, and need not be quite the eigenbasis.
    """
    D = design.width
    dtype = torch.float64 if len(kept) <= _ROWS else torch.float32
    gram = torch.zeros(D, D, dtype=torch.float64, device=design.mean.device)
    for start in range(0, len(kept), _ROWS):
        X = design.centred(features[kept[start : start + _ROWS]], dtype)
        gram += X.T @ X
    return gram
