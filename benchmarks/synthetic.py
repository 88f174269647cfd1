"""Features that look like pooled activations of a pretrained network, made without one.

What real ones have, and where it comes from here:

 - low rank, a power-law spectrum, correlated columns: a row is a latent vector of 400 numbers whose
   scale falls as k^-0.65, mixed into all columns by one random matrix;
 - classes: a mean a class in the latent space, of 0.8 of the rows' own spread;
 - non-negative, skewed, partly exact zeros: a picture has 4 positions, each with a latent of
   its own beside the picture's; every position is mixed, cut at zero (thresholds differ by column,
   so that some columns are rarely on), and then averaged, as a network's pooling does;
 - columns of different size: log-normal gains.

Rows are made in blocks, each from a seed of its own, straight into the array they are to fill.
`statistics` gives what can be held beside real features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

LATENTS, DECAY = 400, 0.65
CLASS_SPREAD, POSITION_SPREAD, POSITIONS = 0.8, 0.7, 4
BLOCK = 4096
SAMPLE = 4000
"""Rows that statistics are computed of, at most."""


@dataclass(frozen=True)
class Shape:
    """How many rows, columns and classes."""

    rows: int
    width: int
    classes: int

    def scaled(self, share: float) -> Shape:
        """The same kind of problem, smaller; no class has fewer than 8 rows."""
        classes = max(3, round(self.classes * share))
        rows = max(8 * classes, round(self.rows * share))
        return replace(self, rows=rows, width=max(8, round(self.width * share)), classes=classes)


@dataclass(frozen=True, eq=False)
class Population:
    """What rows are drawn from: mixing (L, D), class means (K, L), thresholds and gains (D,)."""

    mixing: np.ndarray
    means: np.ndarray
    thresholds: np.ndarray
    gains: np.ndarray

    @classmethod
    def drawn(cls, shape: Shape, seed: int) -> Population:
        """One population."""
        rng = np.random.default_rng(seed)
        scale = (1 + np.arange(LATENTS)) ** -DECAY
        scale /= np.linalg.norm(scale)
        return cls(
            rng.standard_normal((LATENTS, shape.width), np.float32)
            * scale[:, None].astype(np.float32),
            CLASS_SPREAD * rng.standard_normal((shape.classes, LATENTS), np.float32),
            rng.uniform(-0.3, 1.2, shape.width).astype(np.float32),
            0.45 * np.exp(0.5 * rng.standard_normal(shape.width, np.float32)),
        )

    def rows(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Features (n, D) float32 of rows of these classes."""
        latent = (len(targets), LATENTS)
        picture = self.means[targets] + rng.standard_normal(latent, np.float32)
        total = np.zeros((len(targets), len(self.gains)), np.float32)
        for _ in range(POSITIONS):
            own = np.float32(POSITION_SPREAD) * rng.standard_normal(latent, np.float32)
            mixed = (picture + own) @ self.mixing
            mixed -= self.thresholds
            total += np.maximum(mixed, 0, out=mixed)
        total *= self.gains / POSITIONS
        return total


def write_synthetic(path: Path, shape: Shape, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Write features (n, D) as a .npy file, block by block.

    Returns:
        (n,) int64 classes, of the same size but for one row, in shuffled order.
    """
    population = Population.drawn(shape, seed)
    targets = np.random.default_rng(seed).permutation(np.arange(shape.rows) % shape.classes)
    out = np.lib.format.open_memmap(path, "w+", dtype, (shape.rows, shape.width))
    for start in range(0, shape.rows, BLOCK):
        block = targets[start : start + BLOCK]
        out[start : start + BLOCK] = population.rows(block, np.random.default_rng([seed, start]))
    out.flush()
    return targets


def statistics(features: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """What tells pooled features from other numbers, of at most `SAMPLE` of the rows.

    Returns:
        zeros: share of exact zeros. skewness: median over the columns. offset: squared norm of the
        mean over the mean squared norm of the centred rows. effective_rank: exponential of the
        entropy of the spectrum (Roy and Vetterli, 2007). rank_90: components that hold 90% of the
        variance. correlation: mean |r| of pairs of columns. nearest_mean: accuracy of the nearest
        class mean, means of one half of the rows, measured on the other.
    """
    chosen = np.random.default_rng(0).permutation(len(features))[:SAMPLE]
    sample, codes = features[np.sort(chosen)].astype(np.float64), targets[np.sort(chosen)]
    mean = sample.mean(axis=0)
    centred = sample - mean
    spread = centred.std(axis=0)
    alive = spread > 0
    standard = centred[:, alive] / spread[alive]
    power = np.linalg.svd(centred, compute_uv=False) ** 2
    share = power / power.sum()
    some = standard[:, :: max(1, standard.shape[1] // 500)]
    correlations = (some.T @ some / len(some))[np.triu_indices(some.shape[1], 1)]
    return {
        "zeros": float(np.mean(sample == 0)),
        "skewness": float(np.median(np.mean(standard**3, axis=0))),
        "offset": float(mean @ mean / (power.sum() / len(sample))),
        "effective_rank": float(np.exp(-np.sum(share * np.log(np.maximum(share, 1e-300))))),
        "rank_90": int(np.searchsorted(share.cumsum(), 0.9) + 1),
        "correlation": float(np.abs(correlations).mean()),
        "nearest_mean": _nearest_mean(sample, codes),
    }


def _nearest_mean(features: np.ndarray, targets: np.ndarray) -> float:
    known = np.random.default_rng(1).permutation(len(features)) % 2 == 0
    present = np.unique(targets[known])
    means = np.stack([features[known & (targets == code)].mean(axis=0) for code in present])
    distances = np.square(means).sum(axis=1) - 2 * features[~known] @ means.T
    return float(np.mean(present[distances.argmin(axis=1)] == targets[~known]))
