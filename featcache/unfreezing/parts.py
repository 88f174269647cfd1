"""What is held out: one split for all depths, and within what is left, the pictures that stop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.splits import stratified_folds
from featcache.probing import LabelledRows
from featcache.probing.roles import assign_roles
from featcache.unfreezing.spec import SweepSpec

Bools = npt.NDArray[np.bool_]

_TENTHS = 10
"""Folds that a share is made of, at most."""


@dataclass(frozen=True, eq=False)
class Part:
    """One split; masks (n,) bool.

    Attributes:
        train: what depth 0 is fitted on: `fit` and `stop` together.
        fit: what trains. stop: what chooses rate and epoch, and trains nothing but depth 0.
        judged: what is held out of all of it.
    """

    fit: Bools
    stop: Bools
    judged: Bools

    @property
    def train(self) -> Bools:
        """All but what is held out."""
        return self.fit | self.stop


@dataclass(frozen=True, eq=False)
class Split:
    """All parts, and what is said of them.

    Attributes:
        parts: no picture is held out in two of them.
        method: how, in words. warnings: pictures that were left out.
    """

    parts: tuple[Part, ...]
    method: str
    warnings: tuple[str, ...]


def split_of(data: LabelledRows, spec: SweepSpec) -> Split:
    """The data's own split, a stratified and grouped hold-out, or folds.

    Raises:
        ProbeError: too few pictures.
    """
    roles, seed = assign_roles(data), spec.probe.seed
    if roles.tuning.any():
        parts = [Part(roles.train, roles.tuning, roles.judged)]
        return Split(tuple(parts), "test split; rate and epoch on the val split", roles.warnings)
    stopped = f"{spec.stopping:.0%} of the training pictures choose rate and epoch"
    if roles.judged.any():
        part = _with_stop(data, roles.train, roles.judged, spec)
        return Split((part,), f"{roles.measured} split; {stopped}", roles.warnings)
    if spec.folds is None:
        judged = share_of(data, roles.train, spec.held_out, seed)
        part = _with_stop(data, roles.train & ~judged, judged, spec)
        return Split((part,), f"hold-out of {spec.held_out:.0%}; {stopped}", roles.warnings)
    folds = stratified_folds(data.targets[roles.train], data.groups[roles.train], spec.folds, seed)
    held_out = np.full(len(data), -1)
    held_out[roles.train] = folds.held_out
    found = [
        _with_stop(data, roles.train & (held_out != fold), held_out == fold, spec) for fold in folds
    ]
    method = f"{folds.count}-fold cross-validation; {stopped}"
    return Split(tuple(found), method, roles.warnings)


def whole_of(data: LabelledRows, spec: SweepSpec) -> Part:
    """Everything that may train, with nothing held out: what a classifier to be used is made of."""
    roles, none = assign_roles(data), np.zeros(len(data), np.bool_)
    if roles.tuning.any():
        return Part(roles.train, roles.tuning, none)
    return _with_stop(data, roles.train, none, spec)


def share_of(data: LabelledRows, rows: Bools, share: float, seed: int) -> Bools:
    """(n,) bool: about a share of some rows, stratified, groups kept whole.

    Raises:
        ProbeError: too few for any.
    """
    folds = stratified_folds(data.targets[rows], data.groups[rows], _folds(share), seed)
    taken = max(1, round(share * folds.count))
    if folds.count < 2 or taken >= folds.count:
        raise ProbeError(
            "too few pictures to hold some out of every class; give every class at least 4, or a "
            "test split"
        )
    chosen = np.zeros(len(data), np.bool_)
    chosen[rows] = (folds.held_out >= 0) & (folds.held_out < taken)
    return chosen


def _folds(share: float) -> int:
    """Of which a whole number is about the share."""
    return min(range(2, _TENTHS + 1), key=lambda k: (abs(round(share * k) / k - share), k))


def _with_stop(data: LabelledRows, train: Bools, judged: Bools, spec: SweepSpec) -> Part:
    stop = share_of(data, train, spec.stopping, spec.probe.seed)
    return Part(train & ~stop, stop, judged)


def restricted(split: Split, data: LabelledRows, count: int, seed: int) -> Split:
    """The same split, trained on so many of its pictures; smaller counts are parts of larger ones.

    Classes keep their shares, as well as whole pictures allow.

    Raises:
        ProbeError: there are not that many.
    """
    parts: list[Part] = []
    for part in split.parts:
        train = np.flatnonzero(part.train)
        if not len(data.classes) * 2 <= count <= len(train):
            raise ProbeError(
                f"{count} pictures: give from {2 * len(data.classes)} (two a class) to "
                f"{len(train)}, which is all that may train"
            )
        chosen = np.zeros(len(data), np.bool_)
        chosen[train[_in_turn(data, train, seed)[:count]]] = True
        parts.append(Part(part.fit & chosen, part.stop & chosen, part.judged))
    return Split(tuple(parts), split.method, split.warnings)


def _in_turn(data: LabelledRows, rows: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.intp]:
    """An order of rows in which every class comes up as often as its share says."""
    rng = np.random.default_rng(seed)
    targets = data.targets[rows]
    codes = targets if targets.ndim == 1 else np.unique(targets, axis=0, return_inverse=True)[1]
    place = np.empty(len(rows))
    for code in np.unique(codes):
        own = np.flatnonzero(codes == code)
        place[rng.permutation(own)] = (np.arange(len(own)) + rng.random()) / len(own)
    return np.argsort(place, kind="stable")
