"""Class by class: how many were found, how many of what was found are right, what is confused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score

from featcache.evaluation.intervals import accuracy_interval
from featcache.report.rows import ResultRows
from featcache.results import ProbeResult


@dataclass(frozen=True)
class ClassScore:
    """One class on the rows of the estimate.

    Attributes:
        name: of the class. n: rows given it. found: of them predicted as it.
        recall: found / n, None without rows; low, high: its 95% interval (Wilson).
        precision: of what was predicted as it the share that is right; None of none.
        f1: harmonic mean of both.
        average_precision: of several labels, else None.
        confused: what its rows are taken for most, and how often; "" where never.
    """

    name: str
    n: int
    found: int
    recall: float | None
    low: float | None
    high: float | None
    precision: float | None
    f1: float | None
    average_precision: float | None = None
    confused: str = ""
    times: int = 0


@dataclass(frozen=True)
class Confused:
    """Two classes: how many rows given one were predicted as the other, and of how many."""

    given: str
    predicted: str
    count: int
    share: float


def class_scores(result: ProbeResult, rows: ResultRows) -> tuple[ClassScore, ...]:
    """Of the confusion matrix, or of several labels at a half; none where neither was kept."""
    if result.confusion:
        matrix = np.array(result.confusion, np.int64)
        return tuple(_of_matrix(matrix, k, result.classes) for k in range(len(matrix)))
    if rows.several and rows.judged.any():
        given, targets = rows.probabilities[rows.judged], rows.targets[rows.judged]
        return tuple(_of_label(given, targets, k, name) for k, name in enumerate(result.classes))
    return ()


def most_confused(result: ProbeResult, most: int) -> tuple[Confused, ...]:
    """The pairs of classes that are confused most often, at most so many."""
    matrix = np.array(result.confusion, np.int64)
    if not matrix.size:
        return ()
    wrong, given = matrix - np.diag(matrix.diagonal()), matrix.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most].tolist()
    pairs = [divmod(at, len(matrix)) for at in order]
    return tuple(
        Confused(result.classes[i], result.classes[j], int(wrong[i, j]), wrong[i, j] / given[i])
        for i, j in pairs
        if wrong[i, j]
    )


def _of_matrix(matrix: np.ndarray, k: int, classes: tuple[str, ...]) -> ClassScore:
    n, found, taken = int(matrix[k].sum()), int(matrix[k, k]), int(matrix[:, k].sum())
    wrong = np.where(np.arange(len(matrix)) == k, 0, matrix[k])
    most = int(wrong.argmax())
    return ClassScore(
        classes[k],
        n,
        found,
        *_recall(found, n),
        *_precision(found, n, taken),
        confused=classes[most] if wrong[most] else "",
        times=int(wrong[most]),
    )


def _of_label(given: np.ndarray, targets: np.ndarray, k: int, name: str) -> ClassScore:
    said = given[:, k] > 0.5
    n, found, taken = int(targets[:, k].sum()), int((said & targets[:, k]).sum()), int(said.sum())
    ranked = float(average_precision_score(targets[:, k], given[:, k])) if n else None
    return ClassScore(
        name, n, found, *_recall(found, n), *_precision(found, n, taken), average_precision=ranked
    )


def _recall(found: int, n: int) -> tuple[float | None, float | None, float | None]:
    """The share that was found, and its interval."""
    if not n:
        return None, None, None
    interval = accuracy_interval(np.arange(n) < found)
    return found / n, interval.lo, interval.hi


def _precision(found: int, n: int, taken: int) -> tuple[float | None, float | None]:
    """The share of what was predicted that is right, and F1."""
    both = n + taken
    return found / taken if taken else None, 2 * found / both if both else None
