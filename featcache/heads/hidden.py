"""New hidden units between the features and a linear head: what makes the head an MLP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featcache.errors import ProbeError


@dataclass(frozen=True, eq=False)
class HiddenUnits:
    """One linear layer and a ReLU; what dropout there was in training is gone.

    Attributes:
        coef: (H, D) float32.
        bias: (H,) float32.

    Raises:
        ProbeError: the shapes disagree.
    """

    coef: np.ndarray
    bias: np.ndarray

    def __post_init__(self) -> None:
        if self.coef.ndim != 2 or self.bias.shape != self.coef.shape[:1]:
            raise ProbeError(
                f"hidden units: coef of shape {self.coef.shape} and bias of shape "
                f"{self.bias.shape}; give (H, D) and (H,)"
            )

    def activations(self, features: np.ndarray) -> np.ndarray:
        """max(0, features coef' + bias).

        Args:
            features: (n, D), of any float dtype.

        Returns:
            (n, H) float32.

        Raises:
            ProbeError: the features have another width than the units take.
        """
        if features.ndim != 2 or features.shape[1] != self.coef.shape[1]:
            raise ProbeError(
                f"features of shape {features.shape} given to hidden units for "
                f"{self.coef.shape[1]} features; use the backbone they were trained on"
            )
        return np.maximum(0.0, features.astype(np.float32, copy=False) @ self.coef.T + self.bias)
