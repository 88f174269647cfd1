"""Problems that are solved together: their rows, targets and weights, and sums over the rows."""

# torch ships few types: what it returns is known here by its shape, written beside it
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportConstantRedefinition=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from featcache.heads.objective import Kernel, Targets
from featcache.heads.rows import Rows, blocks


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Sums over the rows at a point; R = P - Y, x without its 1.

    Attributes:
        loss: (B,) mean loss.
        gradient: (B, K, R + 1) mean of R x', the penalty's part left out.
        spread: (B, K) mean of P (1 - P).
        residuals: (B,) mean of |R|_1; long_residuals: of |x| |R|_1.
        column_residuals: (B, K) mean of |R|.
    """

    loss: Tensor
    gradient: Tensor
    spread: Tensor
    residuals: Tensor
    long_residuals: Tensor
    column_residuals: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """Them all."""
        return tuple(getattr(self, each.name) for each in fields(self))

    def of(self, problems: Tensor) -> Evaluation:
        """That of some problems (indices)."""
        return Evaluation(*(some(part, problems) for part in self.parts))


@dataclass(frozen=True, eq=False)
class Batch:
    """B problems on the same rows, or on rows of the same number.

    Attributes:
        rows: n of them.
        kernel: the loss.
        targets: what the rows should be.
        weights: (B, n), summing to 1; 0 for a row that a problem does not train on.
        classes: K.
        targets_sum: (B, K, R + 1) mean of Y x'; the last entries are the shares of the classes.
        targets_length: (B,) its length, the last entries left out.
        rows_sum: (B, R + 1) mean of x.
        mean_norm: (B,) mean of |x|.
        offset: (1, K, n) logits that the rows have whatever the weights are, or None.
        reach: length of the longest row of weights that made the offset, 0 without one.
    """

    rows: Rows
    kernel: Kernel
    targets: Targets
    weights: Tensor
    classes: int
    targets_sum: Tensor
    targets_length: Tensor
    rows_sum: Tensor
    mean_norm: Tensor
    offset: Tensor | None = None
    reach: float = 0.0

    @classmethod
    def of(
        cls, rows: Rows, kernel: Kernel, targets: Targets, weights: Tensor, columns: int
    ) -> Batch:
        """Take problems with `columns` columns in all, and sum what does not change."""
        exact = rows.exactly()
        problems = len(weights)
        classes = columns // problems
        totals = weights.new_zeros((problems, classes, rows.sum_width))
        sums = weights.new_zeros((problems, 1, rows.sum_width))
        for block in blocks(len(rows), columns):
            a = weights[:, None, block]
            totals += exact.backward(a * targets.at(block).one_hot(classes, problems), block)
            sums += exact.backward(a, block)
        totals, sums = exact.settle(totals), exact.settle(sums)
        mean_norm = (weights * rows.norms).sum(dim=1)
        length = totals[..., :-1].flatten(1).norm(dim=1)
        return cls(rows, kernel, targets, weights, classes, totals, length, sums[:, 0], mean_norm)

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def weights_dtype(self) -> torch.dtype:
        """What the weights of a walk and their gradient are kept in."""
        return self.rows.dtype if self.rows.in_memory else torch.float64

    def blocks(self) -> Iterator[slice]:
        """Slices over the rows for which temporaries are of modest size."""
        return blocks(len(self.rows), len(self) * self.classes)

    def keep(self, problems: Tensor) -> Batch:
        """The batch of some problems (indices, ascending)."""
        if len(problems) == len(self):
            return self
        return replace(
            self,
            rows=self.rows.of_problems(problems),
            targets=self.targets.of(problems),
            weights=self.weights[problems],
            targets_sum=self.targets_sum[problems],
            targets_length=self.targets_length[problems],
            rows_sum=self.rows_sum[problems],
            mean_norm=self.mean_norm[problems],
        )

    def values(self, W: Tensor) -> Tensor:
        """(B, K, n) logits at weights (B, K, R + 1), the offset included."""
        Z = self.logits(W)
        return Z if self.offset is None else Z.add_(self.offset)

    def logits(self, W: Tensor) -> Tensor:
        """(B, K, n) logits of weights (B, K, R + 1) or of a step."""
        Z = W.new_empty((*W.shape[:2], len(self.rows)), dtype=self.rows.logit_dtype)
        lifted = self.rows.lift(W)
        for rows in self.blocks():
            Z[..., rows] = self.rows.forward(lifted, rows)
        return Z

    def evaluate(self, Z: Tensor) -> Evaluation:
        """Loss and gradient at logits (B, K, n), with what a certificate needs of them."""
        (B, K), dtype = Z.shape[:2], self.rows.dtype
        loss, residuals, long_residuals = self.weights.new_zeros(3, B)
        spread, columns = self.weights.new_zeros(2, B, K)
        gradient = self.weights.new_zeros(B, K, self.rows.sum_width, dtype=self.weights_dtype)
        for rows in self.blocks():
            a = self.weights[:, rows].to(dtype)
            at = self.kernel.residuals(Z[..., rows].to(dtype), self.targets.at(rows, dtype))
            loss += torch.where(a > 0, a * at.losses, 0.0).sum(dim=1)
            spread += (at.spread @ a[..., None])[..., 0]
            R = at.R.mul_(a[:, None])
            gradient += self.rows.backward(R, rows)
            R.abs_()
            size = R.sum(dim=1)
            residuals += size.sum(dim=1)
            long_residuals += (size * self.rows.norms[:, rows]).sum(dim=1)
            columns += R.sum(dim=2)
        gradient = self.rows.settle(gradient)
        return Evaluation(loss, gradient, spread, residuals, long_residuals, columns)

    def balance(self, Z: Tensor, hessian: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gradient (B, K) and Hessian (B, K, K) of the mean loss in the bias, at logits Z.

        A Hessian that is given is taken for it: of many classes it costs several times what the
        gradient does.
        """
        B, K = Z.shape[:2]
        means, bent = self.weights.new_zeros(B, K), self.weights.new_zeros(B, K, K)
        for rows in self.blocks():
            a = self.weights[:, rows]
            P, parts = self.kernel.shares(Z[..., rows].double(), a)
            means += parts
            if hessian is None:
                bent += self.kernel.bending(P, a)
        return means - self.targets_sum[..., -1], bent if hessian is None else hessian

    def along(self, Z: Tensor, changes: Sequence[Tensor], rate: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes (B, d) and curvatures (B, d, d) of the mean loss along d changes of the logits.

        Args:
            Z: (B, K, n).
            changes: d of that shape.
            rate: (B,): the point is Z + rate times the last change.
        """
        d, B, dtype = len(changes), len(Z), self.rows.dtype
        slopes, curvatures = rate.new_zeros(B, d), rate.new_zeros(B, d, d)
        rate = rate[:, None, None].to(dtype)
        for rows in self.blocks():
            a, parts = (
                self.weights[:, rows].to(dtype),
                [part[..., rows].to(dtype) for part in changes],
            )
            at = torch.addcmul(Z[..., rows].to(dtype), parts[-1], rate)
            D = torch.stack(parts, dim=1) if d > 1 else parts[0][:, None]
            means, covariances = self.kernel.moments(at, D, a)
            given = self.targets.at(rows, dtype).along(D)
            slopes += ((means - given) @ a[..., None])[..., 0]
            curvatures += covariances
        return slopes, curvatures


def some(numbers: Tensor, problems: Tensor) -> Tensor:
    """Those of some problems (indices, ascending): no copy where that is all of them."""
    return numbers if len(problems) == len(numbers) else numbers[problems]
