"""Few-shot support sets that another machine, order of rows or set of classes does not change."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from featcache.errors import ProbeError
from featcache.evaluation.splits import join_groups


def support_rows(
    targets: np.ndarray,
    groups: np.ndarray,
    keys: Sequence[bytes] | Sequence[str] | np.ndarray,
    eligible: np.ndarray,
    shots: int,
    seed: int,
) -> np.ndarray:
    """Draw `shots` rows of each class, by content and seed alone.

    The eligible rows of a class stand in one order and the first `shots` are taken, so that fewer
    shots are a subset of more at the same seed, and other classes and rows that are not eligible
    change nothing. The order: sha256 of the seed and the key; but one row of each group before the
    second of any, and so on; and all different pictures before the second copy of any. Rows with
    one key are copies of one picture, whichever groups they are in (their groups count as one);
    the first copy stands for all. A class with fewer eligible rows gives them all:
    `np.bincount(targets[support], minlength=K)` says how many each gave.

    Args:
        targets: (n,) int codes.
        groups: (n,) int ids; -1 where a row has no group.
        keys: n identities of content: bytes, text (as UTF-8), or (n, 32) uint8 hashes. An array of
            numpy's "S" drops zero bytes at the end and may so order otherwise than bytes.
        eligible: (n,) bool, rows that may be drawn.
        shots: rows of each class, at least 1.
        seed: of the order.

    Returns:
        (n,) bool.

    Raises:
        ProbeError: several labels a row, no shot, or the arrays disagree.
    """
    _check(targets, groups, keys, eligible, shots)
    support = np.zeros(len(targets), bool)
    for code in np.unique(targets[eligible]):
        rows = np.flatnonzero(eligible & (targets == code))
        digests = [_digest(keys[row], seed) for row in rows.tolist()]
        support[rows[_order(digests, groups[rows])[:shots]]] = True
    return support


def _digest(key: bytes | str | np.ndarray, seed: int) -> bytes:
    content = key.encode() if isinstance(key, str) else bytes(key)
    return hashlib.sha256(f"{seed}:".encode() + content).digest()


def _order(digests: list[bytes], groups: np.ndarray) -> list[int]:
    """Positions by number of copy, then by number within the group, then by digest."""
    hashes = np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1)
    joined = join_groups(groups, hashes).tolist()
    copies, members = Counter[bytes](), Counter[tuple[int, int]]()
    ranked = []
    for row in sorted(range(len(digests)), key=digests.__getitem__):
        digest = digests[row]
        place = joined[row], copies[digest]
        ranked.append((copies[digest], members[place], digest, row))
        copies[digest] += 1
        members[place] += 1
    return [row for *_, row in sorted(ranked)]


def _check(
    targets: np.ndarray,
    groups: np.ndarray,
    keys: Sequence[bytes] | Sequence[str] | np.ndarray,
    eligible: np.ndarray,
    shots: int,
) -> None:
    if shots < 1:
        raise ProbeError(f"{shots} shots; give at least 1")
    if targets.ndim != 1:
        raise ProbeError("these rows have several labels; shots are counted of one label a row")
    lengths = [len(targets), len(groups), len(keys), len(eligible)]
    if len(set(lengths)) > 1:
        raise ProbeError(
            "targets, groups, keys and eligible are of "
            f"{', '.join(map(str, lengths))} rows; give one of each a row"
        )
