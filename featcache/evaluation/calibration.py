"""Whether probabilities mean what they say, and the one temperature that brings them closer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, logit, softmax

from featcache.errors import ProbeError
from featcache.evaluation.metrics import LOG_LOSS_CLIP, log_loss

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures are sought between these."""


@dataclass(frozen=True)
class Calibration:
    """What one temperature does to n rows (see `calibration`).

    Attributes:
        temperature: fitted on all rows; above 1 where the probabilities were too sure.
        ece_before, ece_after: expected calibration error, from 0 to 1.
        log_loss_before, log_loss_after: nats.
    """

    temperature: float
    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float


def calibration(
    probabilities: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    folds: int = 5,
    seed: int = 0,
) -> Calibration:
    """Calibration error and log-loss before and after temperature scaling.

    "After" is cross-fitted: groups are dealt to min(folds, groups) folds, and the rows of a fold
    are tempered by the temperature of the other folds' rows. No row, and nothing of its group, is
    scored with a temperature it helped to fit, so "after" can be the worse of the two. The
    probabilities must be out-of-fold themselves: those of rows a head trained on say nothing.

    Args:
        probabilities: (n, K).
        targets: (n,) int codes, or (n, K) bool labels.
        groups: (n,) int ids; rows of one id stay together.
        folds: of the cross-fitting, at least 2.
        seed: of the dealing.

    Raises:
        ProbeError: fewer than two groups or folds, or the arrays disagree.
    """
    _check(probabilities, targets)
    several, after = targets.ndim == 2, np.empty(probabilities.shape)
    for held_out in _deal(groups, folds, seed):
        fitted = temperature(probabilities[~held_out], targets[~held_out])
        after[held_out] = tempered(probabilities[held_out], fitted, several_labels=several)
    return Calibration(
        temperature=temperature(probabilities, targets),
        ece_before=expected_calibration_error(probabilities, targets),
        ece_after=expected_calibration_error(after, targets),
        log_loss_before=log_loss(probabilities, targets),
        log_loss_after=log_loss(after, targets),
    )


def temperature(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The T that minimises the mean cross-entropy of `tempered` (Guo et al. 2017, section 4.2).

    The loss is convex in 1/T, so one bounded search of log T finds it. Exactly 1 where nothing is
    gained, as when every row is right with certainty.

    Args:
        probabilities: (n, K).
        targets: (n,) int codes, or (n, K) bool labels.

    Returns:
        From `LOWEST` to `HIGHEST`; near an end where the loss has no minimum between them.

    Raises:
        ProbeError: there is no row, or the arrays disagree.
    """
    _check(probabilities, targets)
    several = targets.ndim == 2
    logits = _logits(probabilities, several)

    def loss(log_t: float) -> float:
        scaled = logits * np.exp(-log_t)
        if several:
            return -float(log_expit(np.where(targets, scaled, -scaled)).mean())
        return -float(log_softmax(scaled, axis=1)[np.arange(len(targets)), targets].mean())

    ends = (np.log(LOWEST), np.log(HIGHEST))
    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x)) if found.fun < loss(0.0) - 1e-12 else 1.0


def tempered(
    probabilities: np.ndarray, temperature: float, *, several_labels: bool = False
) -> np.ndarray:
    """softmax(log p / T) by row; for several labels sigmoid(logit(p) / T) by label.

    Probabilities are first clipped to `LOG_LOSS_CLIP` and 1 - `LOG_LOSS_CLIP`; T = 1 changes
    nothing else in rows that sum to 1. The most probable class stays the most probable.

    Args:
        probabilities: (n, K).
        temperature: T > 0.
        several_labels: whether each column is a label of its own.

    Returns:
        (n, K) float64.
    """
    scaled = _logits(probabilities, several_labels) / temperature
    return expit(scaled) if several_labels else softmax(scaled, axis=1)


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = 15
) -> float:
    """Mean over bins of |share that is right - mean confidence|, weighed by rows (Guo et al. 2017).

    One label a row: the confidence is the row's largest probability (the first of equals is
    predicted). Several: each row-label pair is a case of its own, p its confidence, the given
    label what is right (Naeini et al. 2015). Bin m of M is ((m - 1)/M, m/M], closed above, and 0
    is in the first. Perfect probabilities have an error above 0 too, the more the fewer the rows.

    Args:
        probabilities: (n, K).
        targets: (n,) int codes, or (n, K) bool labels.
        bins: M, of equal width.

    Raises:
        ProbeError: there is no row or no bin, or the arrays disagree.
    """
    _check(probabilities, targets)
    if bins < 1:
        raise ProbeError(f"{bins} bins of a calibration error; give at least 1, such as 15")
    if targets.ndim == 2:
        confidence, right = probabilities.ravel(), targets.ravel()
    else:
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    # "left": what equals an inner edge belongs to the bin below it
    position = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    excess = np.bincount(position, weights=right - confidence.astype(np.float64))
    return float(np.abs(excess).sum() / len(right))


def _logits(probabilities: np.ndarray, several_labels: bool) -> np.ndarray:
    clipped = np.clip(probabilities.astype(np.float64), LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    return logit(clipped) if several_labels else np.log(clipped)


def _deal(groups: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """(n,) bool of the rows that each fold holds out."""
    ids, position = np.unique(groups, return_inverse=True)
    count = min(folds, len(ids))
    if count < 2:
        raise ProbeError(
            f"{len(ids)} groups in {folds} folds; a temperature is judged on at least 2 groups in "
            "at least 2 folds: add pictures, or separate groups that need not stay together"
        )
    deal = (np.random.default_rng(seed).permutation(len(ids)) % count)[position]
    return [deal == fold for fold in range(count)]


def _check(probabilities: np.ndarray, targets: np.ndarray) -> None:
    expected = probabilities.shape[: targets.ndim]
    if probabilities.ndim != 2 or targets.shape != expected or not len(targets):
        raise ProbeError(
            f"probabilities of shape {probabilities.shape} for targets of shape {targets.shape}; "
            "give (n, K) and (n,) or (n, K), with at least one row"
        )
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise ProbeError("probabilities to be calibrated are not all from 0 to 1; check the head")
