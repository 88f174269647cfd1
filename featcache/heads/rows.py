"""Rows of features in the coordinates of a solve: the two products that everything costs.

Weights of a problem are (K, R + 1): R coordinates and, last, the bias, whose feature is 1.
`DenseRows` are turned once and kept; `StreamedRows` stay where they are (a memory map, say), are
read block by block, and the weights are turned instead: x T w = x (T w).
"""

# torch ships few types: what it returns is known here by its shape, written beside it
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportConstantRedefinition=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from featcache.heads.design import Design

_BLOCK_BYTES = 4 << 20
"""Of one (B, K, rows) float64 temporary."""


class Rows(Protocol):
    """N rows of R coordinates and a 1, of G sets: 1 where all problems share them, else B."""

    @property
    def norms(self) -> Tensor:
        """(G, n) lengths of the rows, the ones left out."""
        ...

    @property
    def scale(self) -> Tensor:
        """(G, R + 1) mean square of each coordinate; 1 for the bias."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of products and passes over the logits, but the bias's; a certificate needs float64."""
        ...

    @property
    def logit_dtype(self) -> torch.dtype:
        """What logits are kept in between steps."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether they are held; where they are not, there is no room for much else either."""
        ...

    @property
    def held(self) -> int:
        """Bytes of them in memory."""
        ...

    def __len__(self) -> int: ...

    @property
    def width(self) -> int:
        """R + 1."""
        ...

    @property
    def sum_width(self) -> int:
        """Of sums that are not settled yet."""
        ...

    def of_problems(self, problems: Tensor) -> Rows:
        """Those of some problems (indices)."""
        ...

    def exactly(self) -> Rows:
        """The same rows in float64."""
        ...

    def lift(self, W: Tensor) -> Tensor:
        """Weights (B, K, R + 1) as `forward` takes them."""
        ...

    def forward(self, lifted: Tensor, rows: slice) -> Tensor:
        """(B, K, m) logits of some rows."""
        ...

    def backward(self, R: Tensor, rows: slice) -> Tensor:
        """Sums over rows of R (B, K, m) times the rows, to be added up and settled."""
        ...

    def settle(self, sums: Tensor) -> Tensor:
        """(B, K, R + 1) of added `backward`s."""
        ...


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices over the rows such that a (columns, rows) float64 temporary is of modest size."""
    step = max(1024, _BLOCK_BYTES // (8 * columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Rows in memory, turned, with a last column of ones; see `Rows`.

    Attributes:
        X: (G, n, R + 1) float64.
        norms, scale: see `Rows`.
        rounded: X in float32, for steps that need no more; None where they are float64.
        in_memory: see `Rows`.
    """

    X: Tensor
    norms: Tensor
    scale: Tensor
    rounded: Tensor | None = None
    in_memory: bool = True

    @classmethod
    def of(cls, X: Tensor, trained: Tensor, *, rounded: bool = False) -> DenseRows:
        """Take rows X (G, n, R) and their weights (G, n), which sum to 1, for `scale`."""
        augmented = torch.cat([X, X.new_ones((*X.shape[:2], 1))], dim=2)
        scale = torch.einsum("gn,gnr->gr", trained, augmented.square())
        norms = torch.linalg.vector_norm(X, dim=2)
        return cls(augmented, norms, scale, augmented.float() if rounded else None)

    @property
    def dtype(self) -> torch.dtype:
        """Float32 where rounded."""
        return self._used.dtype

    @property
    def logit_dtype(self) -> torch.dtype:
        """The same."""
        return self.dtype

    @property
    def held(self) -> int:
        """Bytes of X, of both dtypes."""
        return self.X.nbytes + (0 if self.rounded is None else self.rounded.nbytes)

    @property
    def _used(self) -> Tensor:
        return self.X if self.rounded is None else self.rounded

    def __len__(self) -> int:
        return self.X.shape[1]

    @property
    def width(self) -> int:
        """R + 1."""
        return self.X.shape[2]

    @property
    def sum_width(self) -> int:
        """R + 1."""
        return self.width

    def of_problems(self, problems: Tensor) -> DenseRows:
        """Those of some problems (indices)."""
        if len(self.X) == 1:
            return self
        rounded = None if self.rounded is None else self.rounded[problems]
        return DenseRows(self.X[problems], self.norms[problems], self.scale[problems], rounded)

    def exactly(self) -> DenseRows:
        """The same rows in float64."""
        return self if self.rounded is None else replace(self, rounded=None)

    def lift(self, W: Tensor) -> Tensor:
        """As they are, in `dtype`."""
        return W.to(self.dtype)

    def forward(self, lifted: Tensor, rows: slice) -> Tensor:
        """(B, K, m) logits of some rows."""
        if len(self.X) == 1:
            flat = lifted.reshape(-1, self.width) @ self._used[0, rows].T
            return flat.view(*lifted.shape[:2], -1)
        return lifted @ self._used[:, rows].transpose(1, 2)

    def backward(self, R: Tensor, rows: slice) -> Tensor:
        """(B, K, R + 1) sums over rows of R (B, K, m) times the rows."""
        if len(self.X) == 1:
            flat = R.reshape(-1, R.shape[2]) @ self._used[0, rows]
            return flat.view(*R.shape[:2], -1)
        return R @ self._used[:, rows]

    def settle(self, sums: Tensor) -> Tensor:
        """As they are."""
        return sums


