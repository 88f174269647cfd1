"""Test-time augmentation: held-out pictures predicted from random crops beside the plain view.

It adds to a probe and changes nothing of it: crops train nothing and choose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.metrics import Scores, score
from featcache.heads.averaging import Averaging, averaged
from featcache.heads.linear import LinearHead
from featcache.probing.roles import assign_roles
from featcache.probing.rows import Bools, LabelledRows, Probabilities
from featcache.probing.solving import Solving, split_folds
from featcache.probing.spec import Probed, ProbeSpec
from featcache.probing.views import CroppedRows

_ROWS = 16384
"""Predicted at a time."""


@dataclass(frozen=True, eq=False)
class TtaScore:
    """What crops add on the rows of an estimate.

    Attributes:
        how: the crops' and the plain view's probabilities were averaged.
        crops: how many beside the plain view.
        scores: of the averages, on the judged rows.
        probabilities: (n, K), NaN where not judged.
    """

    how: Averaging
    crops: int
    scores: Scores
    probabilities: Probabilities


def score_crops(
    data: LabelledRows, spec: ProbeSpec, probed: Probed, crops: CroppedRows, how: Averaging
) -> TtaScore:
    """Average what heads say of crops with what they said of the plain view.

    What was said of the plain view is the probe's own. A nested cross-validation keeps no head of
    its outer folds: they are fitted again, to the same tolerance, at the C that each had chosen.

    Args:
        data: the rows of the probe.
        spec: what it was asked.
        probed: what it found.
        crops: of the same pictures; see `cropped_rows`.
        how: "mean" or "max".

    Raises:
        ProbeError: there are no probabilities of a linear head to average.
    """
    if probed.head is None:
        raise ProbeError("only softmax and logistic heads are averaged over crops; leave out --tta")
    found = np.full_like(probed.probabilities, np.nan)
    for head, rows in _heads(data, spec, probed):
        places = np.flatnonzero(rows)
        found[places] = with_crops(head, data, crops, places, probed.probabilities[places], how)
    judged = probed.judged
    scores = score(found[judged], data.targets[judged])
    return TtaScore(how, len(crops.parts), scores, found)


def with_crops(
    head: LinearHead,
    data: LabelledRows,
    crops: CroppedRows,
    places: npt.NDArray[np.int64],
    plain: Probabilities,
    how: Averaging,
) -> Probabilities:
    """Averages of what a head says of some pictures' crops with what it said of the plain view.

    Args:
        head: on the features of `data`.
        data: all n pictures.
        crops: of them.
        places: (m,) which pictures, ascending.
        plain: (m, K) what was said of these.
        how: "mean" or "max".

    Returns:
        (m, K).
    """
    said = [plain, *_of_crops(head, data, crops, places)]
    return averaged(np.stack(said), how, multi_label=data.targets.ndim == 2)


def _heads(
    data: LabelledRows, spec: ProbeSpec, probed: Probed
) -> Iterator[tuple[LinearHead, Bools]]:
    """Heads, and the judged rows that each predicts."""
    if not probed.chosen and probed.head is not None:
        yield probed.head, probed.judged
    if not probed.chosen:
        return
    train, solving = assign_roles(data).train, Solving(data, spec, None)
    outer = split_folds(data, train, spec.folds, spec.seed)
    for fold, C in zip(outer, probed.chosen, strict=True):  # noqa: N806 - the field's name
        yield solving.fit(train & outer.train(fold), C).head, outer.held_out == fold


def _of_crops(
    head: LinearHead, data: LabelledRows, crops: CroppedRows, places: npt.NDArray[np.int64]
) -> Iterator[Probabilities]:
    """(m, K) of each crop of some pictures; a picture without it is shown plain."""
    for rows, owners in crops.parts:
        given = _probabilities(head, data.features, places)
        there = np.isin(owners, places)
        given[np.searchsorted(places, owners[there])] = _probabilities(
            head, rows, np.flatnonzero(there)
        )
        yield given


def _probabilities(head: LinearHead, features: Any, places: npt.NDArray[np.int64]) -> Probabilities:
    """(m, K), read block by block."""
    blocks = (places[start : start + _ROWS] for start in range(0, len(places), _ROWS))
    found = [head.probabilities(features[block]) for block in blocks]
    return np.concatenate([np.empty((0, len(head.bias))), *found])
