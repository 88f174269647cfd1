"""How often the interval of the default estimate holds the true accuracy.

Draws many small sets from a population whose pictures can be drawn without end, runs the default
probe on each, and measures the accuracy of the head that it returns on rows of its own.

    python benchmarks/coverage.py [--sets 500] [--first 0] [--rows 100 1000] [--json FILE]

A set is drawn by its number alone, so that a long count can be split: 250 sets from 0 and 250 from
250 are 500 sets from 0.

The population: K Gaussian classes of D features with a power-law spectrum and random means, cut at
zero as pooled features are. Two truths are counted: the accuracy of the returned head (what a user
will see) and the mean accuracy of heads of sets of that size (what another set would give).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featcache.evaluation.metrics import correct
from featcache.probing import LabelledRows, ProbeSpec, fit_probe

CLASSES, FEATURES, TRUTH_ROWS = 4, 48, 20_000


@dataclass(frozen=True)
class Population:
    """Where sets are drawn from: means (K, D) and scales (D,) of the features before the cut."""

    means: np.ndarray
    scales: np.ndarray

    @classmethod
    def drawn(cls, spread: float, seed: int = 0) -> Population:
        """One population; `spread` moves the classes apart."""
        rng = np.random.default_rng(seed)
        scales = (1 + np.arange(FEATURES)) ** -0.5
        return cls(spread * rng.normal(size=(CLASSES, FEATURES)) * scales, scales)

    def rows(self, count: int, seed: int) -> LabelledRows:
        """A set of independent rows."""
        rng = np.random.default_rng(seed)
        codes = rng.integers(CLASSES, size=count)
        hidden = self.means[codes] + self.scales * rng.normal(size=(count, FEATURES))
        return LabelledRows(
            features=np.maximum(hidden + 0.3, 0).astype(np.float32),
            targets=codes,
            classes=tuple(f"class {k}" for k in range(CLASSES)),
            splits=np.full(count, -1, np.int8),
            groups=np.arange(count),
            rows=np.arange(count),
            hashes=rng.integers(256, size=(count, 32), dtype=np.uint8),
        )


def coverage(population: Population, rows: int, sets: range) -> dict[str, float]:
    """Shares of intervals that hold either truth, and what they are made of, over numbered sets."""
    truth = population.rows(TRUTH_ROWS, seed=2**31)
    found = []
    for seed in sets:
        probed = fit_probe(population.rows(rows, seed), ProbeSpec(seed=seed))
        right = correct(probed.head.probabilities(truth.features), truth.targets).mean()
        found.append((probed.scores.accuracy, probed.interval.lo, probed.interval.hi, right))
    estimate, lo, hi, right = np.array(found).T
    mean = right.mean()
    return {
        "rows": rows,
        "sets": len(sets),
        "first": sets.start,
        "holds_the_heads_accuracy": float(((lo <= right) & (right <= hi)).mean()),
        "holds_the_mean_accuracy": float(((lo <= mean) & (mean <= hi)).mean()),
        "mean_estimate": float(estimate.mean()),
        "mean_accuracy": float(mean),
        "deviation_of_estimates": float(estimate.std()),
        "deviation_of_heads": float(right.std()),
        "mean_width": float((hi - lo).mean()),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first set")
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--spread", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    table = []
    for spread in arguments.spread:
        for rows in arguments.rows:
            sets = range(arguments.first, arguments.first + arguments.sets)
            found = coverage(Population.drawn(spread), rows, sets)
            table.append({"spread": spread, **found})
            print("  ".join(f"{name} {value:.4g}" for name, value in table[-1].items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
