"""What is done to activations at the cut: mixup, CutMix, noise.

Flipping a map is not flipping the picture, so it is not here. torchvision's own MixUp and CutMix
know neither weights of rows nor a generator of one's own, hence these.

Two rows that are mixed by a share s have the mixture of their losses: the loss is linear in the
target, so the mixture weighs a = s a_1 + (1 - s) a_2 and has the target
y = (s a_1 y_1 + (1 - s) a_2 y_2) / a, which sums to what y_1 and y_2 sum to.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from featcache.errors import TrainingError
from featcache.training.spec import TrainingSpec


class Mixer:
    """Mixes the rows of a batch with one another.

    Args:
        spec: alphas and noise.
        shape: of one picture's activation.
        rng: what is drawn from.

    Raises:
        TrainingError: CutMix is asked for, and the activation is no map.
    """

    def __init__(
        self, spec: TrainingSpec, shape: tuple[int, ...], rng: np.random.Generator
    ) -> None:
        self._spec, self._rng = spec, rng
        self._sides = map_sides(shape) if spec.cutmix else None

    def __call__(self, x: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """Activations (b, *shape), targets (b, K) and weights (b,), mixed and with noise."""
        x, targets, weights = self._mixed(x, targets, weights)
        if self._spec.noise:
            x = x + self._spec.noise * x.std() * torch.randn_like(x)
        return x, targets, weights

    def _mixed(self, x: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        if not self._spec.mixup and self._sides is None:
            return x, targets, weights
        other = torch.from_numpy(self._rng.permutation(len(x))).to(x.device)
        cuts = self._sides is not None and (not self._spec.mixup or self._rng.random() < 0.5)
        if cuts and self._sides is not None:
            lam = self._rng.beta(self._spec.cutmix, self._spec.cutmix)
            x, lam = cut_mix(x, other, lam, self._sides, self._rng)
        else:
            lam = self._rng.beta(self._spec.mixup, self._spec.mixup)
            x = lam * x + (1 - lam) * x[other]
        return x, *mix_targets(targets, weights, other, lam)


def mix_targets(
    targets: Tensor, weights: Tensor, other: Tensor, lam: float
) -> tuple[Tensor, Tensor]:
    """Targets (b, K) and weights (b,) whose loss is the mixture of both rows' losses."""
    own, theirs = lam * weights, (1 - lam) * weights[other]
    mixed = own + theirs
    total = own[:, None] * targets + theirs[:, None] * targets[other]
    return total / mixed[:, None], mixed


def cut_mix(
    x: Tensor, other: Tensor, lam: float, sides: tuple[int, int], rng: np.random.Generator
) -> tuple[Tensor, float]:
    """Put a box of another row's map in each map.

    Args:
        x: (b, *shape).
        other: (b,) the rows that boxes are taken from.
        lam: share of the map to keep, about: the box is cut at the map's edges.
        sides: axes of height and width in x.
        rng: of the box's place.

    Returns:
        The maps, and the share that was kept in fact.
    """
    ratio = math.sqrt(1 - lam)
    box, area, total = [slice(None)] * x.ndim, 1, 1
    for axis in sides:
        length = x.shape[axis]
        half, centre = ratio * length / 2, rng.uniform(0, length)
        low, high = max(round(centre - half), 0), min(round(centre + half), length)
        box[axis] = slice(low, high)
        area, total = area * (high - low), total * length
    x, theirs = x.clone(), x[other]
    x[tuple(box)] = theirs[tuple(box)]
    return x, 1 - area / total


def map_sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Axes of height and width in a batch of maps.

    Channels come last where only so the sides are equal (Swin); otherwise first.

    Raises:
        TrainingError: the activation is no map.
    """
    if len(shape) != 3:
        text = " x ".join(map(str, shape))
        raise TrainingError(
            f"cutmix: this cut gives {text}, which is not a map; take mixup, or a cut that gives "
            "maps"
        )
    last = shape[0] == shape[1] != shape[2]
    return (1, 2) if last else (2, 3)
