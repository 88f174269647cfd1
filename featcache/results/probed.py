"""What `probe` found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featcache import plots
from featcache.errors import TableError
from featcache.naming import shown
from featcache.results.extracted import ViewSet
from featcache.results.looking import cell, listed
from featcache.results.record import Record
from featcache.results.scores import (
    Calibration,
    Comparison,
    DataSize,
    DepthScore,
    Estimate,
    LayerScore,
    MlpScore,
    Overlap,
    PathPoint,
    Shots,
    Suspect,
    Tta,
)
from featcache.results.tables import Rows, pandas, row_of
from featcache.rounding import digits, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class ProbeResult(Record):
    """What `probe` found.

    Attributes:
        head: "softmax", "logistic", "ridge", "knn" or "mlp". protocol: whose rules were followed.
        n_train: rows the saved head is fitted on; n_test: rows of the test split, else 0.
        classes: names, in the order of the head's outputs.
        path: scores by C on held-out rows of the training part.
        best_C: the one that was chosen, used for the refit; None of neighbours.
        best_neighbours: how many of them were chosen, else None.
        one_error_C: the smallest C whose held-out log-loss is within one standard error of it.
        estimate: the honest number. test: the same of the test split, None without one.
        gap: certified bound on (objective - optimum) / objective of the refit; None of ridge and
            neighbours, which are solved in closed form, and of an MLP, which is not solved.
        converged: whether the refit's gap is within the tolerance.
        confusion: (K, K) counts on the rows of the estimate; rows given, columns predicted.
        seconds: of fitting and scoring.
        train_accuracy: of the heads behind the estimate, each on the pictures that it was fitted on
            (mean over outer folds); None of ridge, neighbours and support sets. overfitting: how
            much higher that is than the estimate.
        calibration: of the rows of the estimate; None where there are no probabilities.
        overlaps: pictures with the same bytes in different splits or classes.
        suspects: labels that are likely wrong, the worst first, as many as were asked for; None
            where none were.
        shots: by pictures a class. layers: by cut. against: beside an earlier result.
        tta: with random crops beside the plain view. mlp: beside the linear head; None for others.
        unfreeze: by depth, shallowest first. recommended_depth: the shallowest that is as good as
            the best; None where undecided or not asked for.
        scratch: the whole network trained from random weights instead, for comparison; no part of
            the advice. None where not asked for.
        advice: what to do next, in a sentence. data_sizes: the sweep by number of pictures.
        saved: the classifier's file, if one was asked for.
        result: identity of the findings kept in the cache; None if it could not be written.
        multi_label: whether pictures may have several labels: then accuracy is the share of
            pictures whose whole label set is right, and the confusion is empty.
        views: augmented views that the head was fitted on beside the plain one.
        asked: options that were given, by the names of `ProbeRequest`, but for where to save.
        cache, cut: what was probed. warnings: what a person should know, by name.
    """

    head: str
    n_train: int
    n_test: int
    classes: tuple[str, ...]
    path: tuple[PathPoint, ...]
    best_C: float | None  # noqa: N815 - the field's name
    one_error_C: float | None  # noqa: N815 - the field's name
    estimate: Estimate
    test: Estimate | None
    gap: float | None
    converged: bool
    confusion: tuple[tuple[int, ...], ...]
    seconds: float
    cache: str
    cut: str
    protocol: str = "default"
    best_neighbours: int | None = None
    calibration: Calibration | None = None
    overlaps: tuple[Overlap, ...] = ()
    suspects: tuple[Suspect, ...] | None = None
    shots: tuple[Shots, ...] = ()
    layers: tuple[LayerScore, ...] = ()
    against: Comparison | None = None
    tta: Tta | None = None
    mlp: MlpScore | None = None
    unfreeze: tuple[DepthScore, ...] = ()
    recommended_depth: int | None = None
    scratch: DepthScore | None = None
    advice: str = ""
    data_sizes: tuple[DataSize, ...] = ()
    saved: str | None = None
    multi_label: bool = False
    views: tuple[ViewSet, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict[str, Any])
    result: str | None = None
    warnings: tuple[str, ...] = ()
    train_accuracy: float | None = None
    overfitting: float | None = field(init=False)

    _main: ClassVar[str] = "path"
    _shown: ClassVar[tuple[str, ...]] = ("unfreeze", "layers", "shots", "suspects", "overlaps")

    def __post_init__(self) -> None:
        trained = self.train_accuracy
        above = None if trained is None else trained - self.estimate.accuracy
        object.__setattr__(self, "overfitting", above)

    def to_frame(self, table: str | None = None) -> DataFrame:
        """One of the tables as a pandas data frame; see `Record.to_frame`.

        Args:
            table: "path" (a row for each C, unless another is named), "unfreeze" (for each depth),
                "data_sizes" (for each number of pictures and depth), "shots", "layers", "suspects",
                "overlaps", "confusion" (rows given, columns predicted), or "summary" (one row: what
                was asked, estimate, test, advice).

        Raises:
            MissingExtraError: pandas is not installed.
            TableError: there is no such table.
        """
        if table != "confusion":
            return super().to_frame(table)
        names = self.classes if self.confusion else ()
        axes = (pandas().Index(names, name=name) for name in ("given", "predicted"))
        return pandas().DataFrame(list(self.confusion), *axes)

    def _tables(self) -> dict[str, Rows]:
        sizes = [
            {"n_train": size.n_train, "recommended": score.depth == size.recommended_depth}
            | row_of(score)
            for size in self.data_sizes
            for score in size.scores
        ]
        return super()._tables() | {"data_sizes": sizes}

    def _headline(self) -> dict[str, str]:
        estimate = self.estimate
        decimals = digits(estimate.ci95)
        accuracy, low, high = (
            percent(share, decimals) for share in (estimate.accuracy, *estimate.ci95)
        )
        told = {
            "cache": shown(self.cache),
            "head": f"{self.head} on {shown(self.cut)}",
            "accuracy": f"{accuracy} (95% interval {low} to {high})",
            "mean per class": percent(estimate.mean_per_class, decimals),
            "pictures": f"{self.n_train} train, {estimate.n} judged, {len(self.classes)} classes",
            "how": estimate.method,
            "C": cell(self.best_C),
            "neighbours": cell(self.best_neighbours),
            "advice": shown(self.advice),
            "saved": shown(self.saved or ""),
            "warnings": listed(self.warnings),
        }
        return {name: text for name, text in told.items() if text}

    def plot(self, what: str | None = None) -> Figure:
        """What was found, drawn with matplotlib.

        Args:
            what: "confusion" draws that matrix; None the path over C and what else was asked for,
                a panel each.

        Raises:
            TableError: there is no such plot.
        """
        if what not in (None, "confusion"):
            raise TableError(f"no plot {what!r}; there is 'confusion', or leave it out")
        if what == "confusion":
            return plots.confusion(np.array(self.confusion), self.classes)
        panels = [plots.path_panel(self._path_curve())] if self.path else []
        if self.shots:
            panels.append(plots.shots_panel([s.shots for s in self.shots], *_bars(self.shots)))
        if self.layers:
            accuracy = [layer.accuracy for layer in self.layers]
            names = [layer.cut for layer in self.layers]
            panels.append(plots.layers_panel(names, accuracy, [s.ci95 for s in self.layers]))
        if self.mlp:
            both = self.mlp.linear, self.mlp.score
            accuracy, ends = [head.accuracy for head in both], [head.ci95 for head in both]
            panels.append(plots.layers_panel(["linear", "mlp"], accuracy, ends, title="by head"))
        if self.unfreeze:
            panels.append(plots.depths_panel(self._depth_curve()))
        if self.data_sizes:
            panels.append(plots.map_panel(self._depth_map()))
        return plots.figure(panels)

    def _depth_curve(self) -> plots.DepthCurve:
        return plots.DepthCurve(
            depths=[score.depth for score in self.unfreeze],
            accuracy=[score.accuracy for score in self.unfreeze],
            intervals=[score.ci95 for score in self.unfreeze],
            train_accuracy=[score.train_accuracy for score in self.unfreeze],
            recommended=self.recommended_depth,
        )

    def _depth_map(self) -> plots.DepthMap:
        return plots.DepthMap(
            sizes=[size.n_train for size in self.data_sizes],
            depths=[score.depth for score in self.data_sizes[0].scores],
            accuracy=[[score.accuracy for score in size.scores] for size in self.data_sizes],
            recommended=[size.recommended_depth for size in self.data_sizes],
        )

    def _path_curve(self) -> plots.PathCurve:
        votes = self.best_C is None
        return plots.PathCurve(
            label="k, neighbours" if votes else "C (larger: less regularisation)",
            at=[float((p.neighbours if votes else p.C) or 0) for p in self.path],
            accuracy=[p.accuracy for p in self.path],
            loss_label="squared error" if self.path[0].log_loss is None else "log-loss",
            loss=[_first(p.log_loss, p.squared_error) for p in self.path],
            loss_error=[p.log_loss_error or 0.0 for p in self.path],
            best=float((self.best_neighbours if votes else self.best_C) or 0),
            one_error=self.one_error_C,
        )


def _first(*values: float | None) -> float:
    return next((value for value in values if value is not None), math.nan)


def _bars(shots: tuple[Shots, ...]) -> tuple[list[float], list[tuple[float, float]]]:
    return [s.mean for s in shots], [s.ci95 for s in shots]
