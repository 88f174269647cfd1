"""`.csv`: a line a sample, for spreadsheets and whatever else reads nothing better."""

from __future__ import annotations

import csv
from pathlib import Path

from featcache.errors import ExportError
from featcache.export.samples import Features, Samples, spelt_out
from featcache.naming import harmless

MOST_COLUMNS = 16_384
"""Of a spreadsheet."""


def write_csv(path: Path, samples: Samples, features: Features) -> int:
    """Write texts and features as UTF-8; float32 values keep all their digits.

    A text that a spreadsheet would take for a formula gets a ' before it, unless it is a number.

    Returns:
        How many texts got one.

    Raises:
        ExportError: the features have too many columns.
    """
    width = features.row_bytes // features.dtype.itemsize
    texts = samples.texts()
    if width + len(texts) > MOST_COLUMNS:
        raise ExportError(
            f"{width} columns of features, and a CSV of more than {MOST_COLUMNS} opens nowhere; "
            "take --format npz, hdf5 or parquet, or a pooled --cut"
        )
    changed = 0
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*texts, *(f"f{i}" for i in range(width))])
        for block in samples.blocks(features.row_bytes):
            columns = ([spelt_out(text) for text in of(block)] for of in texts.values())
            rows = features.read(block).reshape(-1, width).tolist()
            for said, values in zip(zip(*columns, strict=True), rows, strict=True):
                safe = [harmless(text) for text in said]
                changed += sum(a != b for a, b in zip(safe, said, strict=True))
                writer.writerow([*safe, *(f"{value:.9g}" for value in values)])
    return changed
