"""Arrays in, figure out. Knows no record and no file; matplotlib is the extra `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MANY_CLASSES = 40


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib: pip install 'featcache[plots]' installs it"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def regularisation_path(
    penalties: npt.ArrayLike, accuracy: npt.ArrayLike, log_loss: npt.ArrayLike, best: float
) -> Figure:
    """Held-out accuracy and log-loss over C, the chosen C marked.

    Args:
        penalties: (G,) values of C.
        accuracy: (G,) on held-out rows.
        log_loss: (G,) on held-out rows.
        best: the chosen C.
    """
    figure = _figure(6, 4)
    left = figure.add_subplot()
    right = left.twinx()
    left.semilogx(penalties, accuracy, "o-", color="tab:blue")
    right.semilogx(penalties, log_loss, "s--", color="tab:orange")
    left.axvline(best, color="grey", linewidth=1)
    left.set(xlabel="C (larger: less regularisation)", title=f"chosen: C = {best:.3g}")
    left.set_ylabel("held-out accuracy", color="tab:blue")
    right.set_ylabel("held-out log-loss", color="tab:orange")
    return figure


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
