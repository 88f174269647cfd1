"""DINOv2's nearest neighbours."""

from __future__ import annotations

import numpy as np

from featcache.errors import ProbeError
from featcache.heads.knn import NeighbourProblem, knn_votes
from featcache.probing.protocols.asked import Asked
from featcache.probing.protocols.searching import path_score
from featcache.probing.rows import Probabilities
from featcache.probing.spec import Probed

NEIGHBOURS = (10, 20, 100, 200)
NAMED = 20
TEMPERATURE = 0.07


def dinov2_knn(asked: Asked) -> Probed:
    """DINOv2's weighted kNN (Oquab et al. 2023, arXiv 2304.07193, section 7.1).

    As facebookresearch/dinov2, `dinov2/eval/knn.py`: features of norm 1, the k nearest rows of
    train by cosine, weights exp(cosine / 0.07), k of 10, 20, 100 and 200, all of them reported.

    Their code chooses none; its help says "20 is usually working the best". So 20 is the estimate,
    which no test label has chosen; the path has all k, on the test split. A val split takes no
    part. Ours: votes of each k are divided by their sum (`heads.knn`); a k above the number of
    training pictures, where their code stops, is left out.
    """
    data, roles = asked.data, asked.roles
    known = _known(asked, int(roles.train.sum()))
    asked.solving.expected = 1
    votes = _votes(asked, known)
    asked.count()
    targets = data.targets[roles.judged]
    path = tuple(path_score(v, targets, neighbours=k) for k, v in zip(known, votes, strict=True))
    best = max(at for at, k in enumerate(known) if k <= NAMED)
    probabilities = np.full((len(data), len(data.classes)), np.nan)
    probabilities[roles.judged] = votes[best]
    return asked.probed(
        None,
        path,
        best,
        trained=roles.train,
        probabilities=probabilities,
        method=f"k = {known[best]} in advance, all k measured on test, train votes",
    )


def _known(asked: Asked, voters: int) -> tuple[int, ...]:
    """The numbers of neighbours that there are."""
    known = tuple(k for k in NEIGHBOURS if k <= voters)
    if not known:
        raise ProbeError(
            f"{asked.cite} counts {NEIGHBOURS[0]} neighbours or more, and {voters} pictures are in "
            "train; add some, or give --protocol default"
        )
    if len(known) < len(NEIGHBOURS):
        left_out = ", ".join(map(str, NEIGHBOURS[len(known) :]))
        asked.warnings.append(f"k of {left_out} left out: {voters} pictures are in train")
    if asked.roles.tuning.any():
        asked.warnings.append("the val split takes no part in this protocol")
    return known


def _votes(asked: Asked, known: tuple[int, ...]) -> Probabilities:
    """(len(known), m, K) of the judged rows."""
    data, spec, roles = asked.data, asked.spec, asked.roles
    return knn_votes(
        NeighbourProblem(
            data.features,
            data.targets,
            len(data.classes),
            train=roles.train,
            queries=roles.judged,
            neighbours=known,
            temperature=TEMPERATURE,
            memory=spec.memory,
            device=spec.device,
        )
    )
