"""Real rows without a cache: scikit-learn's digits, their pixels as features."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featcache.probing import LabelledRows
from featcache.store.index import SPLITS

Rows = Callable[..., LabelledRows]


def make_rows(
    features: np.ndarray,
    targets: np.ndarray,
    splits: list[str] | None = None,
    groups: np.ndarray | None = None,
    classes: tuple[str, ...] = (),
) -> LabelledRows:
    n = len(features)
    k = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
    codes = [SPLITS.index(name) if name else -1 for name in splits or [""] * n]
    return LabelledRows(
        features=features.astype(np.float32),
        targets=targets if targets.ndim == 2 else targets.astype(np.int64),
        classes=classes or tuple(f"digit {i}" for i in range(k)),
        splits=np.array(codes, np.int8),
        groups=np.arange(n) if groups is None else groups.astype(np.int64),
        rows=np.arange(n),
        hashes=np.stack(
            [np.frombuffer(sha256(row.tobytes()).digest(), np.uint8) for row in features]
        ),
    )


@pytest.fixture(scope="session")
def rows_of() -> Rows:
    """Make `LabelledRows` of arrays; every row is a group of its own unless groups are given."""
    return make_rows


@pytest.fixture(scope="session")
def pixels() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits: (n, 64) pixels from 0 to 1, and their codes."""
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y.astype(np.int64)


@pytest.fixture(scope="session")
def few(pixels: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The first 90 digits of 0, 1 and 2."""
    X, y = pixels
    chosen = np.flatnonzero(y < 3)[:90]
    return X[chosen], y[chosen]


@pytest.fixture(scope="session")
def splits_of() -> Callable[..., list[str]]:
    """Name splits by share: `splits_of(90, train=4, val=1, test=1)` deals rows in turn."""

    def deal(n: int, **shares: int) -> list[str]:
        pattern: list[Any] = [name for name, count in shares.items() for _ in range(count)]
        return [pattern[i % len(pattern)] for i in range(n)]

    return deal
