"""`probe`: a cache to fitted heads, an honest number, and a saved classifier."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.api.requests import PathLike, ProbeRequest, Progress
from featcache.backbones.registry import load_from_locator
from featcache.classifier.files import ClassifierFile
from featcache.classifier.joined import join, trusted_name
from featcache.classifier.parity import CheckedRows, choose_rows, save_checked
from featcache.extraction.pipeline import Slot
from featcache.images.sources import source_from_locator
from featcache.probing import LabelledRows, Probed, ProbeSpec, fit_probe, labelled_rows
from featcache.recipe import sha256_json
from featcache.results import Estimate, PathPoint, ProbeResult
from featcache.store import journal
from featcache.store.cache import Cache
from featcache.store.findings import write_findings
from featcache.store.index import SPLITS


def probe(
    cache: PathLike | ProbeRequest, *, progress: Progress | None = None, **options: Any
) -> ProbeResult:
    """Fit heads on cached features, choose C on held-out rows, and estimate honestly.

    Args:
        cache: a request, or its `cache`.
        progress: called with (stage, done, total).
        **options: the other fields of `ProbeRequest`.

    Raises:
        StoreError: the cache cannot be used. ProbeError: the labels do not allow it.
        ParityError: the classifier to be saved does not give what was measured.
    """
    request = cache if isinstance(cache, ProbeRequest) else ProbeRequest(cache, **options)
    opened = Cache(Path(request.cache), trust=request.trust)
    spec = ProbeSpec(
        loss=request.head,
        folds=request.folds,
        seed=request.seed,
        standardize=request.standardize,
        tolerance=request.tolerance,
    )
    data = labelled_rows(opened, spec.cut)
    probed = fit_probe(data, spec, progress)
    result = _record(opened, request, spec, data, probed)
    if request.save is not None:
        _save(opened, request, spec, data, probed, result)
    _keep(opened, result, data, probed)
    return result


def _record(
    cache: Cache, request: ProbeRequest, spec: ProbeSpec, data: LabelledRows, probed: Probed
) -> ProbeResult:
    estimate = Estimate(
        method=probed.method,
        accuracy=probed.scores.accuracy,
        ci95=(probed.interval.lo, probed.interval.hi),
        mean_per_class=probed.scores.mean_per_class,
        log_loss=probed.scores.log_loss,
        n=probed.scores.n,
    )
    tested = bool((probed.judged & (data.splits == SPLITS.index("test"))).any())
    return ProbeResult(
        head=spec.loss,
        n_train=int(probed.trained.sum()),
        n_test=int(probed.judged.sum()) if tested else 0,
        classes=data.classes,
        path=tuple(PathPoint(C, s.accuracy, s.log_loss) for C, s in probed.path),
        best_C=probed.fit.C,
        estimate=estimate,
        test=estimate if tested else None,
        gap=probed.fit.gap,
        converged=probed.converged,
        confusion=tuple(tuple(row) for row in probed.confusion.tolist()),
        seconds=round(probed.seconds, 3),
        cache=os.fspath(cache.folder),
        cut=spec.cut,
        saved=os.fspath(request.save) if request.save is not None else None,
        result=_identity(cache, spec),
        warnings=probed.warnings,
    )


def _identity(cache: Cache, spec: ProbeSpec) -> str:
    """Names the findings of this question to these rows; asking again replaces them."""
    entry = cache.manifest.index
    stream = cache.stream(spec.cut).entry
    question = {
        "index": entry.sha256 if entry else None,
        "stream": stream.stream.key,
        "shards": [s.sha256 for s in stream.shards],
        "spec": {
            "loss": spec.loss,
            "folds": spec.folds,
            "inner_folds": spec.inner_folds,
            "seed": spec.seed,
            "standardize": spec.standardize,
            "tolerance": spec.tolerance,
            "cut": spec.cut,
        },
    }
    return sha256_json(question)[:12]


def _keep(cache: Cache, result: ProbeResult, data: LabelledRows, probed: Probed) -> None:
    """Keep the findings in the cache, with held-out probabilities row by row."""
    rows: dict[str, npt.NDArray[Any]] = {
        "row": data.rows,
        "hashes": cache.index.hashes[data.rows],
        "targets": data.targets.astype(np.uint8 if data.targets.dtype == bool else np.int64),
        "judged": probed.judged.astype(np.uint8),
        "trained": probed.trained.astype(np.uint8),
        "probabilities": probed.probabilities,
        "coef": probed.head.coef,
        "bias": probed.head.bias,
    }
    record = {k: v for k, v in result.to_json().items() if k not in ("seconds", "saved", "cache")}
    write_findings(cache.folder, result.result or "", record, rows)
    journal.note(cache.folder, "probe", result=result.result, seconds=result.seconds)


def _save(
    cache: Cache,
    request: ProbeRequest,
    spec: ProbeSpec,
    data: LabelledRows,
    probed: Probed,
    result: ProbeResult,
) -> None:
    """Write the classifier, checked against the cached logits from pixels."""
    manifest, reader = cache.manifest, cache.stream(spec.cut)
    name = trusted_name(manifest.backbone["name"], request.backbone)
    tensors = {}
    if request.embed_backbone:
        locator, preprocessing = manifest.backbone["locator"], manifest.recipe.preprocessing
        tensors = load_from_locator(name, locator, preprocessing=preprocessing).state()
    content = ClassifierFile(
        head=probed.head,
        classes=data.classes,
        recipe=manifest.recipe,
        stream=reader.entry.stream,
        backbone=manifest.backbone,
        measured={"estimate": result.to_json()["estimate"], "result": result.result},
        backbone_tensors=tensors,
    )
    chosen = choose_rows(len(data))
    rows = CheckedRows(
        source=source_from_locator(manifest.source),
        slots=[
            Slot(cache.index.hashes[row].tobytes(), cache.index.paths[int(row)])
            for row in data.rows[chosen]
        ],
        features=data.features[chosen],
    )
    save_checked(
        Path(request.save or ""), content, lambda read: join(read, backbone=request.backbone), rows
    )
