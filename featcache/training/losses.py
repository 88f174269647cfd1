"""The loss, stated here and nowhere else; conventions are those of `heads.objective`.

For a batch of b pictures with logits Z (b, K), targets Y (b, K), weights a (b,) whose mean over all
training pictures is 1:

    softmax    1/b sum_i a_i [ logsumexp(z_i) - y_i . z_i ]             rows of Y sum to 1
    logistic   1/b sum_i a_i sum_k [ log(1 + exp(z_ik)) - y_ik z_ik ]   Y from 0 to 1

so that the mean over the batches of an epoch is the heads' objective without its penalty. It is not
divided by the batch's own weights: that would let a picture weigh by the company it was drawn in.

Two classes have two columns, [-w/2, +w/2]; the gradient keeps them opposite.

*Smoothing* s gives (1 - s) Y + s / (number of classes with a row) to those classes (softmax), and
(1 - s) Y + s / 2 to columns that vary (logistic). A class without a training row has a bias that
makes its probability 0 (`CERTAIN_LOGIT`): no gradient reaches it, and no share of a target may.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (its name everywhere)

from featcache.errors import TrainingError
from featcache.heads.linear import Loss


def row_losses(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """(b,) losses of rows, from logits (b, K) and targets (b, K)."""
    if loss == "softmax":
        return -(targets * torch.log_softmax(logits, dim=1)).sum(dim=1)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)


def batch_loss(loss: Loss, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The loss of a batch; see the top of this file."""
    return (weights * row_losses(loss, logits, targets)).mean()


class TargetTable:
    """Targets and weights of all training pictures, given batch by batch.

    Args:
        targets: (n,) int codes, or (n, K) bool labels or shares of classes.
        weights: (n,) of pictures, positive; None weighs all the same.
        classes: K.
        loss: "softmax" or "logistic".
        smoothing: see the top of this file.

    Raises:
        TrainingError: codes, shares or weights that cannot be.
    """

    def __init__(
        self,
        targets: npt.NDArray[Any],
        weights: npt.NDArray[Any] | None,
        classes: int,
        loss: Loss,
        smoothing: float = 0.0,
    ) -> None:
        _check(targets, weights, classes, loss)
        self._targets, self._classes = targets, classes
        scale = np.ones(len(targets)) if weights is None else weights / weights.mean()
        self._weights = torch.from_numpy(scale.astype(np.float32))
        taking_part = _taking_part(targets, classes, loss)
        self._keep = torch.from_numpy(np.where(taking_part, 1 - smoothing, 1)).float()
        share = smoothing / max(taking_part.sum(), 1) if loss == "softmax" else smoothing / 2
        self._share = torch.from_numpy(np.where(taking_part, share, 0)).float()

    def at(self, rows: npt.NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Targets (b, K) and weights (b,) of pictures, float32."""
        some = torch.from_numpy(self._targets[rows])
        dense = some.float() if some.ndim == 2 else F.one_hot(some.long(), self._classes).float()
        weights = self._weights[torch.from_numpy(rows)]
        return (dense * self._keep + self._share).to(device), weights.to(device)


def _taking_part(targets: npt.NDArray[Any], classes: int, loss: Loss) -> npt.NDArray[np.bool_]:
    """(K,) which classes have a row; for labels, which have rows with and rows without."""
    if targets.ndim == 1:
        counts = np.bincount(targets, minlength=classes)
        some, without = counts > 0, counts < len(targets)
    else:
        some, without = np.any(targets > 0, axis=0), np.any(targets < 1, axis=0)
    return some if loss == "softmax" else some & without


def _check(
    targets: npt.NDArray[Any], weights: npt.NDArray[Any] | None, classes: int, loss: Loss
) -> None:
    codes = targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
    if codes and not 0 <= targets.min() <= targets.max() < classes:
        raise TrainingError(
            f"targets from {targets.min()} to {targets.max()} for a head of {classes} classes; "
            f"give codes from 0 to {classes - 1}"
        )
    if not codes and targets.shape[1:] != (classes,):
        raise TrainingError(
            f"targets of shape {targets.shape}, {targets.dtype}, for a head of {classes} classes; "
            "give (n,) codes or (n, K) labels"
        )
    if not codes and not ((targets >= 0) & (targets <= 1)).all():
        raise TrainingError("targets below 0 or above 1; give labels, or shares of classes")
    if not codes and loss == "softmax" and not np.allclose(targets.sum(axis=1), 1):
        raise TrainingError("rows of targets do not sum to 1; several labels need 'logistic'")
    if weights is not None and not _are_weights(weights, len(targets)):
        raise TrainingError(
            f"weights of shape {weights.shape} for {len(targets)} pictures, or not all positive; "
            "give one positive number a picture, and leave out what shall not train"
        )


def _are_weights(weights: npt.NDArray[Any], n: int) -> bool:
    return weights.shape == (n,) and bool(((weights > 0) & np.isfinite(weights)).all())
