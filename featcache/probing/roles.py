"""Which rows train, which choose C, which are measured on: the data's splits, kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.splits import Folds
from featcache.probing.rows import Bools, LabelledRows
from featcache.store.index import SPLITS

_VAL, _TEST = SPLITS.index("val"), SPLITS.index("test")
_NAMED = 5


@dataclass(frozen=True, eq=False)
class Roles:
    """Disjoint sets of rows; none shares a group or a content with another.

    Attributes:
        train: (n,) bool, rows that heads are fitted on.
        tuning: (n,) bool, rows that choose C and train the refit; none: C by cross-validation.
        judged: (n,) bool, rows the estimate is measured on; none: nested cross-validation.
        measured: name of the split that is judged, "" without one.
        warnings: what was left out.
    """

    train: Bools
    tuning: Bools
    judged: Bools
    measured: str
    warnings: tuple[str, ...]


def assign_roles(data: LabelledRows) -> Roles:
    """Read the splits of the rows.

    Raises:
        ProbeError: nothing is left to train on, or to choose C on.
    """
    val, test = data.splits == _VAL, data.splits == _TEST
    train = ~val & ~test
    judged, measured = (test, "test") if test.any() else (val, "val" if val.any() else "")
    tuning = val if test.any() else np.zeros(len(data), np.bool_)
    apart = ~sharing(data.groups, judged)
    kept_tuning = tuning & apart
    kept_train = train & apart & ~sharing(data.groups, kept_tuning)
    left_out = int((train & ~kept_train).sum() + (tuning & ~kept_tuning).sum())
    for name, before, now in (("train", train, kept_train), ("val", tuning, kept_tuning)):
        _refuse_empty(name, before, now)
    warnings = (
        f"{left_out} pictures are left out: they share their bytes or their group with pictures "
        f"of another split ({measured} is kept whole)",
    )
    return Roles(kept_train, kept_tuning, judged, measured, warnings if left_out else ())


def _refuse_empty(name: str, before: Bools, now: Bools) -> None:
    if now.any() or (name == "val" and not before.any()):
        return
    if before.any():
        raise ProbeError(
            f"every labelled picture of the {name} split shares its bytes or its group with one of "
            "another split, so none is left; split by group, or correct the column 'group'"
        )
    raise ProbeError(
        "no labelled picture is in the train split, so there is nothing to train on; put some "
        "into train"
    )


def sharing(groups: npt.NDArray[np.int64], rows: Bools) -> Bools:
    """(n,) bool: whose group is also that of one of `rows`."""
    return np.isin(groups, groups[rows])


def class_warnings(
    data: LabelledRows, train: Bools, folds: Folds | None, asked: int
) -> tuple[str, ...]:
    """What a person should know of classes that are too small, by name.

    Args:
        data: the labelled rows.
        train: (n,) bool, rows that the final head is fitted on.
        folds: of the cross-validation over all training rows, None where there was none.
        asked: folds that were asked for.
    """
    pictures, groups = _sizes(data, train)
    warnings: list[str] = []
    if absent := _named(data, pictures == 0):
        warnings.append(f"no training picture of {absent}: it can never be predicted")
    if folds is None:
        return tuple(warnings)
    only_train = np.isin(np.arange(len(pictures)), folds.only_train)
    if single := _named(data, only_train & (pictures == 1)):
        warnings.append(f"one picture only of {single}: it trains and is never held out")
    if lone := _named(data, only_train & (pictures > 1)):
        warnings.append(
            f"all pictures of {lone} belong together (one group, or the same bytes), or to a group "
            "that only trains: they train and are never held out"
        )
    if data.targets.ndim == 2 and (once := _named(data, groups == 1)):
        warnings.append(f"{once}: on one picture or group only, so never both trained and held out")
    if folds.count < asked:
        smallest = _named(data, ~only_train & (groups == folds.count))
        why = f": {smallest} has no more pictures or groups" if smallest else ""
        warnings.append(f"{folds.count} folds instead of {asked}{why}")
    return tuple(warnings)


def short_classes(data: LabelledRows, rows: Bools, most: int, kind: str = "") -> tuple[str, ...]:
    """Name the classes that have fewer of some rows than support sets ask for, in one warning.

    Args:
        data: the labelled rows, of one label each.
        rows: (n,) bool, those that support sets are drawn from.
        most: pictures a class that are asked for.
        kind: what these rows are, in words: "train".
    """
    counts = np.bincount(data.targets[rows], minlength=len(data.classes))
    short = np.flatnonzero(counts < most).tolist()
    if not short:
        return ()
    shown = ", ".join(f"{data.classes[k]!r} ({counts[k]})" for k in short[:_NAMED])
    more = f" and {len(short) - _NAMED} more" if len(short) > _NAMED else ""
    of = f" of {kind}" if kind else ""
    return (f"fewer than {most} pictures{of} to draw from: {shown}{more}; they give all they have",)


def _sizes(data: LabelledRows, train: Bools) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(K,) how many training rows, and how many groups of them, each class has."""
    targets, groups = data.targets[train], data.groups[train]
    members = [
        groups[targets[:, k] if targets.ndim == 2 else targets == k]
        for k in range(len(data.classes))
    ]
    return np.array([len(m) for m in members]), np.array([len(np.unique(m)) for m in members])


def _named(data: LabelledRows, which: Bools) -> str:
    names = [data.classes[k] for k in np.flatnonzero(which).tolist()]
    more = len(names) - _NAMED
    return ", ".join(map(repr, names[:_NAMED])) + (f" and {more} more" if more > 0 else "")
