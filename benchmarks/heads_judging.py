"""How good the heads of `heads.py` are: float64 objectives, true gaps, beside scikit-learn's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from heads_sides import Data, Fitted, Run

Point = tuple[int, float]
"""A fold and a C."""


@dataclass(frozen=True, eq=False)
class Side:
    """One line of the table.

    Attributes:
        name: who, and how.
        run: what it took, or None where it was left out.
        faster: scikit-learn's seconds a fit over this side's, or None.
        points: a dict for each judged fit: fold, C, seconds, iterations and, where evaluated,
            objective, true_gap, certified_gap, over_theirs.
        reason: why it was left out.
    """

    name: str
    run: Run | None
    faster: float | None = None
    points: tuple[dict[str, float], ...] = ()
    reason: str = ""

    def values(self, key: str) -> np.ndarray:
        """That number of every judged fit that has it."""
        return np.array([point[key] for point in self.points if point.get(key) is not None])


def judged(
    data: Data,
    folds: np.ndarray,
    runs: dict[str, Run],
    peer: str,
    reference: Run | None = None,
) -> list[Side]:
    """Sides with every number that needs more than one of them.

    A true gap is (F - L) / F, with F the float64 objective of the float32 head on its training rows
    and L the highest certified lower bound of any of our solves: too large by the gap of that
    solve, never too small.

    Args:
        data: the rows.
        folds: (F, n) bool, the training rows of each judged fold.
        runs: by the side's name.
        peer: the side that others are compared with.
        reference: a tight solve, of which only the bounds are used.
    """
    lowers = _lowers([*runs.values(), *([reference] if reference else [])])
    found = {name: _objectives(data, folds, run.fits) for name, run in runs.items()}
    return [
        Side(
            name,
            run,
            runs[peer].each / run.each,
            tuple(_point(fit, found[name], found[peer], lowers) for fit in run.fits),
        )
        for name, run in runs.items()
    ]


def _point(
    fit: Fitted,
    own: dict[Point, float],
    theirs: dict[Point, float],
    lowers: dict[Point, float],
) -> dict[str, float]:
    at = fit.fold, fit.C
    point = {"fold": fit.fold, "C": fit.C, "seconds": fit.seconds, "iterations": fit.iterations}
    point["objective"] = own[at]
    if fit.gap is not None:
        point["certified_gap"] = fit.gap
    if at in lowers:
        point["true_gap"] = (own[at] - lowers[at]) / own[at]
    if at in theirs:
        point["over_theirs"] = own[at] / theirs[at]
    return point


def _lowers(runs: Iterable[Run]) -> dict[Point, float]:
    found = dict[Point, float]()
    for fit in (fit for run in runs for fit in run.fits):
        if fit.lower is not None:
            at = fit.fold, fit.C
            found[at] = max(found.get(at, 0.0), fit.lower)
    return found


def _objectives(data: Data, folds: np.ndarray, fits: list[Fitted]) -> dict[Point, float]:
    """Float64 objective of every head on its fold's training rows."""
    from featcache.heads.objective import objective

    features, one_hot = data.features, np.eye(data.classes)[data.targets]
    found = dict[Point, float]()
    for fold in sorted({fit.fold for fit in fits}):
        rows, labels = features[folds[fold]].astype(np.float64), one_hot[folds[fold]]
        for fit in (fit for fit in fits if fit.fold == fold):
            coef, bias = fit.coef.astype(np.float64), fit.bias.astype(np.float64)
            found[fold, fit.C] = objective("softmax", rows, labels, coef, bias, fit.C)
    return found


def compared(side: Side) -> str:
    """Where the side's objective is above scikit-learn's, in words."""
    over = side.values("over_theirs")
    worst = int(over.argmax())
    where = [point["C"] for point in side.points if "over_theirs" in point][worst]
    above = int((over > 1).sum())
    if not above:
        return (
            f"{side.name}: objective at or below scikit-learn's at every of {len(over)} points; "
            f"worst case {over.max():.7f} of it, at C = {where:.3g}"
        )
    return (
        f"{side.name}: objective above scikit-learn's at {above} of {len(over)} points, at most "
        f"{over.max() - 1:.1e} of it above (C = {where:.3g}); median {np.median(over):.7f} of it"
    )
