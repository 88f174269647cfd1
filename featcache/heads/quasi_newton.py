r"""L-BFGS for a batch of problems, whose curvature pairs survive a change of the penalty.

A pair is a step s and the change y of the gradient over it. The gradient is that of the data plus
lambda W, so y = y_data + lambda s: kept apart, a pair of one C is exact in its penalty at the next,
and the memory of a path is never thrown away. (Nocedal and Wright, Numerical Optimization, 7.2;
gamma H0, a diagonal, takes the place of gamma I.)
"""

# torch ships few types: what it returns is known here by its shape, written beside it
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportConstantRedefinition=false

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_FLAT = 1e-7
"""A pair whose y . s is below this share of |y| |s| says nothing of the curvature."""


_FEWEST, _MOST, _MORE_A_DIGIT = 3, 20, 3
"""Pairs that are remembered: more for each digit of the tolerance beyond the first."""


def pairs_for(tolerance: float) -> int:
    """How many pairs to remember on the way to a relative gap.

    A path at 1e-3 takes a step or two at each C, and older pairs are of solutions that are far by
    then: 6 need as few steps as more. At 1e-6 15 need a fifth to a quarter fewer than 8.
    """
    digits = -math.log10(max(tolerance, 1e-300))
    return min(max(round(_MORE_A_DIGIT * (digits - 1)), _FEWEST), _MOST)


@dataclass(frozen=True, eq=False)
class _Pair:
    s: Tensor  # (B, N) float32, of length 1 over what is penalised and not
    y: Tensor  # (B, N) float32: of the data alone
    sy: Tensor  # (B,)
    ss: Tensor  # (B,): s . s over what is penalised
    usable: Tensor  # (B,) bool


class CurvaturePairs:
    """The last pairs of B problems; vectors are (B, K, R + 1), the last coordinate unpenalised.

    Held and multiplied in float32: a direction need not be exact, and this is most of what a step
    costs beside its two products.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pairs: list[_Pair] = []

    def push(self, s: Tensor, y: Tensor) -> None:
        """Add a step and the change of the data's gradient over it."""
        length = torch.linalg.vector_norm(s, dim=(1, 2), keepdim=True)
        length = length.clamp_(min=torch.finfo(s.dtype).tiny)
        s, y = (s / length).float(), (y / length).float()
        ss = s[..., :-1].square().sum(dim=(1, 2))
        s, y = s.flatten(1), y.flatten(1)
        sy = _dot(s, y)
        usable = sy > _FLAT * torch.linalg.vector_norm(y, dim=1)
        self._pairs = [*self._pairs[1 - self._size :], _Pair(s, y, sy, ss, usable)]

    def forget(self, problems: Tensor) -> None:
        """Drop the memory of the problems marked (B,) bool."""
        self._pairs = [_Pair(p.s, p.y, p.sy, p.ss, p.usable & ~problems) for p in self._pairs]

    def keep(self, problems: Tensor) -> None:
        """Go on with some problems (indices)."""
        self._pairs = [
            _Pair(*(part[problems] for part in (p.s, p.y, p.sy, p.ss, p.usable)))
            for p in self._pairs
        ]

    def direction(self, gradient: Tensor, strength: Tensor, inverse: Tensor) -> Tensor:
        """Minus the approximate inverse Hessian times the gradient.

        Args:
            gradient: (B, K, R + 1), penalty included.
            strength: (B,) lambda.
            inverse: (B, K, R + 1) diagonal H0.
        """
        size = torch.linalg.vector_norm(gradient, dim=(1, 2), keepdim=True)
        size = size.clamp_(min=torch.finfo(gradient.dtype).tiny)
        q = (gradient / size).float().flatten(1)
        penalised = gradient.new_ones(gradient.shape[1:], dtype=torch.float32)
        penalised[:, -1] = 0
        strength = strength.float()
        penalty = strength[:, None] * penalised.flatten()  # (B, N)
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        for pair in reversed(self._pairs):
            y = torch.addcmul(pair.y, penalty, pair.s)
            rho = torch.where(pair.usable, 1 / (pair.sy + strength * pair.ss), 0.0)
            alpha = rho * _dot(pair.s, q)
            q.addcmul_(y, alpha[:, None], value=-1)
            steps.append((y, rho, alpha))
        q *= self._scaled(inverse.flatten(1), steps)
        for pair, (y, rho, alpha) in zip(self._pairs, reversed(steps), strict=True):
            q.addcmul_(pair.s, (alpha - rho * _dot(y, q))[:, None])
        return q.view_as(gradient).to(gradient.dtype).mul_(-size)

    def _scaled(self, inverse: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """H0 (B, N) as long as the last pair says: times s . y / (y . H0 y).

        Never infinite: the bias of a class that a problem lacks, whose gradient is 0, would be NaN.
        """
        if not steps:
            return inverse
        newest, y = self._pairs[-1], steps[0][0]
        scale = _dot(newest.s, y) / _dot(y, inverse * y)
        usable = newest.usable & scale.isfinite() & (scale > 0)
        scaled = inverse * torch.where(usable, scale, 1.0)[:, None]
        return scaled.clamp_(max=torch.finfo(scaled.dtype).max)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b)
