"""The engine: scikit-learn's LogisticRegression (L-BFGS), the only file here that knows it."""

# neither scikit-learn nor what it builds on ships types: what they return is converted here
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import joblib
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

MAX_ITERATIONS = 1000
"""Of one call of the engine."""


class WarmPath:
    """Solutions of one design and one set of codes, each started from the one before.

    The objective is that of `objective.py` times Cn, so that C is the same number: softmax for
    three classes or more, one logistic vector for two.
    """

    def __init__(self, X: np.ndarray, codes: np.ndarray) -> None:
        """Take the rows X (m, R) float64 and codes (m,) int, of which at least two differ."""
        self._X, self._codes = X, codes
        self._model: Any = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)

    def advance(self, C: float, gradient_tolerance: float) -> tuple[np.ndarray, np.ndarray, int]:
        """Go on from the last solution.

        Args:
            C: inverse strength of the penalty.
            gradient_tolerance: stop where the largest entry of the gradient is below it.

        Returns:
            W (K, R) and b (K,), one row for two classes, and the iterations it took.
        """
        self._model.set_params(C=float(C), tol=gradient_tolerance)
        self._model.fit(self._X, self._codes)
        W, b = self._model.coef_, self._model.intercept_
        return np.array(W, np.float64), np.array(b, np.float64), int(self._model.n_iter_.max())


def usable_cores() -> int:
    """Cores that this process may use, where a container limits it too."""
    return int(joblib.cpu_count())


@contextmanager
def one_thread_each() -> Generator[None, None, None]:
    """Inside, each engine call runs on the thread that made it, and without warnings.

    Folds run in parallel instead: two BLAS libraries (numpy's and scipy's) that both spin on all
    cores were seen to slow a fit eight times. A ConvergenceWarning says nothing that the
    certificate does not say better. Both settings are the process's, so this is entered once,
    around the threads and not in them.
    """
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
