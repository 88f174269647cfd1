"""Before a classifier is saved: from pixels, does the file itself give the cached logits?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.classifier import files
from featcache.classifier.files import ClassifierFile
from featcache.classifier.joined import Classifier
from featcache.engines import Engine
from featcache.engines import parity as engines_parity
from featcache.errors import ParityError, PictureError, SourceMissingError
from featcache.extraction.pipeline import Pixels, Slot, Unusable, load
from featcache.heads.linear import CERTAIN_LOGIT
from featcache.images.sources import Source
from featcache.recipe import Precision, Stream

ROWS = 32
"""Real rows that are run from pixels."""

TOLERANCE = 1e-3
"""Largest difference of a logit, as a share of the row's largest logit (or of 1, if smaller)."""

ROUNDED_TOLERANCE = 5e-3
"""The same where half precision makes a difference that cannot be reproduced.

Pixels are not rounded at the cut when a classifier is used. Measured: that alone moves logits by up
to 3e-4 (efficientnet_lite0, tails of 1, 3 and 6 units, 260 digits) and 2e-3 (a small ViT of random
weights, whose logits are small).
"""


@dataclass(frozen=True)
class Parity:
    """How the joined model compared with the cached logits.

    Attributes:
        rows: that were run.
        worst: relative difference of a logit, activations rounded at the cut as in the cache.
        unrounded: the same of the classifier as it will be used.
    """

    rows: int
    worst: float
    unrounded: float


@dataclass(frozen=True, eq=False)
class CheckedRows:
    """Rows to be run from pixels.

    Attributes:
        source: where their pictures are.
        slots: contents and paths.
        logits: (n, K) that the measured model gives from the cached rows.
    """

    source: Source
    slots: list[Slot]
    logits: npt.NDArray[np.float32]


def choose_rows(count: int) -> npt.NDArray[np.int64]:
    """Up to `ROWS` row numbers, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(ROWS, count)).astype(np.int64))


def save_checked(
    path: Path,
    content: ClassifierFile,
    join: Callable[[ClassifierFile], Classifier],
    rows: CheckedRows,
) -> Parity:
    """Write a classifier aside, read it back, run it on real rows, and only then keep it.

    Args:
        path: of the .fc file.
        content: what it is to hold.
        join: makes a classifier of what was read back.
        rows: real rows with their cached logits.

    Raises:
        ParityError: the joined model gives other logits, or half precision in the cache matters;
            says by how much. Nothing is saved.
        SourceMissingError: the pictures are gone, so it cannot be checked.
        StoreError: it cannot be written there.
    """
    found: list[Parity] = []

    def check(draft: Path) -> None:
        found.append(measure(join(files.read(draft)), rows))
        _refuse_unlike(path, found[0], tolerance(content.stream, content.recipe.precision))

    files.write(path, files.encode(content), check)
    return found[0]


def tolerance(stream: Stream, precision: Precision = "fp32") -> float:
    """What is allowed of rows of a stream: more where it was rounded on the way, or throughout."""
    rounded = TOLERANCE if stream.parent is None else ROUNDED_TOLERANCE
    return rounded if precision == "fp32" else max(rounded, engines_parity.TOLERANCE[precision])


def _refuse_unlike(path: Path, parity: Parity, allowed: float) -> None:
    if not parity.worst <= allowed:
        raise ParityError(
            f"{path}: not saved. From pixels the classifier gives logits that differ from the "
            f"cached ones by {parity.worst:.2g} of their size (allowed: {allowed:g}) on "
            f"{parity.rows} rows; extract again with --verify-content, then probe again"
        )
    if not parity.unrounded <= max(allowed, ROUNDED_TOLERANCE):
        raise ParityError(
            f"{path}: not saved. Half precision in the cache moves its logits by "
            f"{parity.unrounded:.2g} of their size (allowed: {ROUNDED_TOLERANCE:g}) on "
            f"{parity.rows} rows; extract with --store-dtype float32, then probe again"
        )


def measure(classifier: Classifier, rows: CheckedRows) -> Parity:
    """Run the rows from pixels and compare their logits with the cached ones."""
    outcomes = [load(rows.source, classifier.recipe, slot) for slot in rows.slots]
    for slot, outcome in zip(rows.slots, outcomes, strict=True):
        if isinstance(outcome, Unusable):
            raise SourceMissingError(
                f"{slot.path}: the picture cannot be read as it was ({outcome.reason}); "
                "run `featcache extract` again, then probe again"
            ) from PictureError(outcome.reason)
    pixels = [outcome for outcome in outcomes if not isinstance(outcome, Unusable)]
    worst = _worst(classifier, classifier.engine_as_cached(), pixels, rows.logits)
    unrounded = worst
    if classifier.content.stream.dtype == "float16":
        unrounded = _worst(classifier, classifier.engine(), pixels, rows.logits)
    return Parity(len(pixels), worst, unrounded)


def _worst(
    classifier: Classifier, engine: Engine, pixels: list[Pixels], logits: npt.NDArray[np.float32]
) -> float:
    """Largest difference of a logit to the cached (n, K) ones; see `TOLERANCE`."""
    with engine:
        ours = classifier.logits(engine, pixels).astype(np.float64)
    cached = logits.astype(np.float64)
    fitted = np.abs(classifier.content.head.bias) < CERTAIN_LOGIT  # without training rows: no scale
    difference, cached = np.abs(ours - cached)[:, fitted], cached[:, fitted]
    scale = np.maximum(np.abs(cached).max(axis=1), 1.0)
    return float((difference.max(axis=1) / scale).max())
