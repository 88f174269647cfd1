"""Arrays in, figure out. Knows no record and no file; matplotlib is loaded when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MANY_CLASSES = 40


def _figure(width: float, height: float) -> Figure:
    return _drawing()(figsize=(width, height), layout="constrained")


@cache
def _drawing() -> type[Figure]:
    from matplotlib.figure import Figure

    class Drawing(Figure):
        """A figure that a notebook shows, whether pyplot is loaded or not."""

        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png")
            return content.getvalue()

    return Drawing


Panel = Callable[["Axes"], None]
"""Draws into axes."""


def figure(panels: Sequence[Panel]) -> Figure:
    """Panels side by side."""
    made = _figure(6 * len(panels), 4)
    for number, panel in enumerate(panels, 1):
        panel(made.add_subplot(1, len(panels), number))
    return made


def bars_panel(names: Sequence[str], seconds: Sequence[float], *, title: str) -> Panel:
    """Seconds by name, the first on top."""

    def draw(axes: Axes) -> None:
        axes.barh(list(names), seconds)
        axes.invert_yaxis()
        axes.set(xlabel="seconds of all cores", title=title)

    return draw


@dataclass(frozen=True)
class PathCurve:
    """Held-out scores by candidate.

    Attributes:
        label: of the candidates; at: (G,) where they are, positive.
        accuracy: (G,). loss: (G,), `loss_label` its name; loss_error: (G,) its standard errors.
        best: the chosen one. one_error: the first within one standard error of the least loss.
    """

    label: str
    at: Sequence[float]
    accuracy: Sequence[float]
    loss_label: str
    loss: Sequence[float]
    loss_error: Sequence[float]
    best: float
    one_error: float | None


def path_panel(curve: PathCurve) -> Panel:
    """Held-out accuracy and loss with its standard error; the chosen candidate is marked."""

    def draw(left: Axes) -> None:
        right = left.twinx()
        left.semilogx(curve.at, curve.accuracy, "o-", color="tab:blue", markersize=4)
        right.errorbar(
            curve.at, curve.loss, curve.loss_error, fmt="s--", color="tab:orange", markersize=3
        )
        left.axvline(curve.best, color="grey", linewidth=1)
        if curve.one_error is not None:
            left.axvline(curve.one_error, color="grey", linewidth=1, linestyle=":")
        left.set(xlabel=curve.label, title=f"chosen: {curve.best:.3g}")
        left.set_ylabel("held-out accuracy", color="tab:blue")
        right.set_ylabel(f"held-out {curve.loss_label}", color="tab:orange")

    return draw


def shots_panel(
    shots: Sequence[int | str],
    accuracy: Sequence[float],
    intervals: Sequence[tuple[float, float]],
) -> Panel:
    """Accuracy by pictures a class, with intervals."""

    def draw(axes: Axes) -> None:
        places = np.arange(len(shots))
        axes.errorbar(places, accuracy, _ends(accuracy, intervals), fmt="o-", capsize=3)
        axes.set_xticks(places, [str(k) for k in shots])
        axes.set(xlabel="pictures a class", ylabel="accuracy", title="few shots")

    return draw


def layers_panel(
    names: Sequence[str],
    accuracy: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    *,
    title: str = "by cut, from the pictures up",
) -> Panel:
    """Accuracy by cut, or by other names, with intervals."""

    def draw(axes: Axes) -> None:
        places = np.arange(len(names))
        axes.errorbar(places, accuracy, _ends(accuracy, intervals), fmt="o-", capsize=3)
        axes.set_xticks(places, names, rotation=90)
        axes.set(ylabel="accuracy", title=title)

    return draw


@dataclass(frozen=True)
class DepthCurve:
    """Scores by how many units train.

    Attributes:
        depths: (D,). accuracy: (D,) on held-out rows; intervals: (D,) of it.
        train_accuracy: (D,). recommended: one of the depths, None where undecided.
    """

    depths: Sequence[int]
    accuracy: Sequence[float]
    intervals: Sequence[tuple[float, float]]
    train_accuracy: Sequence[float]
    recommended: int | None


def depths_panel(curve: DepthCurve) -> Panel:
    """Held-out accuracy by depth with intervals, training accuracy beside it."""

    def draw(axes: Axes) -> None:
        places = np.arange(len(curve.depths))
        axes.errorbar(
            places,
            curve.accuracy,
            _ends(curve.accuracy, curve.intervals),
            fmt="o-",
            capsize=3,
            label="held out",
        )
        axes.plot(places, curve.train_accuracy, "s--", color="tab:grey", label="training")
        title = "undecided"
        if curve.recommended is not None:
            title = f"recommended: depth {curve.recommended}"
            axes.axvline(curve.depths.index(curve.recommended), color="grey", linewidth=1)
        axes.set_xticks(places, [str(depth) for depth in curve.depths])
        axes.set(xlabel="depth (units that train)", ylabel="accuracy", title=title)
        axes.legend()

    return draw


@dataclass(frozen=True)
class DepthMap:
    """Accuracy by depth and number of training rows.

    Attributes:
        sizes: (N,) training rows. depths: (D,).
        accuracy: N rows of D.
        recommended: (N,) one of the depths each, None where undecided.
    """

    sizes: Sequence[int]
    depths: Sequence[int]
    accuracy: Sequence[Sequence[float]]
    recommended: Sequence[int | None]


def map_panel(found: DepthMap) -> Panel:
    """A line a depth over the number of training rows; rings mark what is recommended there."""

    def draw(axes: Axes) -> None:
        accuracy = np.asarray(found.accuracy)  # (N, D)
        for depth, line in zip(found.depths, accuracy.T, strict=True):
            axes.semilogx(found.sizes, line, "o-", markersize=4, label=f"depth {depth}")
        best = accuracy.max(axis=1)
        axes.semilogx(found.sizes, best, "k*", markersize=9, fillstyle="none", label="best")
        marked = [
            (size, row[found.depths.index(depth)])
            for size, row, depth in zip(found.sizes, accuracy, found.recommended, strict=True)
            if depth is not None
        ]
        axes.semilogx(
            [size for size, _ in marked],
            [value for _, value in marked],
            "ko",
            markersize=13,
            fillstyle="none",
            label="recommended",
        )
        axes.set_xticks(found.sizes, [str(size) for size in found.sizes])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="training pictures", ylabel="accuracy", title="depth by data size")
        axes.legend()

    return draw


def _ends(
    middle: Sequence[float], intervals: Sequence[tuple[float, float]]
) -> npt.NDArray[np.float64]:
    """(2, n) distances below and above."""
    low, high = np.array(intervals, np.float64).reshape(-1, 2).T
    return np.maximum(0.0, np.stack([np.asarray(middle) - low, high - np.asarray(middle)]))


def confusion(matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """A confusion matrix, rows given and columns predicted, shaded by the row's share.

    Args:
        matrix: (K, K) counts.
        classes: K names.
    """
    side = min(2 + 0.45 * len(classes), 16)
    figure = _figure(side, side)
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="given")
    if len(classes) <= _MANY_CLASSES:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                shade = "white" if share[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(count), ha="center", va="center", color=shade, fontsize=8
                )
    return figure
