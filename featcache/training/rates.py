"""A grid of base rates, each trained in full; the validation pictures choose.

They are part of the training rows, so the choice is inside whatever is estimated from others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from featcache.errors import TrainingError
from featcache.training.examples import Examples
from featcache.training.model import TunedModel
from featcache.training.spec import TrainingSpec
from featcache.training.trainer import Progress, Trained, train

FACTORS = (1 / 3, 1.0, 3.0)
"""Of the base rate, from the smallest."""


@dataclass(frozen=True, eq=False)
class ChosenRate:
    """The training of the best base rate.

    Attributes:
        rate: the base rate.
        trained: what it gave.
        tried: (rate, lowest validation loss) of each, in the order given.
    """

    rate: float
    trained: Trained
    tried: tuple[tuple[float, float], ...]


def choose_rate(
    model: TunedModel,
    examples: Examples,
    spec: TrainingSpec,
    *,
    validation: Examples,
    rates: Sequence[float] | None = None,
    units: Sequence[str] = (),
    progress: Progress | None = None,
    before: Callable[[TunedModel, TrainingSpec], TunedModel] | None = None,
) -> ChosenRate:
    """Train once for each base rate and keep the lowest validation loss; the first of equals.

    A rate that diverges is one of the candidates, with the best weights before that.

    Args:
        model: where each rate starts; see `train` for this and the next two.
        examples: what it trains on.
        spec: how, but for the rate.
        validation: pictures that choose the rate, and the epoch within it.
        rates: base rates; None takes `FACTORS` of the spec's.
        units: see `train`.
        progress: counts the steps of all.
        before: what is trained first at each rate (on smaller pictures, say), from the model.

    Raises:
        TrainingError: no rate, or as `train`.
    """
    grid = [spec.rate * factor for factor in FACTORS] if rates is None else list(rates)
    if not grid:
        raise TrainingError("no rate to choose from; give some")
    runs = list[Trained]()
    for number, rate in enumerate(grid):
        at, told = replace(spec, rate=rate), _among(progress, number, len(grid))
        start = before(model, at) if before else model
        runs.append(train(start, examples, at, validation=validation, units=units, progress=told))
    losses = [_lowest(run) for run in runs]
    best = losses.index(min(losses))
    return ChosenRate(grid[best], runs[best], tuple(zip(grid, losses, strict=True)))


def _lowest(trained: Trained) -> float:
    loss = trained.best.validation_loss
    return math.inf if loss is None else loss


def _among(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one training as a part of several."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(stage, number * total + done, count * total)
