"""Whether another engine gives what the reference gives, on real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.engines import Engine
from featcache.errors import EngineError
from featcache.recipe import Precision

TOLERANCE: dict[Precision, float] = {
    "fp32": 1e-3,
    "tf32": 1e-2,
    "fp16": 1e-2,
    "bf16": 5e-2,
    "int8": 5e-2,
}
"""Largest ||a - b|| / ||b|| of a row, by the precision that both have."""


def refuse_disparity(
    engine: Engine, reference: Engine, pixels: npt.NDArray[Any], precision: Precision
) -> None:
    """Run both on the same pictures and compare them row by row.

    Args:
        engine: to be vouched for.
        reference: plain torch, of the same stem and precision.
        pixels: (B, H, W, 3) uint8 of real pictures.
        precision: of both.

    Raises:
        EngineError: they disagree; says by how much.
    """
    with reference:
        expected = reference.run_all(pixels)
    with engine:
        refuse_different(engine.name, engine.run_all(pixels), expected, precision)


def refuse_different(
    name: str,
    found: Sequence[npt.NDArray[Any]],
    expected: Sequence[npt.NDArray[Any]],
    precision: Precision,
) -> None:
    """Compare what an engine gave of some pictures with what torch gave of them.

    Raises:
        EngineError: they disagree; says by how much.
    """
    worst = largest_difference(found, expected)
    if not worst <= TOLERANCE[precision]:
        raise EngineError(
            f"engine {name!r} differs from torch by {worst:.1e} of a row's length on "
            f"{len(found[0])} of these pictures, and {TOLERANCE[precision]:.0e} is allowed"
        )


def largest_difference(
    found: Sequence[npt.NDArray[Any]], expected: Sequence[npt.NDArray[Any]]
) -> float:
    """Largest ||a - b|| / ||b|| of a row, over several (B, *shape); NaN if any is."""
    worst = [
        relative_differences(a, b).max(initial=0.0) for a, b in zip(found, expected, strict=True)
    ]
    return float(np.max(worst))  # NaN wins, as it does not in Python's own


def relative_differences(
    found: npt.NDArray[Any], expected: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """(B,) ||a - b|| / ||b|| of rows (B, *shape)."""
    a, b = (rows.astype(np.float64).reshape(len(rows), -1) for rows in (found, expected))
    norms = np.maximum(np.linalg.norm(b, axis=1), np.finfo(np.float32).tiny)
    return np.linalg.norm(a - b, axis=1) / norms
