"""Values of C and how accurate their heads are on rows that did not train them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from featcache.evaluation.metrics import correct, losses
from featcache.probing.protocols.asked import Asked
from featcache.probing.rows import Bools, Probabilities
from featcache.probing.solving import Heads
from featcache.probing.spec import PathScore


def path_score(
    probabilities: Probabilities,
    targets: np.ndarray,
    *,
    C: float | None = None,  # noqa: N803 - the field's name
    neighbours: int | None = None,
) -> PathScore:
    """One candidate on held-out rows; no standard error where there is one row."""
    lost = losses(probabilities, targets)
    error = float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else None
    right = float(correct(probabilities, targets).mean())
    return PathScore(C, right, float(lost.mean()), error, neighbours)


class Search:
    """Heads of some rows, scored on others; each C is solved once, when it is first asked for."""

    def __init__(self, asked: Asked, train: Bools, tuning: Bools, judged: Bools | None = None):
        """Take the rows.

        Args:
            asked: the protocol's run.
            train: (n,) bool, rows that heads are fitted on.
            tuning: (n,) bool, rows that choose.
            judged: (n,) bool, rows that choose nothing and are predicted all the same.
        """
        self._asked, self._train, self._tuning = asked, train, tuning
        self._scored = tuning if judged is None else tuning | judged
        self._found: dict[float, tuple[PathScore, Probabilities]] = {}

    def accuracy(self, C: float) -> float:  # noqa: N803 - the field's name
        """Share of the tuning rows that the head of one C has right."""
        self.solve([C])
        return self._found[C][0].accuracy

    def peak(self, grid: Sequence[float]) -> float:
        """The C of the highest accuracy; the first of equals."""
        self.solve(grid)
        return max(grid, key=self.accuracy)

    def solve(self, grid: Iterable[float]) -> None:
        """Solve those that are not known yet, as one path."""
        new = sorted(set(grid) - self._found.keys())
        if not new:
            return
        tuning = self._tuning[self._scored]
        targets = self._asked.data.targets[self._tuning]
        train, scored = self._train[None], self._scored[None]
        for fit in self._asked.solving.solve(Heads(train, scored, np.array(new))):
            point = path_score(fit.probabilities[tuning], targets, C=fit.C)
            self._found[fit.C] = point, fit.probabilities

    def path(self) -> tuple[PathScore, ...]:
        """Every C that was solved, ascending."""
        return tuple(self._found[C][0] for C in sorted(self._found))

    def position(self, C: float) -> int:  # noqa: N803 - the field's name
        """Of a C on the path."""
        return sorted(self._found).index(C)

    def probabilities(self, C: float, rows: Bools) -> Probabilities:  # noqa: N803
        """(m, K) of some of the scored rows."""
        return self._found[C][1][rows[self._scored]]
