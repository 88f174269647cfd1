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
from typing import Self

import numpy as np
import torch
from torch import Tensor

_LARGEST = 5000
"""Side of the largest matrix that is decomposed: beyond it, coordinates stay as they are."""


@dataclass(frozen=True, eq=False)
class Design:
    """A change of coordinates, made by training rows alone.

    Attributes:
        mean: (D,) float64, of the training rows.
        scale: (D,) float64: standard deviations where standardised (of constant columns 1), or 1.
        basis: (D, R) float64 with orthonormal columns, R = min(m, D); None stands for the identity.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor | None

    @classmethod
    def of(cls, rows: np.ndarray, standardize: bool, device: str = "cpu") -> Self:
        """Read training rows (m, D) of any float dtype."""
        X = _tensor(rows, device)
        mean = X.mean(dim=0)
        X -= mean
        scale = _scales(X, mean) if standardize else torch.ones_like(mean)
        X /= scale
        m, D = X.shape
        if min(m, D) > _LARGEST:
            return cls(mean, scale, None)
        if m >= D:
            return cls(mean, scale, torch.linalg.eigh(X.T @ X)[1])
        Q, R = torch.linalg.qr(X.T)  # (D, m), (m, m): X = R'Q'
        return cls(mean, scale, Q @ torch.linalg.eigh(R @ R.T)[1])

    @property
    def width(self) -> int:
        """R."""
        return len(self.mean) if self.basis is None else self.basis.shape[1]

    def coordinates(self, rows: np.ndarray) -> Tensor:
        """(n, D) features as (n, R) float64 coordinates; where R < D, their share in the span."""
        X = _tensor(rows, self.mean.device)
        X -= self.mean
        X /= self.scale
        return X if self.basis is None else X @ self.basis

    def original(self, W: Tensor) -> tuple[Tensor, Tensor]:
        """(K, R + 1) of a solve as coefficients (K, D) and bias (K,) for features as they came."""
        turned, bias = W[:, : self.width], W[:, -1]
        if self.basis is not None:
            turned = turned @ self.basis.T
        coef = turned / self.scale
        return coef, bias - coef @ self.mean


def _tensor(rows: np.ndarray, device: str | torch.device) -> Tensor:
    """A float64 copy of its own."""
    return torch.from_numpy(np.array(rows, np.float64)).to(device)


def _scales(X: Tensor, mean: Tensor) -> Tensor:
    """Standard deviations of centred columns; 1 where a column is constant to float32's eye."""
    deviation = X.square().mean(dim=0).sqrt()
    eye = torch.finfo(torch.float32).eps
    return torch.where(deviation > eye * mean.abs(), deviation, 1.0)
