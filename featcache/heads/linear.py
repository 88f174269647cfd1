"""The fitted linear head: features in, logits and probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from featcache.errors import ProbeError

Loss = Literal["softmax", "logistic"]

CERTAIN_LOGIT = 1e4
"""Size of the bias that makes a probability exactly 0 or 1 (exp(-10,000) is 0 in float64).

Finite, also in float16, so that no product or difference of logits becomes NaN. A class without a
training row has the bias -CERTAIN_LOGIT; a label that every training row has, +CERTAIN_LOGIT.
"""


@dataclass(frozen=True, eq=False)
class LinearHead:
    """One linear layer and the loss that says how its logits are read.

    For two classes `softmax` stores the single-vector logistic w as [-w/2, +w/2] (DESIGN 4.4), and
    `logistic` stores its two columns as [-w, +w]: the same model, the same probabilities.

    Attributes:
        loss: "softmax" (classes exclude each other) or "logistic" (one column a class).
        coef: (K, D) float32.
        bias: (K,) float32.
        multi_label: rows may have several labels or none; needs "logistic".

    Raises:
        ProbeError: the shapes disagree, or softmax is asked for several labels a row.
    """

    loss: Loss
    coef: np.ndarray
    bias: np.ndarray
    multi_label: bool = False

    def __post_init__(self) -> None:
        if self.coef.ndim != 2 or self.bias.shape != self.coef.shape[:1]:
            raise ProbeError(
                f"linear head: coef of shape {self.coef.shape} and bias of shape "
                f"{self.bias.shape}; give (K, D) and (K,)"
            )
        if self.multi_label and self.loss != "logistic":
            raise ProbeError(
                f"linear head: several labels a row with the loss {self.loss!r}; use 'logistic'"
            )

    def logits(self, features: np.ndarray) -> np.ndarray:
        """The head's scores.

        Args:
            features: (n, D), of any float dtype.

        Returns:
            (n, K) float32.

        Raises:
            ProbeError: the features have another width than the head.
        """
        if features.ndim != 2 or features.shape[1] != self.coef.shape[1]:
            raise ProbeError(
                f"features of shape {features.shape} given to a head for {self.coef.shape[1]} "
                "features; use the backbone and cut that the head was fitted on"
            )
        return features.astype(np.float32, copy=False) @ self.coef.T + self.bias

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """What the head believes of each row.

        Softmax rows sum to 1. Logistic with one label a row: the sigmoid of each class, divided by
        their sum (as scikit-learn's OneVsRestClassifier; computed from logarithms, so that rows on
        which every sigmoid underflows still sum to 1). Several labels a row: independent sigmoids.

        Args:
            features: (n, D), of any float dtype.

        Returns:
            (n, K) float64.
        """
        return self.probabilities_of(self.logits(features))

    def probabilities_of(self, logits: np.ndarray) -> np.ndarray:
        """(n, K) logits as (n, K) float64 probabilities; see `probabilities`."""
        return probabilities_of(logits, self.loss, multi_label=self.multi_label)


def probabilities_of(logits: np.ndarray, loss: Loss, *, multi_label: bool = False) -> np.ndarray:
    """(n, K) logits as the (n, K) float64 `LinearHead.probabilities` of a head."""
    scores = logits.astype(np.float64)
    if multi_label:
        return np.exp(_log_sigmoid(scores))
    return softmax(scores if loss == "softmax" else _log_sigmoid(scores))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis; small probabilities keep their relative accuracy."""
    P = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return P / P.sum(axis=-1, keepdims=True)


def _log_sigmoid(logits: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -logits)
