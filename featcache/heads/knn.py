r"""Weighted nearest-neighbour votes, as DINO and DINOv2 evaluate frozen features.

Protocol: Wu et al. 2018 (arXiv 1805.01978, section 3.4), as in facebookresearch/dinov2,
`dinov2/eval/knn.py` (`KnnModule`; k of 10, 20, 100 and 200, T = 0.07). For a row with the k most
similar training rows N, s the cosine of the angle between features and Y (n, K) the labels,

    p = sum_{j in N} w_j y_j / sum_{j in N} w_j,      w_j = exp(s_j / T).

There the weights are a softmax over the largest k, so that votes of a smaller k sum to less than 1;
here each k is divided by its own sum: the same order of classes, and probabilities.

*Same numbers every time.* Products are float64, and neighbours are ordered by one integer each,

    key = round(s 2^26) 2^32 + (2^32 - 1 - position),

so that similarities which float32 could not tell apart are ties, which the earlier row wins: copies
of one picture differ in nothing but the last bits of a product, and these depend on where in a
block a row stands. Keys differ, hence the k largest are the same rows in the same order for every
block size (but where such a bit decides the rounding: about one similarity in ten million).
"""

# torch's types are partial: what its functions return is named where it is used
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from featcache.errors import ProbeError

NEIGHBOURS = (1, 5, 10, 20, 100, 200)
TEMPERATURE = 0.07
COLDEST = 1e-6
"""Of temperatures: below it the weights would see differences that make ties (2^-26)."""

_STEPS, _ROWS = 1 << 26, 1 << 32
"""Of the key: steps of similarity in 1, and rows that have a position."""

_UNSEEN = -(1 << 62)
"""Key of a row that must not be seen, below that of any other."""


@dataclass(frozen=True, eq=False)
class NeighbourProblem:
    """Whose neighbours vote on what.

    Attributes:
        features: (n, D) float16, float32 or float64; may be a memory map larger than memory.
        targets: (n,) int codes in 0..K-1; or (n, K) bool or numbers: several labels, soft rows.
        n_classes: K.
        train: (n,) bool, the rows that vote; None: all. The others have no influence at all.
        groups: (n,) ids: a training row does not see training rows of its own group. Fold numbers
            make it cross-validation. None: each row alone, so that a row does not see itself.
        queries: (n,) bool, the rows that are asked for; None: all.
        neighbours: values of k; above the number of rows seen, all of these vote.
        temperature: T.
        memory: bytes that blocks of rows and of their similarities may take; targets and votes
            come on top.
        device: where the products are made: "cpu" or "cuda" (float64, which "mps" does not have).
    """

    features: np.ndarray
    targets: np.ndarray
    n_classes: int
    train: np.ndarray | None = None
    groups: np.ndarray | None = None
    queries: np.ndarray | None = None
    neighbours: tuple[int, ...] = NEIGHBOURS
    temperature: float = TEMPERATURE
    memory: int = 2 << 30
    device: str = "cpu"

    @property
    def voters(self) -> np.ndarray:
        """(m,) positions of the training rows."""
        return _positions(self.train, len(self.features))

    @property
    def asked(self) -> np.ndarray:
        """(q,) positions of the rows that are asked for."""
        return _positions(self.queries, len(self.features))

    @property
    def block(self) -> int:
        """Rows r of queries, and of voters, at a time: 48 r^2 + (48 D + 64 max k) r <= memory.

        Bytes of each pair's similarity and key as they are made and joined, of two blocks of rows
        (as read, in float64, normalised), and of the neighbours kept.
        """
        row = 48 * self.features.shape[1] + 64 * max(self.neighbours)
        return max(1, int((np.sqrt(row**2 + 192.0 * self.memory) - row) / 96))


def knn_votes(problem: NeighbourProblem) -> np.ndarray:
    """The neighbours' votes on every row asked for.

    A row of zeros has the similarity 0 to every other. Rows outside `train` see all training rows.

    Returns:
        (len(neighbours), q, K) float64. Rows sum to 1 for codes; with several labels each column
        is the weighted share of neighbours that have the label.

    Raises:
        ProbeError: the arrays disagree, features are not finite, or a row sees no training row.
    """
    _check(problem)
    asked = problem.asked
    votes = np.empty((len(problem.neighbours), len(asked), problem.n_classes))
    targets = torch.from_numpy(problem.targets[problem.voters]).to(problem.device)
    targets = targets.long() if targets.ndim == 1 else targets.double()
    for start in range(0, len(asked), problem.block):
        part = slice(start, start + problem.block)
        positions, similarities = _nearest(problem, asked[part])
        votes[:, part] = _vote(problem, targets, positions, similarities)
    return votes


def _nearest(problem: NeighbourProblem, asked: np.ndarray) -> tuple[Tensor, Tensor]:
    """Of a block of rows: positions of the nearest among the voters and similarities, (r, k).

    In the order of their keys; a similarity of -inf is of a row that is not seen.
    """
    Q, own = _unit_rows(problem, asked), _own_groups(problem)
    voters = problem.voters
    kept = Q.new_empty(len(asked), 0)
    keys, similarities = kept.long(), kept
    for start in range(0, len(voters), problem.block):
        part = voters[start : start + problem.block]
        S = Q @ _unit_rows(problem, part).T  # (r, r)
        seen = torch.from_numpy(own[asked][:, np.newaxis] != own[part]).to(S.device)
        keys = torch.cat([keys, _keys(S, start).where(seen, _UNSEEN)], dim=1)
        similarities = torch.cat([similarities, S.where(seen, -torch.inf)], dim=1)
        keys, places = keys.topk(min(max(problem.neighbours), keys.shape[1]), dim=1)
        similarities = similarities.gather(1, places)
    positions = _ROWS - 1 - keys.remainder(_ROWS)
    return positions.clamp(max=len(voters) - 1), similarities  # unseen: any position, no weight


