"""`probe`: a cache to fitted heads, an honest number, and a saved classifier."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.api.requests import PathLike, ProbeRequest, Progress, as_request
from featcache.backbones.registry import load_from_locator
from featcache.classifier.files import ClassifierFile
from featcache.classifier.joined import join, trusted_name
from featcache.classifier.parity import CheckedRows, choose_rows, save_checked
from featcache.errors import ClassifierError, SourceMissingError, StoreError
from featcache.extraction.pipeline import Slot
from featcache.images.sources import source_from_locator
from featcache.probing import LabelledRows, Probed, ProbeSpec, fit_probe, labelled_rows
from featcache.recipe import sha256_json
from featcache.results import Estimate, PathPoint, ProbeResult
from featcache.store import journal
from featcache.store.cache import Cache
from featcache.store.findings import write_findings
from featcache.store.index import SPLITS

log = logging.getLogger(__name__)


def probe(
    cache: PathLike | ProbeRequest, *, progress: Progress | None = None, **options: Any
) -> ProbeResult:
    """Fit heads on cached features, choose C on held-out rows, and estimate honestly.

    What was found is kept in the cache, row by row; if a classifier then cannot be saved, the
    findings are there all the same.

    Args:
        cache: a request, or its `cache`.
        progress: called with (stage, done, total).
        **options: the other fields of `ProbeRequest`.

    Raises:
        StoreError: the cache cannot be used. ProbeError: the labels do not allow it.
        ClassifierError: the classifier cannot be saved there, or runs code nobody vouched for.
        ParityError: the classifier to be saved does not give what was measured.
        SourceMissingError: the pictures are gone, so a classifier to be saved cannot be checked.
    """
    request = as_request(ProbeRequest, cache, options)
    opened = Cache(Path(request.cache), trust=request.trust)
    _refuse_early(opened, request)
    spec = ProbeSpec(
        loss=request.head,
        folds=request.folds,
        seed=request.seed,
        standardize=request.standardize,
        tolerance=request.tolerance,
        balanced=request.class_weight == "balanced",
        smoothing=request.label_smoothing,
        memory=request.memory,
        device=request.device,
    )
    data = labelled_rows(opened, spec.cut)
    probed = fit_probe(data, spec, progress)
    result = _keep(opened, _record(opened, spec, data, probed), data, probed)
    if request.save is None:
        return result
    _save(opened, request, spec, data, probed, result)
    return replace(result, saved=os.fspath(request.save))


def _refuse_early(cache: Cache, request: ProbeRequest) -> None:
    """Refuse what could never be saved before minutes are spent on fitting it."""
    if request.save is None:
        return
    trusted_name(cache.manifest.backbone["name"], request.backbone)
    if Path(request.save).is_dir():
        raise ClassifierError(
            f"{request.save}: is a folder; name the file to be written, such as "
            f"{Path(request.save) / 'my.fc'}"
        )


def _record(cache: Cache, spec: ProbeSpec, data: LabelledRows, probed: Probed) -> ProbeResult:
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
        path=tuple(PathPoint(**asdict(point)) for point in probed.path),
        one_error_C=probed.one_error_C,
        best_C=probed.fit.C,
        estimate=estimate,
        test=estimate if tested else None,
        gap=probed.fit.gap,
        converged=probed.converged,
        confusion=tuple(tuple(row) for row in probed.confusion.tolist()),
        seconds=round(probed.seconds, 3),
        cache=os.fspath(cache.folder),
        cut=spec.cut,
        multi_label=probed.head.multi_label,
        result=_identity(cache, spec, data),
        warnings=probed.warnings,
    )


def _identity(cache: Cache, spec: ProbeSpec, data: LabelledRows) -> str:
    """Names the findings of this question to these pictures; asking again replaces them."""
    question = {
        "stream": cache.stream(spec.cut).entry.stream.key,
        "classes": data.classes,
        "rows": _rows_sha256(cache, data),
        "spec": {
            "loss": spec.loss,
            "folds": spec.folds,
            "inner_folds": spec.inner_folds,
            "seed": spec.seed,
            "standardize": spec.standardize,
            "tolerance": spec.tolerance,
            "balanced": spec.balanced,
            "smoothing": spec.smoothing,
            "cut": spec.cut,
        },
    }
    return sha256_json(question)[:12]


def _rows_sha256(cache: Cache, data: LabelledRows) -> str:
    """Hex sha256 of which contents were probed, with which labels, splits and groups."""
    digest = hashlib.sha256()
    for values in (cache.index.hashes[data.rows], data.targets, data.splits, data.groups):
        digest.update(f"{values.dtype.str} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _keep(cache: Cache, result: ProbeResult, data: LabelledRows, probed: Probed) -> ProbeResult:
    """Keep the findings in the cache, with held-out probabilities row by row.

    A cache that cannot be written (somebody else's, a read-only disk) can be probed all the same:
    the result then has no identity, and says so.
    """
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
    try:
        write_findings(cache.folder, result.result or "", record, rows)
    except StoreError as error:
        log.info("findings not kept: %s", error)
        unkept = f"the findings are not kept in the cache ({error})"
        return replace(result, result=None, warnings=(*result.warnings, unkept))
    journal.note(cache.folder, "probe", result=result.result, seconds=result.seconds)
    return result


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
    path = Path(request.save or "")
    tensors = {}
    if request.embed_backbone:
        name = trusted_name(manifest.backbone["name"], request.backbone)
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
    slots = [
        Slot(cache.index.hashes[row].tobytes(), cache.index.paths[int(row)])
        for row in data.rows[chosen]
    ]
    try:
        rows = CheckedRows(source_from_locator(manifest.source), slots, data.features[chosen])
        save_checked(path, content, lambda read: join(read, backbone=request.backbone), rows)
    except SourceMissingError as error:
        raise SourceMissingError(
            f"{path}: not saved, since it cannot be checked from pixels: {error}"
        ) from error
