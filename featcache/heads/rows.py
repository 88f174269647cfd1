"""Rows of features in the coordinates of a solve: the two products that everything costs.

Weights of a problem are (K, R + 1): R coordinates and, last, the bias, whose feature is 1.
"""

# torch ships few types: what it returns is known here by its shape, written beside it
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportConstantRedefinition=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK_BYTES = 64 << 20
"""Of one (B, K, rows) float64 temporary."""


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Rows in memory, rotated and with a last column of ones.

    Attributes:
        X: (G, n, R + 1) float64; G is 1 where all problems share the rows, else B.
        norms: (G, n) lengths of the rows, the ones left out.
        scale: (G, R + 1) mean square of each coordinate; 1 for the bias.
    """

    X: Tensor
    norms: Tensor
    scale: Tensor

    @classmethod
    def of(cls, X: Tensor, trained: Tensor) -> DenseRows:
        """Take rows X (G, n, R) and their weights (G, n), which sum to 1, for `scale`."""
        augmented = torch.cat([X, X.new_ones((*X.shape[:2], 1))], dim=2)
        scale = torch.einsum("gn,gnr->gr", trained, augmented.square())
        return cls(augmented, torch.linalg.vector_norm(X, dim=2), scale)

    def __len__(self) -> int:
        return self.X.shape[1]

    @property
    def width(self) -> int:
        """R + 1."""
        return self.X.shape[2]

    def blocks(self, columns: int) -> Iterator[slice]:
        """Slices over the rows such that a (columns, rows) float64 temporary is of modest size."""
        step = max(1024, _BLOCK_BYTES // (8 * columns))
        for start in range(0, len(self), step):
            yield slice(start, min(start + step, len(self)))

    def of_problems(self, problems: Tensor) -> DenseRows:
        """Those of some problems (indices)."""
        if len(self.X) == 1:
            return self
        return DenseRows(self.X[problems], self.norms[problems], self.scale[problems])

    def forward(self, W: Tensor, rows: slice) -> Tensor:
        """(B, K, m) logits of weights (B, K, R + 1)."""
        if len(self.X) == 1:
            flat = W.reshape(-1, self.width) @ self.X[0, rows].T
            return flat.view(*W.shape[:2], -1)
        return W @ self.X[:, rows].transpose(1, 2)

    def backward(self, R: Tensor, rows: slice) -> Tensor:
        """(B, K, R + 1) sums over rows of R (B, K, m) times the rows."""
        if len(self.X) == 1:
            flat = R.reshape(-1, R.shape[2]) @ self.X[0, rows]
            return flat.view(*R.shape[:2], -1)
        return R @ self.X[:, rows]
