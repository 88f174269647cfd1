"""From what a probe found to the records it returns."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from featcache.api.kept_results import result_named
from featcache.api.requests import PathLike, ProbeRequest, options_given
from featcache.errors import CacheDamagedError, ProbeError
from featcache.evaluation.calibration import calibration
from featcache.evaluation.intervals import accuracy_interval
from featcache.evaluation.metrics import correct
from featcache.evaluation.paired import PairedDifference, compare
from featcache.evaluation.suspects import suspects
from featcache.probing import FewShots, LabelledRows, Probed, ProbeSpec, ShotScore, TtaScore
from featcache.probing.protocols import DEFAULT, find_protocol
from featcache.results import (
    Calibration,
    Comparison,
    Difference,
    Estimate,
    LayerScore,
    Overlap,
    PathPoint,
    ProbeResult,
    Shots,
    Suspect,
    Tta,
    ViewSet,
)
from featcache.store.cache import Cache
from featcache.store.findings import read_findings
from featcache.store.index import SPLITS

Bools = npt.NDArray[np.bool_]


def record_of(
    cache: Cache, request: ProbeRequest, spec: ProbeSpec, data: LabelledRows, probed: Probed
) -> ProbeResult:
    """The estimate and what belongs to it."""
    estimate = _estimate(probed)
    tested = bool((probed.judged & (data.splits == SPLITS.index("test"))).any())
    chosen = probed.path[probed.best] if probed.path else None
    return ProbeResult(
        head=fitted_head(request),
        protocol=request.protocol,
        n_train=int(probed.trained.sum()),
        n_test=int(probed.judged.sum()) if tested else 0,
        classes=data.classes,
        path=tuple(PathPoint(**asdict(point)) for point in probed.path),
        best_C=chosen.C if chosen else None,
        best_neighbours=chosen.neighbours if chosen else None,
        one_error_C=probed.one_error_C,
        estimate=estimate,
        test=estimate if tested else None,
        gap=probed.fit.gap if probed.fit else None,
        converged=probed.converged,
        confusion=tuple(tuple(row) for row in probed.confusion.tolist()),
        seconds=round(probed.seconds, 3),
        cache=os.fspath(cache.folder),
        cut=spec.cut,
        calibration=_calibration(data, probed),
        overlaps=tuple(_overlaps(cache, data)),
        multi_label=data.targets.ndim == 2,
        views=ViewSet.all_of(data.views.views if data.views else ()),
        asked=options_given(request),
        train_accuracy=probed.train_accuracy,
        warnings=probed.warnings,
    )


def fitted_head(request: ProbeRequest) -> str:
    """The kind of head that a probe fits: a protocol brings its own.

    Raises:
        ProbeError: no such protocol.
    """
    return request.head if request.protocol == DEFAULT else find_protocol(request.protocol).head


def record_of_shots(
    cache: Cache, request: ProbeRequest, spec: ProbeSpec, data: LabelledRows, found: FewShots
) -> ProbeResult:
    """A protocol of support sets; its estimate is that of the most shots."""
    shots, last = shots_of(found.shots, data), found.shots[-1]
    losses = [scores.log_loss for scores in last.scores if scores.log_loss is not None]
    estimate = Estimate(
        method=f"{shots[-1].shots} shots; {shots[-1].method}",
        accuracy=shots[-1].mean,
        ci95=shots[-1].ci95,
        mean_per_class=shots[-1].mean_per_class,
        log_loss=float(np.mean(losses)) if losses else None,
        n=last.scores[0].n,
    )
    return ProbeResult(
        head=fitted_head(request),
        protocol=request.protocol,
        n_train=min(last.shots or len(data), len(data)) * len(data.classes),
        n_test=estimate.n,
        classes=data.classes,
        path=(),
        best_C=None,
        one_error_C=None,
        estimate=estimate,
        test=estimate,
        gap=found.worst_gap,
        converged=not found.missed,
        confusion=(),
        seconds=round(found.seconds, 3),
        cache=os.fspath(cache.folder),
        cut=spec.cut,
        overlaps=tuple(_overlaps(cache, data)),
        shots=shots,
        asked=options_given(request),
        warnings=found.warnings,
    )


def _estimate(probed: Probed) -> Estimate:
    return Estimate(
        method=f"{probed.method}; interval: {probed.interval.method}",
        accuracy=probed.scores.accuracy,
        ci95=(probed.interval.lo, probed.interval.hi),
        mean_per_class=probed.scores.mean_per_class,
        log_loss=probed.scores.log_loss,
        n=probed.scores.n,
    )


def _calibration(data: LabelledRows, probed: Probed) -> Calibration | None:
    """Of the rows of the estimate; None for scores that are no probabilities, and for too few."""
    given, groups = probed.probabilities[probed.judged], data.groups[probed.judged]
    if np.isnan(given).any() or len(np.unique(groups)) < 2:
        return None
    return Calibration(**asdict(calibration(given, data.targets[probed.judged], groups)))


def _overlaps(cache: Cache, data: LabelledRows) -> Iterator[Overlap]:
    """Pictures with the same bytes that stand in different splits, or have different labels."""
    rows: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, content in enumerate(data.hashes):
        rows[content.tobytes()].append(row)
    for same in rows.values():
        labels = {data.targets[row].tobytes() for row in same}
        splits = {int(data.splits[row]) for row in same}
        if len(labels) > 1 or len(splits) > 1:
            yield Overlap(
                tuple(cache.index.paths[int(data.rows[row])] for row in same),
                tuple(_labels(data, row) for row in same),
                tuple(_split(int(data.splits[row])) for row in same),
            )


def _labels(data: LabelledRows, row: int) -> str:
    target = data.targets[row]
    if data.targets.ndim == 1:
        return data.classes[int(target)]
    return ";".join(data.classes[k] for k in np.flatnonzero(target).tolist())


def _split(code: int) -> str:
    return SPLITS[code] if code >= 0 else ""


def suspects_of(
    cache: Cache, data: LabelledRows, probed: Probed, count: int
) -> tuple[Suspect, ...]:
    """The rows whose label is most likely wrong, by held-out probabilities; at most `count`.

    Raises:
        ProbeError: several labels a picture, or a head without probabilities.
    """
    rows = np.flatnonzero(~np.isnan(probed.probabilities).any(axis=1))
    if not len(rows):
        raise ProbeError("suspects need held-out probabilities; use a softmax or logistic head")
    given, targets = probed.probabilities[rows], data.targets[rows]
    found = suspects(given, targets)
    return tuple(
        Suspect(
            path=cache.index.paths[int(data.rows[rows[i]])],
            given=data.classes[int(targets[i])],
            suggested=data.classes[int(found.suggested[i])],
            probability_given=float(given[i, targets[i]]),
            probability_suggested=float(given[i, found.suggested[i]]),
        )
        for i in found.flagged[:count].tolist()
    )


def shots_of(found: tuple[ShotScore, ...], data: LabelledRows) -> tuple[Shots, ...]:
    """Mean, spread and interval over the seeds.

    The interval is Student's t over seeds: it speaks of support sets, not of the rows measured on.
    Of one head, where all pictures train, it is Wilson's on the rows.
    """
    return tuple(_shots(score) for score in found)


def _shots(found: ShotScore) -> Shots:
    accuracies = np.array([scores.accuracy for scores in found.scores])
    mean, seeds = float(accuracies.mean()), len(accuracies)
    if seeds == 1:
        n = found.scores[0].n
        interval = accuracy_interval(np.arange(n) < round(mean * n))
        ends, std, how = (interval.lo, interval.hi), None, interval.method
    else:
        std = float(accuracies.std(ddof=1))
        half = float(t.ppf(0.975, seeds - 1)) * std / np.sqrt(seeds)
        ends, how = (max(0.0, mean - half), min(1.0, mean + half)), "Student's t over the seeds"
    return Shots(
        shots="all" if found.shots is None else found.shots,
        mean=mean,
        std=std,
        ci95=ends,
        seeds=seeds,
        mean_per_class=float(np.mean([scores.mean_per_class for scores in found.scores])),
        method=f"{found.method}; interval: {how}",
    )


def layer_of(
    cut: str, data: LabelledRows, probed: Probed, base: LabelledRows, against: Probed
) -> LayerScore:
    """One cut, and its difference to the probe that it stands beside."""
    difference = None
    if probed is not against:
        difference = _difference(_right(data, probed), _right(base, against))
    return LayerScore(
        cut=cut,
        width=data.features.shape[1],
        accuracy=probed.scores.accuracy,
        ci95=(probed.interval.lo, probed.interval.hi),
        mean_per_class=probed.scores.mean_per_class,
        log_loss=probed.scores.log_loss,
        best_C=probed.path[probed.best].C,
        gap=probed.fit.gap if probed.fit else None,
        seconds=round(probed.seconds, 3),
        difference=difference,
        views=1 + len(data.views.views) if data.views else 1,
    )


def tta_of(data: LabelledRows, probed: Probed, found: TtaScore) -> Tta:
    """What crops gained on the rows of the estimate."""
    rows = probed.judged
    with_crops, plain = (
        correct(p[rows], data.targets[rows]) for p in (found.probabilities, probed.probabilities)
    )
    gain = compare(with_crops, plain, data.groups[rows])
    return Tta(
        how=found.how,
        crops=found.crops,
        accuracy=found.scores.accuracy,
        mean_per_class=found.scores.mean_per_class,
        log_loss=found.scores.log_loss,
        gain=Difference(gain.difference, gain.ci95, gain.p_value, gain.method, int(rows.sum())),
    )


class _Right(dict[bytes, tuple[bool, int]]):
    """By content: whether the held-out row was right, and its group."""


def _right(data: LabelledRows, probed: Probed) -> _Right:
    rows = np.flatnonzero(probed.judged)
    given = probed.probabilities[rows]
    if np.isnan(given).any():
        raise ProbeError("only heads with held-out probabilities are compared; not ridge")
    right = correct(given, data.targets[rows])
    return _Right(
        (data.hashes[row].tobytes(), (bool(ok), int(data.groups[row])))
        for row, ok in zip(rows.tolist(), right.tolist(), strict=True)
    )


def _difference(ours: _Right, theirs: _Right) -> Difference:
    """Of the pictures that both held out."""
    both = [content for content in ours if content in theirs]
    if not both:
        raise ProbeError(
            "the two probes held no picture in common out, so they say nothing paired; compare "
            "probes of the same pictures"
        )
    a, b = (np.array([side[content][0] for content in both]) for side in (ours, theirs))
    groups = np.array([ours[content][1] for content in both])
    found: PairedDifference = compare(a, b, groups)
    return Difference(found.difference, found.ci95, found.p_value, found.method, len(both))


def comparison_of(other: PathLike, data: LabelledRows, probed: Probed) -> Comparison:
    """This probe beside an earlier one of the same pictures, in another cache or in this one.

    Args:
        other: a cache, whose last result is taken, or `CACHE:RESULT`.
        data: the rows of this probe.
        probed: what it found.

    Raises:
        CacheMissingError: there is no such result.
        ProbeError: the two have no held-out picture in common, or no probabilities.
    """
    folder, identity = result_named(os.fspath(other))
    record, rows = read_findings(folder, identity)
    if "probabilities" not in rows:
        raise ProbeError(f"result {identity!r} is of support sets and has no held-out rows")
    try:
        theirs = _kept(record, rows)
        head, accuracy = str(record["head"]), float(record["estimate"]["accuracy"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, ProbeError):
            raise
        raise CacheDamagedError(
            f"{folder}: result {identity!r} is none of this featcache ({error}); probe it again"
        ) from error
    return Comparison(
        cache=str(folder),
        result=identity,
        head=head,
        accuracy=accuracy,
        difference=_difference(_right(data, probed), theirs),
    )


def _kept(record: dict[str, Any], rows: dict[str, npt.NDArray[Any]]) -> _Right:
    judged = rows["judged"].astype(bool)
    given, targets = rows["probabilities"][judged], rows["targets"][judged]
    if record["multi_label"]:
        targets = targets.astype(bool)
    if np.isnan(given).any():
        raise ProbeError("the other result has no probabilities (ridge); compare with a softmax")
    right = correct(given, targets)
    return _Right(
        (content.tobytes(), (bool(ok), -1))
        for content, ok in zip(rows["hashes"][judged], right.tolist(), strict=True)
    )
