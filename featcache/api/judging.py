"""What a cache's heads say of the pictures that were held out: probed, or trained deeper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.api.probe_keeping import keep, question_of
from featcache.api.probe_records import record_of
from featcache.api.probes import spec_of
from featcache.api.requests import ProbeRequest, Progress
from featcache.api.sweeps import sweep_cache
from featcache.errors import CacheDamagedError, CacheMissingError
from featcache.evaluation.metrics import correct
from featcache.probing import LabelledRows, Probed, ProbeSpec, fit_probe
from featcache.results import ProbeResult
from featcache.store import journal
from featcache.store.cache import Cache
from featcache.store.findings import read_findings


def _nothing() -> None:
    pass


@dataclass(frozen=True, eq=False)
class Judged:
    """Heads on pictures that were held out.

    Attributes:
        right: (S, n) bool, by training seed; one of what is solved.
        hashes: (n, 32) uint8 of the pictures. groups: (n,) ids.
        classes: names. method: what was held out, and how.
        accuracy, ci95, mean_per_class, log_loss: as in `Estimate`.
        train_accuracy: on the pictures that the heads were fitted on.
        seconds: None where nothing tells. result: of the findings; None where none are kept.
        warnings: what a person should know.
        forget: removes what was kept to go on from.
    """

    right: npt.NDArray[np.bool_]
    hashes: npt.NDArray[np.uint8]
    groups: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    method: str
    accuracy: float
    ci95: tuple[float, float]
    mean_per_class: float
    log_loss: float | None
    train_accuracy: float | None
    seconds: float | None
    result: str | None
    warnings: tuple[str, ...]
    forget: Callable[[], None] = field(default=_nothing)


def judged_by_probe(
    cache: Cache, request: ProbeRequest, data: LabelledRows, progress: Progress | None
) -> Judged:
    """Of the head alone; where the very question was asked before, what was found then."""
    spec = spec_of(request)
    question = question_of(cache, request, spec, data)
    return _kept(cache, question, data) or _probed(cache, request, spec, data, question, progress)


def _kept(cache: Cache, question: str, data: LabelledRows) -> Judged | None:
    """What an earlier probe found; None where there is none, or one that lacks something."""
    try:
        record, rows = read_findings(cache.folder, question)
        judged, given = rows["judged"].astype(bool), rows["probabilities"]
        estimate = record["estimate"]
        return Judged(
            right=correct(given[judged], data.targets[judged])[None],
            hashes=data.hashes[judged],
            groups=data.groups[judged],
            classes=data.classes,
            method=str(estimate["method"]),
            accuracy=float(estimate["accuracy"]),
            ci95=(float(estimate["ci95"][0]), float(estimate["ci95"][1])),
            mean_per_class=float(estimate["mean_per_class"]),
            log_loss=float(estimate["log_loss"]),
            train_accuracy=float(record["train_accuracy"]),
            seconds=_seconds_of(cache, question),
            result=question,
            warnings=tuple(map(str, record["warnings"])),
        )
    except (CacheMissingError, CacheDamagedError, KeyError, TypeError, ValueError, IndexError):
        return None


def _seconds_of(cache: Cache, question: str) -> float | None:
    """Of fitting, as the log tells."""
    lines = journal.every(cache.folder, "probe")
    told: list[Any] = [line.get("seconds") for line in lines if line.get("result") == question]
    return float(told[-1]) if told and isinstance(told[-1], int | float) else None


def _probed(
    cache: Cache,
    request: ProbeRequest,
    spec: ProbeSpec,
    data: LabelledRows,
    question: str,
    progress: Progress | None,
) -> Judged:
    probed = fit_probe(data, spec, progress)
    made = record_of(cache, request, spec, data, probed)
    return _of_probed(data, probed, keep(cache, replace(made, result=question), data, probed))


def _of_probed(data: LabelledRows, probed: Probed, result: ProbeResult) -> Judged:
    judged, estimate = probed.judged, result.estimate
    return Judged(
        right=correct(probed.probabilities[judged], data.targets[judged])[None],
        hashes=data.hashes[judged],
        groups=data.groups[judged],
        classes=data.classes,
        method=estimate.method,
        accuracy=estimate.accuracy,
        ci95=estimate.ci95,
        mean_per_class=estimate.mean_per_class,
        log_loss=estimate.log_loss,
        train_accuracy=probed.train_accuracy,
        seconds=result.seconds,
        result=result.result,
        warnings=result.warnings,
    )


def judged_by_sweep(
    cache: Cache, request: ProbeRequest, data: LabelledRows, progress: Progress | None
) -> Judged:
    """Of the deepest depth that the request asks for; its steps are kept until it says `forget`."""
    swept = sweep_cache(cache, request, spec_of(request), data, progress)
    found, rows = swept.found.depths[-1], swept.found.judged
    return Judged(
        right=found.right,
        hashes=data.hashes[rows],
        groups=data.groups[rows],
        classes=data.classes,
        method=swept.found.split.method,
        accuracy=found.scores.accuracy,
        ci95=(found.interval.lo, found.interval.hi),
        mean_per_class=found.scores.mean_per_class,
        log_loss=found.scores.log_loss,
        train_accuracy=found.train_accuracy,
        seconds=round(found.seconds, 3),
        result=None,
        warnings=swept.found.warnings,
        forget=swept.steps.remove,
    )
