"""Pictures to train on or to be judged on: where their activations are, targets and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featcache.errors import TrainingError


class Indexable(Protocol):
    """Rows that are read when they are indexed by an int array: an array, or a memory map."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, ...) of what is there."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """As it is stored."""
        ...

    def __getitem__(self, key: npt.NDArray[np.int64], /) -> npt.NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class Examples:
    """n pictures with V views each.

    Attributes:
        activations: rows (N, ...) of a float dtype; each is given `shape`.
        positions: (n, V) int64 rows of each picture's views, the plain one first; (n,) where there
            is one. Each epoch takes one view a picture; a picture's views all come up once before
            any comes up again.
        targets: (n,) int codes, or (n, K) labels or shares of classes.
        weights: (n,) of the pictures; views share them (each weighs 1/V), so a picture with
            several views weighs no more than others. None weighs all the same.
        shape: of one activation; None is `activations.shape[1:]`.
        made: rows are made when they are asked for (decoded and augmented): they are never kept,
            and it does not matter where they lie.

    Raises:
        TrainingError: the arrays disagree.
    """

    activations: Indexable
    positions: npt.NDArray[np.int64]
    targets: npt.NDArray[Any]
    weights: npt.NDArray[np.floating] | None = None
    shape: tuple[int, ...] | None = None
    made: bool = False

    def __post_init__(self) -> None:
        n, rows = len(self.targets), self.activations.shape[0]
        if not n:
            raise TrainingError("there is no picture to train on or to judge by; give some")
        if self.positions.ndim not in (1, 2) or len(self.positions) != n:
            raise TrainingError(
                f"positions of shape {self.positions.shape} for {n} targets; give (n,) or (n, V)"
            )
        if not 0 <= self.positions.min() <= self.positions.max() < rows:
            raise TrainingError(
                f"positions from {self.positions.min()} to {self.positions.max()} of {rows} rows; "
                f"give them from 0 to {rows - 1}"
            )

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.targets)

    @property
    def views(self) -> npt.NDArray[np.int64]:
        """(n, V) rows of each picture's views."""
        return self.positions.reshape(len(self), -1)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one activation."""
        return tuple(self.activations.shape[1:]) if self.shape is None else self.shape

    @property
    def row_bytes(self) -> int:
        """Of one activation as it is stored."""
        return int(np.prod(self.row_shape)) * self.activations.dtype.itemsize
