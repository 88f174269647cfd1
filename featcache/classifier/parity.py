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
from featcache.errors import ParityError, PictureError, SourceMissingError
from featcache.extraction.pipeline import Slot, Unusable, load
from featcache.heads.linear import CERTAIN_LOGIT
from featcache.images.sources import Source
from featcache.store.files import naming, sync_folder

ROWS = 32
"""Real rows that are run from pixels."""

TOLERANCE = 1e-3
"""Largest difference of a logit, as a share of the row's largest logit (or of 1, if smaller)."""


@dataclass(frozen=True)
class Parity:
    """How the joined model compared: rows run, and the worst relative difference of a logit."""

    rows: int
    worst: float


@dataclass(frozen=True, eq=False)
class CheckedRows:
    """Rows to be run from pixels.

    Attributes:
        source: where their pictures are.
        slots: contents and paths.
        features: (n, D) as cached.
    """

    source: Source
    slots: list[Slot]
    features: npt.NDArray[np.float32]


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
        rows: real rows with their cached features.

    Raises:
        ParityError: the joined model gives other logits; says by how much. Nothing is saved.
        SourceMissingError: the pictures are gone, so it cannot be checked.
        StoreError: it cannot be written there.
    """
    encoded = files.encode(content)
    draft = path.with_name(f".tmp-check-{path.name}")
    files.write(draft, encoded)
    try:
        parity = measure(join(files.read(draft)), rows)
        if not parity.worst <= TOLERANCE:
            raise ParityError(
                f"{path}: not saved. From pixels the classifier gives logits that differ from the "
                f"cached ones by {parity.worst:.2g} of their size (allowed: {TOLERANCE:g}) on "
                f"{parity.rows} rows; extract again with --verify-content, then probe again"
            )
        with naming(path):
            draft.replace(path)
            sync_folder(path.absolute().parent)
    finally:
        draft.unlink(missing_ok=True)
    return parity


def measure(classifier: Classifier, rows: CheckedRows) -> Parity:
    """Run the rows from pixels and compare their logits with those of the cached features."""
    preprocessing = classifier.recipe.preprocessing
    outcomes = [load(rows.source, preprocessing, slot) for slot in rows.slots]
    for slot, outcome in zip(rows.slots, outcomes, strict=True):
        if isinstance(outcome, Unusable):
            raise SourceMissingError(
                f"{slot.path}: the picture cannot be read as it was ({outcome.reason}); "
                "run `featcache extract` again, then probe again"
            ) from PictureError(outcome.reason)
    pixels = [outcome for outcome in outcomes if not isinstance(outcome, Unusable)]
    with classifier.engine() as engine:
        ours = classifier.logits(engine, pixels).astype(np.float64)
    head = classifier.content.head
    cached = head.logits(rows.features).astype(np.float64)
    fitted = np.abs(head.bias) < CERTAIN_LOGIT  # a class without training rows has no scale
    difference, cached = np.abs(ours - cached)[:, fitted], cached[:, fitted]
    scale = np.maximum(np.abs(cached).max(axis=1), 1.0)
    return Parity(len(pixels), float((difference.max(axis=1) / scale).max()))
