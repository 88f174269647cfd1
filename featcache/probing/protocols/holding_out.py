"""Training rows that are held out where the data has no val split: whole groups, by seed."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch

from featcache.errors import ProbeError
from featcache.evaluation.shots import support_rows
from featcache.probing.roles import sharing
from featcache.probing.rows import Bools, LabelledRows

Groups = npt.NDArray[np.int64]


def groups_by_content(data: LabelledRows, rows: Bools, seed: int) -> Groups:
    """(g,) groups of some rows in an order that content and seed alone decide.

    A group stands where the least of its digests does: sha256 of the seed and a picture's hash.
    """
    positions = np.flatnonzero(rows)
    prefix = f"{seed}:".encode()
    digests = [hashlib.sha256(prefix + data.hashes[row].tobytes()).digest() for row in positions]
    order = sorted(range(len(positions)), key=digests.__getitem__)
    return _by_appearance(data.groups[positions[order]])


def groups_by_torch(data: LabelledRows, rows: Bools, seed: int) -> Groups:
    """(g,) groups of some rows in the order of `torch.manual_seed(seed); torch.randperm(g)`.

    Where every row is a group of its own that is the permutation of the rows.
    """
    groups = _by_appearance(data.groups[rows])
    generator = torch.Generator().manual_seed(seed)
    return groups[torch.randperm(len(groups), generator=generator).numpy()]


def hold_out(data: LabelledRows, rows: Bools, order: Groups, count: int) -> Bools:
    """(n,) bool: the first groups in an order, until they hold `count` of the rows; never all.

    Raises:
        ProbeError: the rows are of one group.
    """
    if len(order) < 2:
        raise ProbeError(
            f"{int(rows.sum())} training pictures are one group, so that none can be held out to "
            "choose settings; add pictures, or give the data a val split"
        )
    known, sizes = np.unique(data.groups[rows], return_counts=True)
    held = np.cumsum(sizes[np.searchsorted(known, order)])
    taken = min(int(np.searchsorted(held, count)) + 1, len(order) - 1)
    return rows & np.isin(data.groups, order[:taken])


def hold_out_by_class(data: LabelledRows, rows: Bools, share: float, seed: int) -> Bools:
    """(n,) bool: a share of every class, by content; a class of one group only trains.

    Raises:
        ProbeError: every class is of one group.
    """
    held = np.zeros(len(data), np.bool_)
    for code in np.unique(data.targets[rows]):
        own = rows & (data.targets == code)
        free = own & ~held  # groups of several classes may be held out already
        missing = max(1, round(share * int(own.sum()))) - int((own & held).sum())
        order = groups_by_content(data, free, seed)
        if missing > 0 and len(order) > 1:
            held |= rows & sharing(data.groups, hold_out(data, free, order, missing))
    if not held.any():
        raise ProbeError(
            "every class has one training picture or group, so that none can be held out to choose "
            "settings; add pictures, or give the data a val split"
        )
    return held


def draw(data: LabelledRows, rows: Bools, count: int, seed: int) -> Bools:
    """(n,) bool: `count` of some rows, by content and seed alone, of as many groups as can be."""
    one_class = np.zeros(len(data), np.int64)
    return support_rows(one_class, data.groups, data.hashes, rows, count, seed)


def _by_appearance(groups: Groups) -> Groups:
    return np.array(list(dict.fromkeys(groups.tolist())), np.int64)
