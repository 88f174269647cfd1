"""The rows of a kept result: what they were given, what was predicted, where they lie now."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.api.kept_results import KeptResult
from featcache.evaluation.metrics import correct, losses
from featcache.report.pictures import Wanted
from featcache.store.cache import Cache
from featcache.store.index import SPLITS


@dataclass(frozen=True, eq=False)
class ResultRows:
    """The n labelled rows that were probed.

    Attributes:
        classes: K names.
        targets: (n,) int codes, or (n, K) bool for several labels.
        hashes: (n, 32) uint8.
        names: n paths within the source; None of a picture that the cache no longer names.
        splits: n names of splits, "" for none or unknown.
        judged: (n,) bool, rows with held-out probabilities that the estimate was measured on.
        probabilities: (n, K) float64, of judged rows.
    """

    classes: tuple[str, ...]
    targets: npt.NDArray[Any]
    hashes: npt.NDArray[np.uint8]
    names: tuple[str | None, ...]
    splits: tuple[str, ...]
    judged: npt.NDArray[np.bool_]
    probabilities: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def several(self) -> bool:
        """Whether pictures may have several labels."""
        return self.targets.ndim == 2

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """(n,) rows that are judged and right."""
        found = np.zeros(len(self), np.bool_)
        if self.judged.any():
            given, targets = self.probabilities[self.judged], self.targets[self.judged]
            found[self.judged] = correct(given, targets)
        return found

    @cached_property
    def mistakes(self) -> npt.NDArray[np.intp]:
        """Rows that are judged and wrong, the surest first (several labels: the largest loss)."""
        rows = np.flatnonzero(self.judged & ~self.right)
        given, targets = self.probabilities[rows], self.targets[rows]
        if not len(rows):
            return rows
        sure = losses(given, targets) if self.several else given.max(axis=1)
        return rows[np.argsort(-sure, kind="stable")]

    @cached_property
    def predicted(self) -> npt.NDArray[np.intp]:
        """(n,) codes of the likeliest classes, -1 of rows that are not judged."""
        return np.where(self.judged, self.probabilities.argmax(axis=1), -1)

    def given_to(self, row: int) -> tuple[str, ...]:
        """The labels of a row."""
        if self.several:
            return tuple(self.classes[k] for k in np.flatnonzero(self.targets[row]).tolist())
        return (self.classes[int(self.targets[row])],)

    def predicted_of(self, row: int) -> tuple[str, ...]:
        """The labels predicted of a judged row: the likeliest one, or those above a half."""
        if self.several:
            above = np.flatnonzero(self.probabilities[row] > 0.5).tolist()
            return tuple(self.classes[k] for k in above)
        return (self.classes[int(self.predicted[row])],)

    def name(self, row: int) -> str:
        """What to call a row's picture."""
        known = self.names[row]
        return self.hashes[row, :6].tobytes().hex() + "…" if known is None else known

    def picture(self, row: int) -> Wanted:
        """What names a row's picture in the source."""
        return self.names[row], self.hashes[row].tobytes()

    def twins(self) -> list[list[int]]:
        """Rows of the same bytes, where there are several."""
        same: defaultdict[bytes, list[int]] = defaultdict(list)
        for row, content in enumerate(self.hashes):
            same[content.tobytes()].append(row)
        return [rows for rows in same.values() if len(rows) > 1]


def rows_of(kept: KeptResult) -> ResultRows:
    """The rows of a result, found again in the cache as it is now by their contents."""
    rows, classes = kept.rows, kept.result.classes
    several = rows["targets"].ndim == 2
    targets = rows["targets"].astype(np.bool_ if several else np.int64)
    hashes = np.array(rows["hashes"])
    given = rows.get("probabilities")
    if given is None:  # of support sets
        given = np.broadcast_to(np.nan, (len(hashes), len(classes)))
    judged = np.array(rows.get("judged", np.zeros(len(hashes))), np.bool_)
    places = _places(kept.cache, np.array(rows["row"]), hashes)
    return ResultRows(
        classes=classes,
        targets=targets,
        hashes=hashes,
        names=tuple(None if at < 0 else kept.cache.index.paths[at] for at in places),
        splits=tuple(_split(kept.cache, at) for at in places),
        judged=judged & ~np.isnan(given).any(axis=1),
        probabilities=given,
    )


def _places(cache: Cache, then: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint8]) -> list[int]:
    """Rows of the index now: where they were, else any of the same content, else -1."""
    now = cache.index.hashes
    there = (then >= 0) & (then < len(now))
    there[there] = (now[then[there]] == hashes[there]).all(axis=1)
    if there.all():
        return then.tolist()
    first = {content.tobytes(): row for row, content in reversed(list(enumerate(now)))}
    return [
        int(row) if same else first.get(content.tobytes(), -1)
        for row, same, content in zip(then, there, hashes, strict=True)
    ]


def _split(cache: Cache, at: int) -> str:
    code = int(cache.index.splits[at]) if at >= 0 else -1
    return SPLITS[code] if code >= 0 else ""
