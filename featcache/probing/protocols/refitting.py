"""Protocols that choose C on held-out rows, refit on these too, and measure on test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from featcache.heads.grid import default_grid
from featcache.probing.judging import predict
from featcache.probing.protocols.asked import Asked
from featcache.probing.protocols.holding_out import (
    draw,
    groups_by_content,
    groups_by_torch,
    hold_out,
    hold_out_by_class,
)
from featcache.probing.protocols.searching import Search
from featcache.probing.rows import Bools
from featcache.probing.spec import Probed

CLIP_GRID = tuple((10.0 ** (np.arange(97) / 8 - 6)).tolist())
"""96 logarithmic steps from 1e-6 to 1e6: 8 a decade."""

CLIP_COARSE, CLIP_SPANS = 16, (8, 4, 2, 1)
"""Steps between the first values, and from the peak to those that are tried around it."""

DINOV2_GRID = tuple(np.logspace(-6, 5, 45).tolist())

VTAB_TRAIN, VTAB_VAL = 800, 200
VTAB_VALUES = 25

_FIFTH = 0.2


@dataclass(frozen=True, eq=False)
class _Sides:
    """Rows that train and rows that choose, and what these are called."""

    train: Bools
    tuning: Bools
    named: str


def clip(asked: Asked) -> Probed:
    """CLIP's linear probe (Radford et al. 2021, arXiv 2103.00020, appendix A.3).

    "scikit-learn's L-BFGS implementation, with maximum 1,000 iterations"; lambda over "the range
    between 1e-6 and 1e6, with 96 logarithmically spaced steps", by a search that starts with seven
    values two decades apart and "iteratively halves the interval around the peak until it reaches
    a resolution of 8 steps per decade"; chosen on val, or on a part of train where there is none;
    refit on both; measured on test.

    The values here are scikit-learn's C, whose loss is a sum over the rows. The paper's lambda is
    1/C, and both run over the same values; the C = 0.316 of the code that was published with it
    (openai/CLIP, README.md, "Linear-probe evaluation") is one of them, 10^-0.5. A mean loss would
    put C = 1/(lambda n) between the steps.

    Ours: the smaller C where accuracies are equal; the part of train is a fifth of every class
    (the paper does not say); fits end by certificate, not by the number of iterations.
    """
    sides = _val_or(asked, "a fifth of every class of train", _fifth_of_every_class)
    asked.solving.expected = len(CLIP_GRID[::CLIP_COARSE]) + 2 * len(CLIP_SPANS) + 1
    return _refitted(asked, sides, "searched by halving", _halved)


def dinov2(asked: Asked) -> Probed:
    """DINOv2's logistic regression (Oquab et al. 2023, arXiv 2304.07193, section 7.1).

    As facebookresearch/dinov2, `dinov2/eval/log_regression.py`: 45 values of C from 1e-6 to 1e5,
    float64, chosen by top-1 accuracy on the fine-tuning set (here val), or on the first tenth of
    `torch.randperm` of train under seed 0; of equal accuracies the first, which is the smallest C;
    refit on both; measured on test. Features are not normalised: only `eval/knn.py` does that.
    cuML divides its penalty by the number of rows as it averages the loss, so C is scikit-learn's.

    Ours: rows of one group or one content stay on one side of the tenth; fits end by certificate
    (there: tol 1e-12, at most 1000 iterations).
    """
    sides = _val_or(asked, "a tenth of train", _tenth)
    asked.solving.expected = len(DINOV2_GRID) + 1
    return _refitted(asked, sides, "of 45 values", lambda search: search.peak(DINOV2_GRID))


def vtab1k(asked: Asked) -> Probed:
    """VTAB-1k (Zhai et al. 2019, arXiv 1910.04867, section 2 and appendix) for a linear probe.

    800 pictures of train and 200 of val; where there is no val 1000 of train, a fifth of which
    (google-research/task_adaptation, `data/`: train[:80%] and the rest) chooses; hyper-parameters
    by accuracy on the 200, refit on the 1000, measured on the whole test split.

    Ours: the grid. There heads and networks are tuned by SGD and what is swept is learning rate
    and schedule; here it is C, 25 values that the 800 place (`heads.grid`). The pictures are drawn
    by content and seed, not by their order in TFDS, so that they are other thousands than VTAB's.
    """
    sides = _thousand(asked)
    grid = default_grid(asked.data.features, VTAB_VALUES, sides.train).tolist()
    asked.solving.expected = VTAB_VALUES + 1
    return _refitted(asked, sides, "of a grid of our own", lambda search: search.peak(grid))


def _halved(search: Search) -> float:
    """The peak among the coarse values, then four times among it and its neighbours, nearer."""
    at = CLIP_GRID.index(search.peak(CLIP_GRID[::CLIP_COARSE]))
    for span in CLIP_SPANS:
        around = CLIP_GRID[max(at - span, 0) : at + span + 1 : span]
        at = CLIP_GRID.index(search.peak(around))
    return CLIP_GRID[at]


def _fifth_of_every_class(asked: Asked) -> Bools:
    return hold_out_by_class(asked.data, asked.roles.train, _FIFTH, asked.spec.seed)


def _tenth(asked: Asked) -> Bools:
    data, train = asked.data, asked.roles.train
    order = groups_by_torch(data, train, asked.spec.seed)
    return hold_out(data, train, order, int(train.sum()) // 10)


def _val_or(asked: Asked, named: str, part: Callable[[Asked], Bools]) -> _Sides:
    """The val split, or a part of train."""
    roles = asked.roles
    if roles.tuning.any():
        return _Sides(roles.train, roles.tuning, "the val split")
    held = part(asked)
    return _Sides(roles.train & ~held, held, named)


def _thousand(asked: Asked) -> _Sides:
    data, roles, seed = asked.data, asked.roles, asked.spec.seed
    if roles.tuning.any():
        train = draw(data, roles.train, VTAB_TRAIN, seed)
        sides = _Sides(train, draw(data, roles.tuning, VTAB_VAL, seed), "pictures of val")
    else:
        drawn = draw(data, roles.train, VTAB_TRAIN + VTAB_VAL, seed)
        order = groups_by_content(data, drawn, seed)
        held = hold_out(data, drawn, order, round(_FIFTH * int(drawn.sum())))
        sides = _Sides(drawn & ~held, held, "pictures of train")
    return _counted(asked, sides)


def _counted(asked: Asked, sides: _Sides) -> _Sides:
    """The sides with their sizes in the name, and a warning where there are fewer than 1000."""
    train, val = int(sides.train.sum()), int(sides.tuning.sum())
    if train < VTAB_TRAIN or val < VTAB_VAL:
        asked.warnings.append(
            f"{train} pictures to train on and {val} to choose C on, where VTAB-1k has "
            f"{VTAB_TRAIN} and {VTAB_VAL}: the data has no more, or groups of them stay together"
        )
    return _Sides(sides.train, sides.tuning, f"{val} {sides.named} ({train} train)")


def _refitted(asked: Asked, sides: _Sides, how: str, choose: Callable[[Search], float]) -> Probed:
    """Choose C, refit on both sides, and judge the refit."""
    data, roles = asked.data, asked.roles
    search = Search(asked, sides.train, sides.tuning)
    best = choose(search)
    trained = sides.train | sides.tuning
    fit = asked.solving.fit(trained, best)
    probabilities = np.full((len(data), len(data.classes)), np.nan)
    probabilities[sides.tuning] = search.probabilities(best, sides.tuning)
    probabilities[roles.judged] = predict(fit.head, data, roles.judged)
    return asked.probed(
        fit,
        search.path(),
        search.position(best),
        trained=trained,
        probabilities=probabilities,
        method=f"C, {how}, by accuracy on {sides.named}, refit on both, measured on test",
    )
