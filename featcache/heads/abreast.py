"""Batches of different rows side by side: many small problems for the price of a larger one.

A step of a small batch costs what a thousand small operations cost, whatever they work on. Batches
of which each has rows, coordinates and problems of its own are filled up with nothing to one shape:
rows that weigh nothing, coordinates in which no row has any length. Then they are one batch.
"""

# torch ships few types: what it returns is known here by its shape, written beside it
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportConstantRedefinition=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from featcache.heads.batch import Batch
from featcache.heads.objective import Targets
from featcache.heads.rows import DenseRows


@dataclass(frozen=True, eq=False)
class StackedRows(DenseRows):
    """S sets of rows in float64, each of B / S problems that stand together; see `Rows`.

    Attributes:
        X: (S, n, R + 1).
        norms: (B, n); scale: (B, R + 1).
    """

    def of_problems(self, problems: Tensor) -> StackedRows:
        """Of all of them, or of none.

        Raises:
            ValueError: of some.
        """
        if len(problems) == len(self.norms):
            return self
        if len(problems):
            raise ValueError("problems abreast go on together: sets of rows are not told apart")
        return StackedRows(self.X[:0], self.norms[:0], self.scale[:0])

    def forward(self, lifted: Tensor, rows: slice) -> Tensor:
        """(B, K, m) logits of some rows."""
        return self._by_set(lifted, self.X[:, rows].transpose(1, 2))

    def backward(self, R: Tensor, rows: slice) -> Tensor:
        """(B, K, R + 1) sums over rows of R (B, K, m) times the rows."""
        return self._by_set(R, self.X[:, rows])

    def _by_set(self, left: Tensor, right: Tensor) -> Tensor:
        """(B, K, p) times (S, p, q): (B, K, q)."""
        product = left.reshape(len(self.X), -1, left.shape[2]) @ right
        return product.view(*left.shape[:2], -1)


def side_by_side(batches: Sequence[Batch]) -> Batch:
    """One batch of several, each with as many problems and classes, and rows of its own.

    Args:
        batches: S of them, of the same loss, with `DenseRows`, taken in float64, and no offset.
    """
    sets = [batch.rows.exactly() for batch in batches]
    dense = [rows for rows in sets if isinstance(rows, DenseRows)]
    if len(dense) < len(sets):
        raise TypeError("only rows in memory stand side by side")
    n, width = (max(sizes) for sizes in zip(*((len(r), r.width) for r in dense), strict=True))
    problems = len(batches[0])
    return replace(
        batches[0],
        rows=StackedRows(
            X=torch.cat([_widened(_longer(r.X.mT, n).mT, width) for r in dense]),
            norms=torch.cat([_longer(r.norms, n) for r in dense]).repeat_interleave(problems, 0),
            scale=torch.cat([_widened(r.scale, width) for r in dense]).repeat_interleave(
                problems, 0
            ),
        ),
        targets=_targets(batches, n),
        weights=torch.cat([_longer(batch.weights, n) for batch in batches]),
        targets_sum=torch.cat([_widened(batch.targets_sum, width) for batch in batches]),
        targets_length=torch.cat([batch.targets_length for batch in batches]),
        rows_sum=torch.cat([_widened(batch.rows_sum, width) for batch in batches]),
        mean_norm=torch.cat([batch.mean_norm for batch in batches]),
    )


def narrowed(W: Tensor, width: int) -> Tensor:
    """(K, R + 1) of the coordinates that a batch has of its own, R + 1 = `width`, from more."""
    if W.shape[1] == width:
        return W
    return torch.cat([W[:, : width - 1], W[:, -1:]], dim=1)


def _targets(batches: Sequence[Batch], n: int) -> Targets:
    codes, dense = list[Tensor](), list[Tensor]()
    for batch in batches:
        if batch.targets.codes is not None:
            codes.append(_longer(batch.targets.codes, n).expand(len(batch), -1))
        if batch.targets.dense is not None:
            dense.append(_longer(batch.targets.dense, n))
    return Targets(torch.cat(codes) if codes else None, torch.cat(dense) if dense else None)


def _longer(numbers: Tensor, n: int) -> Tensor:
    """Its last axis with zeros up to n."""
    return pad(numbers, (0, n - numbers.shape[-1]))


def _widened(numbers: Tensor, width: int) -> Tensor:
    """Its last axis, coordinates and one for the bias, with zeros in between up to `width`."""
    more = width - numbers.shape[-1]
    return torch.cat([pad(numbers[..., :-1], (0, more)), numbers[..., -1:]], dim=-1)