def _keys(S: Tensor, start: int) -> Tensor:
    """Keys of similarities (r, t) to the voters at positions start, start + 1, ..."""
    positions = torch.arange(start, start + S.shape[1], device=S.device)
    return (S * _STEPS).round_().long().mul_(_ROWS).add_(_ROWS - 1 - positions)


def _vote(
    problem: NeighbourProblem, targets: Tensor, positions: Tensor, similarities: Tensor
) -> np.ndarray:
    """(len(neighbours), r, K): the weighted means of the neighbours' labels."""
    highest = similarities.max(dim=1, keepdim=True).values
    weights = ((similarities - highest) / problem.temperature).exp()  # (r, k), -inf gives 0
    votes = weights.new_zeros(len(weights), problem.n_classes)
    found: dict[int, np.ndarray] = {}
    start = 0
    for k in sorted(set(problem.neighbours)):
        added = slice(start, k)
        _add(votes, targets, positions[:, added], weights[:, added])
        found[k] = (votes / weights[:, :k].sum(dim=1, keepdim=True)).cpu().numpy()
        start = k
    return np.stack([found[k] for k in problem.neighbours])


def _add(votes: Tensor, targets: Tensor, positions: Tensor, weights: Tensor) -> None:
    """Add the labels of some neighbours (r, j), weighted, to the votes (r, K)."""
    if targets.ndim == 1:
        votes.scatter_add_(1, targets[positions], weights)
    elif positions.numel():
        votes += torch.nn.functional.embedding_bag(
            positions, targets, mode="sum", per_sample_weights=weights
        )


def _unit_rows(problem: NeighbourProblem, positions: np.ndarray) -> Tensor:
    """Features (p, D) float64 on the device, of norm 1 or 0."""
    read = torch.from_numpy(np.ascontiguousarray(problem.features[positions]))
    X = read.to(problem.device).double()
    norms = torch.linalg.vector_norm(X, dim=1, keepdim=True)
    if not bool(norms.isfinite().all()):
        raise ProbeError(
            "knn: features are not finite; check the pictures and the backbone's weights and "
            "precision (`featcache verify`)"
        )
    return X / norms.where(norms > 0, 1.0)


def _own_groups(problem: NeighbourProblem) -> np.ndarray:
    """(n,) number of the group that a row must not see; -1 outside `train`: it may see all."""
    voters = problem.voters
    groups = voters if problem.groups is None else problem.groups[voters]
    own = np.full(len(problem.features), -1)
    own[voters] = np.unique(groups, return_inverse=True)[1]
    return own


def _positions(mask: np.ndarray | None, n: int) -> np.ndarray:
    return np.arange(n) if mask is None else np.flatnonzero(mask)


def _check(problem: NeighbourProblem) -> None:
    """Raise where the arrays disagree; each line says which and what was expected."""
    X, Y, K, n = problem.features, problem.targets, problem.n_classes, len(problem.features)
    shapes = {"train": problem.train, "queries": problem.queries}
    problems = [
        (X.ndim != 2, f"features of shape {X.shape}; give (n, D)"),
        (
            Y.shape not in ((n,), (n, K)),
            f"targets of shape {Y.shape} for {n} rows and {K} classes; give (n,) or (n, {K})",
        ),
        (Y.ndim == 1 and Y.dtype.kind != "i", f"codes of dtype {Y.dtype}; give int"),
        *(
            (
                mask is not None and (mask.shape != (n,) or mask.dtype != np.bool_),
                f"{name} for {n} rows must be ({n},) bool",
            )
            for name, mask in shapes.items()
        ),
        (
            problem.groups is not None and problem.groups.shape != (n,),
            f"groups for {n} rows must be ({n},)",
        ),
        (
            not problem.neighbours or min(problem.neighbours) < 1,
            f"neighbours {problem.neighbours}; give values of k from 1",
        ),
        (
            not problem.temperature >= COLDEST,
            f"temperature {problem.temperature}; give {COLDEST} or more",
        ),
        (problem.memory <= 0, f"memory of {problem.memory} bytes; give a positive number"),
    ]
    for wrong, message in problems:
        if wrong:
            raise ProbeError(f"knn: {message}")
    _check_rows(problem)


def _check_rows(problem: NeighbourProblem) -> None:
    """Raise where the training rows cannot vote, or a row asked for sees none of them."""
    voters, asked = problem.voters, problem.asked
    labels = problem.targets[voters]
    if (
        labels.ndim == 1
        and len(labels)
        and not 0 <= labels.min() <= labels.max() < problem.n_classes
    ):
        raise ProbeError(f"knn: codes of training rows outside 0..{problem.n_classes - 1}")
    if not np.isfinite(labels).all():
        raise ProbeError("knn: targets of training rows are not finite; give numbers")
    if not len(voters):
        raise ProbeError("knn: no training row; mark some in `train`")
    own = _own_groups(problem)
    if own.max() == 0 and bool((own[asked] == 0).any()):
        raise ProbeError(
            f"knn: the {len(voters)} training rows are one group, and its rows see none of them; "
            "add rows of another group"
        )