@dataclass(frozen=True, eq=False)
class StreamedRows:
    """Rows that stay where they are and are read block by block; see `Rows`. G is 1.

    Attributes:
        features: (N, D), anything that is indexed like an array.
        kept: (n,) which of them.
        design: their coordinates.
        norms, scale: see `Rows`.
        dtype, logit_dtype, in_memory: see `Rows`.
    """

    features: np.ndarray
    kept: np.ndarray
    design: Design
    norms: Tensor
    scale: Tensor
    dtype: torch.dtype = torch.float32
    logit_dtype: torch.dtype = torch.float32
    in_memory: bool = False

    @property
    def held(self) -> int:
        """None."""
        return 0

    @classmethod
    def of(cls, features: np.ndarray, kept: np.ndarray, design: Design) -> StreamedRows:
        """Read the rows once, for their lengths and scale."""
        norms = design.mean.new_empty(len(kept))
        squares = design.mean.new_zeros(design.width)
        for rows in blocks(len(kept), len(design.mean)):
            X = design.turned(features[kept[rows]], torch.float32)
            norms[rows] = torch.linalg.vector_norm(X, dim=1)
            squares += X.square().sum(dim=0)
        scale = torch.cat([squares / len(kept), squares.new_ones(1)])
        return cls(features, kept, design, norms[None], scale[None])

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def width(self) -> int:
        """R + 1."""
        return self.design.width + 1

    @property
    def sum_width(self) -> int:
        """D + 1."""
        return len(self.design.mean) + 1

    def of_problems(self, problems: Tensor) -> StreamedRows:
        """Itself: all problems share the rows."""
        return self

    def exactly(self) -> StreamedRows:
        """The same rows in float64; logits stay in float32."""
        return replace(self, dtype=torch.float64)

    def lift(self, W: Tensor) -> Tensor:
        """(B, K, D + 1): for rows that are centred and scaled, but not turned."""
        basis = self.design.basis
        if basis is None:
            return W
        return torch.cat([W[..., :-1] @ basis.T, W[..., -1:]], dim=2)

    def forward(self, lifted: Tensor, rows: slice) -> Tensor:
        """(B, K, m) logits of some rows."""
        X = self._block(rows)
        flat = lifted.flatten(0, 1)
        Z = (flat[:, :-1].to(X.dtype) @ X.T).to(lifted.dtype).add_(flat[:, -1:])
        return Z.view(*lifted.shape[:2], -1)

    def backward(self, R: Tensor, rows: slice) -> Tensor:
        """(B, K, D + 1) sums over rows of R (B, K, m) times the rows."""
        X, flat = self._block(rows), R.flatten(0, 1)
        sums = (flat.to(X.dtype) @ X).to(R.dtype)
        return torch.cat([sums, flat.sum(dim=1, keepdim=True)], dim=1).view(*R.shape[:2], -1)

    def settle(self, sums: Tensor) -> Tensor:
        """(B, K, R + 1) of added `backward`s."""
        basis = self.design.basis
        if basis is None:
            return sums
        return torch.cat([sums[..., :-1] @ basis, sums[..., -1:]], dim=2)

    def _block(self, rows: slice) -> Tensor:
        return self.design.centred(self.features[self.kept[rows]], self.dtype)
