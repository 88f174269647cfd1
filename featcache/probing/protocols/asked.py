"""One protocol asked of some rows: what may be asked, what is counted, how it is judged."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from featcache.errors import ProbeError
from featcache.heads.solver import Fit
from featcache.probing.judging import accuracy_on, judge
from featcache.probing.roles import Roles, assign_roles, class_warnings
from featcache.probing.rows import Bools, LabelledRows, Probabilities
from featcache.probing.solving import Progress, Solving
from featcache.probing.spec import PathScore, Probed, ProbeSpec
from featcache.store.index import SPLITS

_TEST = SPLITS.index("test")

_FREE = ("tolerance", "memory", "device", "cut")
"""Fields of a spec that say how well and where to solve, not what: any protocol takes them."""

_OPTIONS = {
    "loss": "--head",
    "folds": "--cv",
    "balanced": "--class-weight",
    "smoothing": "--label-smoothing",
}
"""Fields that the command line calls otherwise."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A protocol's rows, and the bookkeeping of its run.

    Attributes:
        cite: name and source of the protocol, as `Probed.method` begins.
        data, spec, progress: see `run_protocol`.
        roles: the data's own splits; some rows are judged.
        solving: fits on the rows, counted.
        warnings: of the protocol itself, to be appended to.
    """

    cite: str
    data: LabelledRows
    spec: ProbeSpec
    progress: Progress | None
    roles: Roles
    solving: Solving
    warnings: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, cite: str, data: LabelledRows, spec: ProbeSpec, progress: Progress | None) -> Asked:
        """Read the splits.

        Raises:
            ProbeError: there is one class to train on, or none.
        """
        roles = assign_roles(data)
        present = np.unique(data.targets[roles.train])
        if len(present) < 2:
            raise ProbeError(
                f"{data.classes[present[0]]!r} is the only class with training pictures; add "
                "training pictures of another class"
            )
        return cls(cite, data, spec, progress, roles, Solving(data, spec, progress))

    def all_warnings(self) -> tuple[str, ...]:
        """Of the splits, the protocol and the solver."""
        return (*self.roles.warnings, *self.warnings, *self.solving.warnings())

    def count(self) -> None:
        """Count a head that was solved in closed form."""
        self.solving.done += 1
        if self.progress:
            self.progress("fit", self.solving.done, self.solving.expected)

    def probed(
        self,
        fit: Fit | None,
        path: tuple[PathScore, ...],
        best: int,
        *,
        trained: Bools,
        probabilities: Probabilities,
        method: str,
    ) -> Probed:
        """The record; `probabilities` (n, K) hold those of the judged rows."""
        judged = self.roles.judged
        scores, interval, confusion = judge(self.data, judged, probabilities)
        return Probed(
            fit=fit,
            path=path,
            best=best,
            method=f"{self.cite}: {method}; interval: {interval.method}",
            scores=scores,
            interval=interval,
            judged=judged,
            trained=trained,
            probabilities=probabilities,
            confusion=confusion,
            train_accuracy=accuracy_on(fit.head, self.data, trained) if fit else None,
            fits=self.solving.done,
            missed=self.solving.missed,
            warnings=class_warnings(self.data, trained, None, 0),
        )


def refuse(name: str, data: LabelledRows, spec: ProbeSpec, *, seeded: bool) -> None:
    """Refuse what the protocol's source does not have.

    Args:
        name: of the protocol.
        data: needs one label a picture and a test split.
        spec: may differ from the default in `_FREE` alone, and in the seed where `seeded`.
        seeded: whether the protocol holds rows out by the spec's seed.

    Raises:
        ProbeError: says which and what to do.
    """
    if data.targets.ndim == 2:
        several = int((data.targets.sum(axis=1) > 1).sum())
        raise ProbeError(
            f"protocol {name!r} is of one label a picture, and {several} of {len(data)} pictures "
            "have several; give --protocol default --head logistic"
        )
    default, free = ProbeSpec(), (*_FREE, "seed") if seeded else _FREE
    for option in (known.name for known in fields(spec) if known.name not in free):
        if (given := getattr(spec, option)) != getattr(default, option):
            shown = _OPTIONS.get(option, "--" + option.replace("_", "-"))
            raise ProbeError(
                f"protocol {name!r} fixes {shown}, {given!r} was given; leave it out, or give "
                "--protocol default"
            )
    if not (data.splits == _TEST).any():
        raise ProbeError(
            f"protocol {name!r} is measured on a test split, and none of {len(data)} labelled "
            "pictures is in one; give the data a test split (a folder test/ of class folders, or "
            "'test' in the column 'split'), or give --protocol default"
        )
