"""Few shots: what heads of k pictures a class reach, over support sets drawn by seed alone.

    the data has         support sets from  C chosen on                        measured on
    test, val            train              val, which never trains            test
    test (or val alone)  train              folds within the support set       test (val)
    no split             all pictures       folds within the support set       all others

One picture a class leaves nothing to hold out: C is then the middle of the grid, which is placed by
the support set's own features; or, where heads are drawn to a prior, that prior is scored. "All" is
the default estimate where there is no split.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.errors import ProbeError
from featcache.evaluation.metrics import Scores, score
from featcache.evaluation.shots import support_rows
from featcache.heads.solver import Fit
from featcache.probing.judging import HeldOut
from featcache.probing.roles import assign_roles, sharing, short_classes
from featcache.probing.rows import Bools, LabelledRows
from featcache.probing.solving import Heads, Progress, Solving, Within
from featcache.probing.spec import Probed, ProbeSpec, ShotScore

_UNTOUCHED = 1e-9
"""Of the smallest C: a head at it is its prior."""


@dataclass(frozen=True, eq=False)
class FewShots:
    """Scores by shots, in the order asked for.

    Attributes:
        shots: one a count.
        fits, missed, worst_gap, seconds: of all heads fitted for them.
        warnings: what a person should know, by name.
    """

    shots: tuple[ShotScore, ...]
    fits: int
    missed: int
    worst_gap: float
    seconds: float
    warnings: tuple[str, ...]


def few_shots(
    data: LabelledRows,
    spec: ProbeSpec,
    counts: tuple[int | None, ...],
    seeds: int,
    whole: Probed,
    progress: Progress | None = None,
) -> FewShots:
    """Fit heads on support sets and score them on rows that are in none of their roles.

    Args:
        data: see `labelled_rows`.
        spec: see `ProbeSpec`; its seed does not matter here.
        counts: pictures a class; None: all.
        seeds: how many support sets a count, drawn by the seeds 0, 1, ...
        whole: the default estimate of the same data and spec.
        progress: called with ("fit", done, total).

    Raises:
        ProbeError: several labels a row, or nothing is left to measure on.
    """
    if data.targets.ndim == 2:
        raise ProbeError("shots are counted of one label a picture, these have several")
    return _FewShots(data, spec, seeds, whole, progress).run(counts)


class _FewShots:
    def __init__(
        self,
        data: LabelledRows,
        spec: ProbeSpec,
        seeds: int,
        whole: Probed,
        progress: Progress | None,
    ) -> None:
        self._data, self._spec, self._seeds, self._whole = data, spec, seeds, whole
        self._roles = assign_roles(data)
        self._solving = Solving(data, spec, progress)

    def run(self, counts: tuple[int | None, ...]) -> FewShots:
        started = time.perf_counter()
        drawn = [(k, self._supports(k)) for k in counts]
        self._solving.expected = sum(self._fits(k, s) for k, supports in drawn for s in supports)
        shots = tuple(self._scored(k, supports) for k, supports in drawn)
        solving = self._solving
        most = max((k for k in counts if k is not None), default=0)
        short = short_classes(self._data, self._roles.train, most)
        return FewShots(
            shots,
            solving.done,
            solving.missed,
            solving.worst,
            time.perf_counter() - started,
            (*short, *solving.warnings()),
        )

    def _supports(self, shots: int | None) -> list[Bools]:
        """(n,) bool for each seed; of "all" one, or none where nothing is split."""
        data, pool = self._data, self._roles.train
        if shots is None:
            return [pool] if self._roles.judged.any() else []
        return [
            support_rows(data.targets, data.groups, data.hashes, pool, shots, seed)
            for seed in range(self._seeds)
        ]

    def _fits(self, shots: int | None, support: Bools) -> int:
        """How many fits a support set takes."""
        values = len(self._solving.grid(support))
        if self._scores_prior(shots):
            return 1
        if self._roles.tuning.any():
            return values
        return 1 if shots == 1 else values * (self._solving_folds(support) + 1)

    def _solving_folds(self, support: Bools) -> int:
        return self._solving.folds(support, self._spec.inner_folds).count

    def _scored(self, shots: int | None, supports: list[Bools]) -> ShotScore:
        if not supports:
            chosen = self._whole.path[self._whole.best].C
            return ShotScore(
                None, (self._whole.scores,), () if chosen is None else (chosen,), self._whole.method
            )
        found = [
            self._score(fit, judged)
            for some in self._at_once(supports)
            for fit, judged in self._heads(shots, some)
        ]
        return ShotScore(
            shots,
            tuple(scores for scores, _ in found),
            tuple(chosen for _, chosen in found),
            f"{self._chosen_by(shots)}; measured on {self._measured_on}",
        )

    def _at_once(self, supports: list[Bools]) -> Iterator[list[Bools]]:
        """Support sets whose heads at every C can say what they score within the memory."""
        scored, classes = len(self._data), len(self._data.classes)
        each = 8 * scored * classes * len(self._solving.grid(supports[0]))
        count = max(1, self._spec.memory // 2 // each)
        for first in range(0, len(supports), count):
            yield supports[first : first + count]

    def _score(self, fit: Fit, judged: Bools) -> tuple[Scores, float]:
        """Scores of a support set's head, and its C."""
        given = fit.probabilities
        if len(given) > judged.sum():  # val was scored too
            given = given[judged[judged | self._roles.tuning]]
        return score(given, self._data.targets[judged]), fit.C

    def _scores_prior(self, shots: int | None) -> bool:
        """Whether the prior is scored as it is: one picture a class has little to add to it."""
        return shots == 1 and self._spec.prior is not None

    def _heads(self, shots: int | None, supports: list[Bools]) -> list[tuple[Fit, Bools]]:
        """The head of each support set, and the rows it is measured on."""
        judged = [self._judged(support) for support in supports]
        if self._roles.tuning.any() and not self._scores_prior(shots):
            fits = self._chosen_on_val(supports, judged)
        elif shots == 1:
            lone = [
                Heads(support[None], rows[None], self._lone(support))
                for support, rows in zip(supports, judged, strict=True)
            ]
            fits = dict(self._solving.solve_each(lone))
        else:
            within = [
                Within(support, self._solving.folds(support, self._spec.inner_folds), rows)
                for support, rows in zip(supports, judged, strict=True)
            ]
            paths = self._solving.cross_validate_each(within)
            fits = {at: path.whole[path.held_out.best] for at, path in paths}
        return [(fits[at], rows) for at, rows in enumerate(judged)]

    def _lone(self, support: Bools) -> npt.NDArray[np.float64]:
        """(1,) C at one shot: the middle of the grid, or so little that a prior stays."""
        grid = self._solving.grid(support)
        if self._spec.prior is not None:
            return _UNTOUCHED * grid[:1]
        return grid[[len(grid) // 2]]

    def _chosen_on_val(self, supports: list[Bools], judged: list[Bools]) -> dict[int, Fit]:
        tuning = self._roles.tuning
        asked = [
            Heads(support[None], (rows | tuning)[None], self._solving.grid(support))
            for support, rows in zip(supports, judged, strict=True)
        ]
        held_out = [HeldOut(self._data, len(heads.grid)) for heads in asked]
        fits: list[list[Fit]] = [[] for _ in asked]
        for at, fit in self._solving.solve_each(asked):
            val = tuning[judged[at] | tuning]
            held_out[at].add(fit.position, np.flatnonzero(tuning), fit.probabilities[val])
            fits[at].append(fit)
        return {
            at: path[found.best]
            for at, (path, found) in enumerate(zip(fits, held_out, strict=True))
        }

    def _judged(self, support: Bools) -> Bools:
        """The data's own, or all rows that share nothing with the support set."""
        if self._roles.judged.any():
            return self._roles.judged
        others = self._roles.train & ~sharing(self._data.groups, support)
        if not others.any():
            raise ProbeError(
                f"a support set of {int(support.sum())} pictures leaves none to measure on; ask "
                "for fewer shots, or give the data a test split"
            )
        return others

    def _chosen_by(self, shots: int | None) -> str:
        if self._scores_prior(shots):
            return "the source network's own rows, but for the bias"
        if self._roles.tuning.any():
            return "C by log-loss on the val split, which does not train"
        if shots == 1:
            return "C in the middle of the grid"
        return "C by cross-validation within the support set"

    @property
    def _measured_on(self) -> str:
        measured = self._roles.measured
        return f"the {measured} split" if measured else "all other pictures"
