"""The shard plan: a pure function of what is committed and of what is missing.

Missing contents are sorted by hash and cut into runs of `shard_rows`. A resumed run rebuilds the
same runs, so an interrupted cache ends byte for byte as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from featcache.store.manifest import Plan

Hashes = npt.NDArray[np.void]

_SMALLEST = 256
_MOST_SHARDS = 512
_LARGEST_BYTES = 64 << 20


def shard_rows(pending: int, row_bytes: int, batch_size: int, asked: int | None = None) -> int:
    """Slots a shard: small enough to lose little, large enough to stay few; whole batches.

    Args:
        pending: rows to be computed.
        row_bytes: bytes of one stored row.
        batch_size: rows a forward pass.
        asked: how many are wanted instead; rounded up to whole batches.
    """
    if asked is not None:
        return -(-asked // batch_size) * batch_size
    wanted = max(_SMALLEST, 1 << (max(pending, 1) // _MOST_SHARDS).bit_length())
    fitting = max(1, min(wanted, _LARGEST_BYTES // max(row_bytes, 1)))
    return max(1, fitting // batch_size) * batch_size


def digest(pending: Hashes) -> str:
    """Hex sha256 of the sorted hashes a plan covers."""
    return hashlib.sha256(pending.tobytes()).hexdigest()


def covers(plan: Plan, pending: Hashes) -> bool:
    """Whether a plan is of these sorted hashes."""
    return (plan.pending, plan.pending_sha256) == (len(pending), digest(pending))


def covered(plan: Plan, candidates: Iterable[Hashes]) -> Hashes | None:
    """The first of some sorted hashes that a plan is of; None if it is of none."""
    return next((pending for pending in candidates if covers(plan, pending)), None)


def runs(plan: Plan, pending: Hashes) -> Iterator[tuple[int, Hashes]]:
    """The plan's shards in order: (number, the hashes of its slots)."""
    for i in range(plan.shard_count):
        yield plan.first + i, pending[i * plan.shard_rows : (i + 1) * plan.shard_rows]


def without(hashes: Hashes, known: Hashes) -> Hashes:
    """Sorted `hashes` that are not among `known`."""
    return hashes[~np.isin(hashes, known)] if len(known) else hashes
