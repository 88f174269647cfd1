"""Scores of probabilities against labels, each with its exact definition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score

from featcache.errors import ProbeError

LOG_LOSS_CLIP = 1e-15
"""Probabilities are at least this in the log-loss, so that one row costs at most 34.5 nats."""


@dataclass(frozen=True)
class Scores:
    """What is said of n scored rows (see `score` for the definitions).

    Attributes:
        accuracy: share of rows that are right.
        mean_per_class: mean over classes, or over labels.
        log_loss: nats; None where what was scored are no probabilities.
        n: rows scored.
    """

    accuracy: float
    mean_per_class: float
    log_loss: float | None
    n: int


def score(probabilities: np.ndarray, targets: np.ndarray) -> Scores:
    """Score the probabilities of rows that were held out.

    One label a row: `accuracy`, `mean_per_class` and `log_loss` of this module. Several labels a
    row: accuracy is the share of rows whose whole label set is right at 0.5, mean_per_class the
    mean average precision over labels that some row has, log_loss the mean over rows and labels
    of the two-class log-loss.

    Args:
        probabilities: (n, K).
        targets: (n,) int codes, or (n, K) bool labels.

    Raises:
        ProbeError: there is no row, or the arrays disagree.
    """
    _check(probabilities, targets)
    right = float(correct(probabilities, targets).mean())
    if targets.ndim == 2:
        by_class = _mean_average_precision(probabilities, targets)
    else:
        by_class = mean_per_class(probabilities.argmax(axis=1), targets)
    return Scores(right, by_class, log_loss(probabilities, targets), len(targets))


def correct(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Which rows are right.

    Args:
        probabilities: (n, K).
        targets: (n,) int codes: the most probable class is it (the first of equals); (n, K) bool:
            every label is on the right side of 0.5 (predicted where above it).

    Returns:
        (n,) bool.
    """
    if targets.ndim == 2:
        return ((probabilities > 0.5) == targets).all(axis=1)
    return probabilities.argmax(axis=1) == targets


def losses(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log(probability of what was given) of each row, clipped at `LOG_LOSS_CLIP`, in nats.

    Args:
        probabilities: (n, K).
        targets: (n,) int codes; or (n, K) bool, where a row's loss is the mean over labels.

    Returns:
        (n,) float64.
    """
    if targets.ndim == 2:
        given = np.where(targets, probabilities, 1 - probabilities)
        return -np.log(np.clip(given, LOG_LOSS_CLIP, 1.0)).mean(axis=1)
    given = probabilities[np.arange(len(targets)), targets]
    return -np.log(np.clip(given, LOG_LOSS_CLIP, 1.0))


def log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean of `losses`."""
    return float(losses(probabilities, targets).mean())


def accuracy(predicted: np.ndarray, targets: np.ndarray) -> float:
    """Share of rows whose predicted code (n,) is the given one (n,)."""
    return float(np.mean(predicted == targets))


def mean_per_class(predicted: np.ndarray, targets: np.ndarray) -> float:
    """Recall of each class, averaged over the classes that have rows; codes (n,) and (n,)."""
    rows = np.bincount(targets)
    right = np.bincount(targets[predicted == targets], minlength=len(rows))
    return float(np.mean(right[rows > 0] / rows[rows > 0]))


def confusion(predicted: np.ndarray, targets: np.ndarray, n_classes: int) -> np.ndarray:
    """(K, K) int64 counts: rows are the given classes, columns the predicted ones."""
    cells = np.bincount(targets * n_classes + predicted, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def _mean_average_precision(probabilities: np.ndarray, targets: np.ndarray) -> float:
    present = np.flatnonzero(targets.any(axis=0))
    if not len(present):
        raise ProbeError(f"none of the {len(targets)} scored rows has a label; label some of them")
    return float(
        np.mean([average_precision_score(targets[:, k], probabilities[:, k]) for k in present])
    )


def _check(probabilities: np.ndarray, targets: np.ndarray) -> None:
    expected = probabilities.shape[: targets.ndim]
    if probabilities.ndim != 2 or targets.shape != expected or not len(targets):
        raise ProbeError(
            f"probabilities of shape {probabilities.shape} for targets of shape {targets.shape}; "
            "give (n, K) and (n,) or (n, K), with at least one row"
        )
    if not np.isfinite(probabilities).all():
        raise ProbeError("probabilities to be scored are not finite; check the features")
