"""From what a sweep found to the records of a result."""

from __future__ import annotations

import numpy as np

from featcache.evaluation.recommendation import against_first
from featcache.probing import LabelledRows
from featcache.results import DataSize, DepthScore, Difference
from featcache.unfreezing import DepthFound, Swept


def depth_scores(swept: Swept, data: LabelledRows) -> tuple[DepthScore, ...]:
    """A row a depth, each beside depth 0."""
    right = np.stack([depth.right for depth in swept.depths], axis=1)  # (S, D, n)
    pairs = against_first(right, data.groups[swept.judged])
    differences = [
        Difference(pair.difference, pair.ci95, pair.p_value, pair.method, len(swept.judged))
        for pair in pairs
    ]
    return tuple(
        _score(depth, data, against, float(p))
        for depth, against, p in zip(
            swept.depths,
            (None, *differences),
            swept.recommendation.better_than_first,
            strict=True,
        )
    )


def scratch_score(swept: Swept, data: LabelledRows) -> DepthScore | None:
    """The network from random weights, beside depth 0; None where it was not asked for."""
    if swept.scratch is None:
        return None
    right = np.stack([swept.depths[0].right, swept.scratch.right], axis=1)  # (S, 2, n)
    (pair,) = against_first(right, data.groups[swept.judged])
    against = Difference(pair.difference, pair.ci95, pair.p_value, pair.method, len(swept.judged))
    return _score(swept.scratch, data, against, None)


def _score(
    found: DepthFound, data: LabelledRows, against: Difference | None, adjusted: float | None
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
    )


def size_record(count: int, swept: Swept, data: LabelledRows) -> DataSize:
    """One number of pictures."""
    at = swept.recommendation.depth
    return DataSize(
        n_train=count,
        scores=depth_scores(swept, data),
        recommended_depth=None if at is None else swept.depths[at].rung.depth,
        advice=swept.recommendation.reason,
    )
