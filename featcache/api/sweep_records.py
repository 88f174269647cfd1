"""From what a sweep found to the records of a result."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featcache.evaluation.paired import PairedDifference
from featcache.evaluation.recommendation import against_first
from featcache.probing import LabelledRows
from featcache.results import DataSize, DepthScore, Difference, Tta
from featcache.unfreezing import DepthFound, SweepSpec, Swept


def depth_scores(swept: Swept, data: LabelledRows, spec: SweepSpec) -> tuple[DepthScore, ...]:
    """A row a depth, each beside depth 0."""
    groups = data.groups[swept.judged]
    right = np.stack([depth.right for depth in swept.depths], axis=1)  # (S, D, n)
    differences = [_difference(pair, groups) for pair in against_first(right, groups)]
    return tuple(
        _score(depth, groups, spec, against, float(p))
        for depth, against, p in zip(
            swept.depths,
            (None, *differences),
            swept.recommendation.better_than_first,
            strict=True,
        )
    )


def scratch_score(swept: Swept, data: LabelledRows, spec: SweepSpec) -> DepthScore | None:
    """The network from random weights, beside depth 0; None where it was not asked for."""
    if swept.scratch is None:
        return None
    groups = data.groups[swept.judged]
    right = np.stack([swept.depths[0].right, swept.scratch.right], axis=1)  # (S, 2, n)
    (pair,) = against_first(right, groups)
    return _score(swept.scratch, groups, spec, _difference(pair, groups), None)


def _difference(pair: PairedDifference, groups: npt.NDArray[np.int64]) -> Difference:
    return Difference(pair.difference, pair.ci95, pair.p_value, pair.method, len(groups))


def _score(
    found: DepthFound,
    groups: npt.NDArray[np.int64],
    spec: SweepSpec,
    against: Difference | None,
    adjusted: float | None,
) -> DepthScore:
    rung, first = found.rung, found.fits[0][0]
    head = first.head.coef.size + first.head.bias.size
    return DepthScore(
        depth=rung.depth,
        cut=rung.cut,
        accuracy=found.scores.accuracy,
        ci95=(found.interval.lo, found.interval.hi),
        train_accuracy=found.train_accuracy,
        params_total=rung.total + head,
        params_trainable=rung.trained + head,
        params_frozen=rung.total - rung.trained,
        seconds=round(found.seconds, 3),
        mean_per_class=found.scores.mean_per_class,
        log_loss=found.scores.log_loss,
        bytes=found.bytes,
        against_depth_0=against,
        adjusted_p=None if against is None else adjusted,
        rate=first.rate,
        epochs=first.epochs,
        tta=_tta(found, groups, spec),
    )


def _tta(found: DepthFound, groups: npt.NDArray[np.int64], spec: SweepSpec) -> Tta | None:
    """What crops gain at a depth, seed by seed beside its plain views."""
    crops = found.with_crops
    if crops is None:
        return None
    plain = found.right[: len(crops.right)]  # what is solved stands there once for each seed
    (gain,) = against_first(np.stack([plain, crops.right], axis=1), groups)
    return Tta(
        how=spec.averaging,
        crops=len(spec.crops),
        accuracy=crops.scores.accuracy,
        mean_per_class=crops.scores.mean_per_class,
        log_loss=crops.scores.log_loss,
        gain=_difference(gain, groups),
    )


def size_record(count: int, swept: Swept, data: LabelledRows, spec: SweepSpec) -> DataSize:
    """One number of pictures."""
    at = swept.recommendation.depth
    return DataSize(
        n_train=count,
        scores=depth_scores(swept, data, spec),
        recommended_depth=None if at is None else swept.depths[at].rung.depth,
        advice=swept.recommendation.reason,
    )
