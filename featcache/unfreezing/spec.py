"""Everything that is asked of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, field

from featcache.errors import ProbeError
from featcache.heads.averaging import Averaging
from featcache.probing import ProbeSpec
from featcache.recipe import View
from featcache.training.spec import TrainingSpec


@dataclass(frozen=True)
class SweepSpec:
    """How depths are trained and judged.

    Attributes:
        depths: ascending, 0 among them; how many units train.
        probe: how the head of depth 0, and the head that training starts from, are fitted; its
            seed is that of the splits.
        training: how tails train; its seed is the first of `seeds`.
        rates: base rates instead of the training's own, each trained in full; the pictures that
            stop a training choose among them. None: the training's own alone.
        seeds: trainings of each depth, which differ in order, views and mixing.
        folds: of a cross-validation; None holds `held_out` of the pictures out, once.
        held_out: share that is held out where nothing is split.
        stopping: share of the training pictures that choose rate and epoch, where there is no val.
        solved_start: start from the solved head; else from an untrained one.
        progressive: start each depth from the shallower one that was trained before it.
        margin: accuracy one gives away for a shallower depth.
        live: train from pixels at every depth, with fresh views of a policy in each epoch, drawn by
            `view_seed`; what is judged is the plain view.
        smaller: (side in pixels, epochs) of pictures that train before those of the recipe's size,
            from pixels.
        scratch: train the whole network from random weights too.
        crops: views that are predicted beside the plain one of what is judged, at every depth; they
            train nothing and choose nothing. averaging: "mean" or "max" of all their probabilities.

    Raises:
        ProbeError: a value that cannot be asked for.
    """

    depths: tuple[int, ...]
    probe: ProbeSpec = field(default_factory=ProbeSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    rates: tuple[float, ...] = ()
    seeds: int = 1
    folds: int | None = None
    held_out: float = 0.3
    stopping: float = 0.15
    solved_start: bool = True
    progressive: bool = True
    margin: float = 0.01
    live: bool = False
    policy: str = "standard"
    view_seed: int = 0
    smaller: tuple[tuple[int, int], ...] = ()
    scratch: bool = False
    crops: tuple[View, ...] = ()
    averaging: Averaging = "mean"

    def __post_init__(self) -> None:
        ascending = tuple(sorted({0, *self.depths}))
        problems = [
            (self.depths != ascending, f"depths {self.depths}: give them ascending, from 0"),
            (self.seeds < 1, f"{self.seeds} training seeds: give at least 1"),
            (self.folds is not None and self.folds < 2, f"{self.folds} folds: give at least 2"),
            (
                not all(0 < share < 1 for share in (self.held_out, self.stopping)),
                "held_out and stopping are shares: give numbers between 0 and 1",
            ),
            (
                not all(0 < rate < 1 for rate in self.rates),
                f"rates {self.rates}: give numbers between 0 and 1, such as 1e-3",
            ),
            (not 0 < self.margin < 1, f"margin {self.margin}: give a number between 0 and 1"),
            (
                any(side < 1 or epochs < 1 for side, epochs in self.smaller),
                f"sizes {self.smaller}: give sides and epochs from 1",
            ),
        ]
        for wrong, message in problems:
            if wrong:
                raise ProbeError(message)
