"""An MLP head: new hidden units on the cached features, trained as a tail is.

It stands beside the linear head on the same pictures: both are judged on those that are held out,
and the linear head is solved on all others. A part of these trains no unit but chooses rate and
epoch (`parts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.paired import PairedDifference
from featcache.evaluation.pairwise import against_first
from featcache.evaluation.recommendation import Recommendation, recommend
from featcache.probing import LabelledRows, Probed
from featcache.probing.judging import judge
from featcache.recipe import PENULTIMATE
from featcache.training.model import mlp_tail, untrained_head
from featcache.unfreezing.courses import Course
from featcache.unfreezing.depths import Rung
from featcache.unfreezing.fitting import DepthFit, Progress, Tuning, solve_depth_0
from featcache.unfreezing.parts import Bools, Part, Split, split_of, whole_of
from featcache.unfreezing.rows import Activations, bytes_of
from featcache.unfreezing.spec import SweepSpec
from featcache.unfreezing.sweeping import DepthFound, found_of

NAMES = ("the linear head", "the MLP head")

_HEADS = (Rung(0, PENULTIMATE, None, (), 0, 0), Rung(1, PENULTIMATE, None, (), 0, 0))
"""Both are above the network, of which nothing is trained."""

_ROWS = 16384
"""Read at a time."""


@dataclass(frozen=True)
class MlpSpec:
    """What is asked of an MLP head.

    Attributes:
        sweep: splits, the linear head, the training and its rates; its depths mean nothing here.
        hidden: units. dropout: share of them that is left out at each step.

    Raises:
        ProbeError: a value that cannot be asked for.
    """

    sweep: SweepSpec
    hidden: int = 256
    dropout: float = 0.25

    def __post_init__(self) -> None:
        if self.hidden < 1 or not 0 <= self.dropout < 1:
            raise ProbeError(
                f"{self.hidden} hidden units, dropout {self.dropout}: give at least 1, and 0 to "
                "below 1"
            )


@dataclass(frozen=True, eq=False)
class MlpFound:
    """An MLP head beside the linear one.

    Attributes:
        probed: the estimate of the MLP head, mean over seeds; its probabilities and confusion are
            those of the first seed, and it has no path and no fit.
        linear, mlp: on the same pictures. split: which those are.
        difference: accuracy of the MLP head minus the linear one's, paired.
        recommendation: by the margin rule, the linear head first.
    """

    probed: Probed
    linear: DepthFound
    mlp: DepthFound
    split: Split
    difference: PairedDifference
    recommendation: Recommendation


def probe_mlp(data: LabelledRows, spec: MlpSpec, progress: Progress | None = None) -> MlpFound:
    """Train and judge an MLP head, and the linear one beside it.

    Args:
        data: the pictures.
        spec: what is asked.
        progress: called with ("MLP head", done, total), the unit a step of one training.

    Raises:
        ProbeError, TrainingError: the pictures do not allow it.
    """
    split, sweep = split_of(data, spec.sweep), spec.sweep
    solved: list[tuple[DepthFit, ...]] = []
    trained: list[tuple[DepthFit, ...]] = []
    for part in split.parts:
        solved.append((solve_depth_0(data, part, sweep),))
        seeds = range(sweep.training.seed, sweep.training.seed + sweep.seeds)
        trained.append(tuple(_trained(data, part, spec, seed, progress) for seed in seeds))
    judged = np.concatenate([np.flatnonzero(part.judged) for part in split.parts])
    linear, mlp = (
        found_of(data, rung, tuple(fits), judged, sweep.seeds, bytes_of(data.features))
        for rung, fits in zip(_HEADS, (solved, trained), strict=True)
    )
    right, groups = np.stack([linear.right, mlp.right], axis=1), data.groups[judged]
    return MlpFound(
        probed=_probed(data, spec, split, judged, linear, mlp),
        linear=linear,
        mlp=mlp,
        split=split,
        difference=against_first(right, groups)[0],
        recommendation=recommend(right, groups, margin=sweep.margin, names=NAMES),
    )


def refit_mlp(
    data: LabelledRows, spec: MlpSpec, found: MlpFound, progress: Progress | None = None
) -> DepthFit:
    """The first seed's training on all pictures but those of a test split, to be used.

    Where nothing but a test split was held out it is the one that was measured.
    """
    whole, parts = whole_of(data, spec.sweep), found.split.parts
    if all(_same(part, whole) for part in parts):
        return found.mlp.fits[0][0]
    return _trained(data, whole, spec, spec.sweep.training.seed, progress)


def _same(part: Part, other: Part) -> bool:
    return np.array_equal(part.fit, other.fit) and np.array_equal(part.stop, other.stop)


def _trained(
    data: LabelledRows, part: Part, spec: MlpSpec, seed: int, progress: Progress | None
) -> DepthFit:
    """The hidden units and head of one part and seed."""
    mean, scale = moments(data, part.fit)
    tail = mlp_tail(len(mean), spec.hidden, spec.dropout, seed, mean=mean, scale=scale)
    loss, several = spec.sweep.probe.loss, data.targets.ndim == 2
    head = untrained_head(len(data.classes), spec.hidden, loss, seed, multi_label=several)
    rung = Rung(1, PENULTIMATE, tail, (), sum(p.numel() for p in tail.parameters()), 0)
    course = Course(rung, features_of(data))
    return Tuning(data, part, spec.sweep, seed, head).fit(course, _told(progress))


def _told(progress: Progress | None) -> Progress | None:
    return progress and (lambda _, done, total: progress("MLP head", done, total))


def features_of(data: LabelledRows) -> Activations:
    """The cached features as what a tail trains from, all views of a picture beside each other."""
    rows, positions = data.features, np.arange(len(data))[:, None]
    if data.views is not None:
        rows, positions = data.views.features, _by_picture(data.views.owners)
    return Activations(rows, positions, tuple(rows.shape[1:]), bytes_of(rows))


def _by_picture(owners: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n, V) rows of each picture's views, the plain one first, and where some are lacking."""
    order, counts = np.argsort(owners, kind="stable"), np.bincount(owners)
    first = np.cumsum(counts) - counts
    positions = np.repeat(order[first][:, None], counts.max(), axis=1)
    positions[owners[order], np.arange(len(order)) - np.repeat(first, counts)] = order
    return positions


def moments(data: LabelledRows, rows: Bools) -> tuple[npt.NDArray[np.float64], ...]:
    """(D,) mean and standard deviation of the plain features of some pictures (n,) bool."""
    places = np.flatnonzero(rows)

    def blocks() -> Iterator[npt.NDArray[np.float64]]:
        for start in range(0, len(places), _ROWS):
            yield data.features[places[start : start + _ROWS]].astype(np.float64)

    mean = np.sum([block.sum(axis=0) for block in blocks()], axis=0) / len(places)
    squares = np.sum([np.square(block - mean).sum(axis=0) for block in blocks()], axis=0)
    return mean, np.sqrt(squares / len(places))


def _probed(
    data: LabelledRows,
    spec: MlpSpec,
    split: Split,
    judged: npt.NDArray[np.int64],
    linear: DepthFound,
    mlp: DepthFound,
) -> Probed:
    probabilities = np.full((len(data), len(data.classes)), np.nan)
    probabilities[judged] = np.concatenate([fits[0].probabilities for fits in mlp.fits])
    rows = np.isin(np.arange(len(data)), judged)
    _, _, counts = judge(data, rows, probabilities)
    return Probed(
        fit=None,
        path=(),
        best=0,
        method=split.method,
        scores=mlp.scores,
        interval=mlp.interval,
        judged=rows,
        trained=whole_of(data, spec.sweep).train,
        probabilities=probabilities,
        confusion=counts,
        seconds=linear.seconds + mlp.seconds,
        train_accuracy=mlp.train_accuracy,
        warnings=(*split.warnings, *_warnings(mlp)),
    )


def _warnings(mlp: DepthFound) -> Iterator[str]:
    if any(fit.diverged for fits in mlp.fits for fit in fits):
        yield (
            "MLP head: a training diverged and its best weights before that were kept; give "
            "smaller rates"
        )
