"""What a probe leaves behind: findings in the cache, and a classifier that was checked."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from featcache.api.requests import ProbeRequest
from featcache.backbones.registry import Backbone, load_from_locator
from featcache.classifier.files import ClassifierFile
from featcache.classifier.joined import join, trusted_name
from featcache.classifier.parity import CheckedRows, choose_rows, save_checked
from featcache.classifier.tuned import tuned_tensors
from featcache.errors import SourceMissingError, StoreError
from featcache.extraction.pipeline import Slot
from featcache.heads.linear import LinearHead
from featcache.images.sources import source_from_locator
from featcache.probing import LabelledRows, Probed, ProbeSpec, crop_views
from featcache.recipe import PENULTIMATE, Stream, sha256_json
from featcache.results import ProbeResult
from featcache.store import journal
from featcache.store.cache import Cache
from featcache.store.findings import write_findings
from featcache.training.model import hidden_of, model_of
from featcache.training.trainer import logits_of
from featcache.unfreezing import DepthFit, Rung
from featcache.unfreezing.rows import activations_of

log = logging.getLogger(__name__)


def question_of(cache: Cache, request: ProbeRequest, spec: ProbeSpec, data: LabelledRows) -> str:
    """Names the findings of this question to these pictures; asking again replaces them."""
    question: dict[str, Any] = {
        "stream": cache.stream(spec.cut).entry.stream.key,
        "classes": data.classes,
        "rows": _rows_sha256(cache, data),
        "spec": {
            "head": request.head,
            "protocol": request.protocol,
            "shots": request.shots,
            "seeds": request.seeds if request.shots else None,
            "cuts": request.cut,
            "init_from_source": dict(request.init_from_source),
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
    if request.unfreeze is not None:
        asked = {"depths": request.unfreeze, "folds": request.folds, "margin": request.margin}
        if request.training.live:
            asked |= {"augment": request.augment, "augment_seed": request.augment_seed}
        question["unfreeze"] = asked | asdict(request.training)
    if request.head == "mlp":
        asked = {"hidden": request.hidden, "dropout": request.dropout}
        asked |= {"folds": request.folds, "margin": request.margin}
        question["mlp"] = asked | asdict(request.training)
    if request.tta is not None:
        crops = [view.to_dict() for view in crop_views(cache, spec.cut)]
        question["tta"] = {"how": request.tta, "crops": crops}
    if data.views is not None:
        question["views"] = [view.to_dict() for view in data.views.views]
    return sha256_json(question)[:12]


def _rows_sha256(cache: Cache, data: LabelledRows) -> str:
    """Hex sha256 of which contents were probed, with which labels, splits and groups."""
    digest = hashlib.sha256()
    for values in (cache.index.hashes[data.rows], data.targets, data.splits, data.groups):
        digest.update(f"{values.dtype.str} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def keep(
    cache: Cache, result: ProbeResult, data: LabelledRows, probed: Probed | None
) -> ProbeResult:
    """Keep the findings in the cache, with held-out probabilities row by row, if there are any.

    A cache that cannot be written (somebody else's, a read-only disk) can be probed all the same:
    the result then has no identity, and says so.
    """
    rows: dict[str, npt.NDArray[Any]] = {
        "row": data.rows,
        "hashes": data.hashes,
        "targets": data.targets.astype(np.uint8 if data.targets.dtype == bool else np.int64),
    }
    if probed is not None:
        rows |= {
            "judged": probed.judged.astype(np.uint8),
            "trained": probed.trained.astype(np.uint8),
            "probabilities": probed.probabilities,
        }
        if probed.head is not None:
            rows |= {"coef": probed.head.coef, "bias": probed.head.bias}
    record = {k: v for k, v in result.to_json().items() if k not in ("seconds", "saved", "cache")}
    try:
        write_findings(cache.folder, result.result or "", record, rows)
    except StoreError as error:
        log.info("findings not kept: %s", error)
        unkept = f"the findings are not kept in the cache ({error})"
        return replace(result, result=None, warnings=(*result.warnings, unkept))
    journal.note(cache.folder, "probe", result=result.result, seconds=result.seconds)
    return result


def save(
    cache: Cache,
    request: ProbeRequest,
    spec: ProbeSpec,
    data: LabelledRows,
    probed: Probed,
    result: ProbeResult,
) -> None:
    """Write the classifier, checked against the cached logits from pixels."""
    head = cast("LinearHead", probed.head)  # others are refused before they are fitted
    stream = cache.stream(spec.cut).entry.stream
    measured = {"estimate": result.to_json()["estimate"], "result": result.result}
    content = _content(cache, request, data, head, stream, measured)
    chosen = choose_rows(len(data))
    _save(cache, request, data, content, chosen, head.logits(data.features[chosen]))


def save_mlp(
    cache: Cache,
    request: ProbeRequest,
    data: LabelledRows,
    fit: DepthFit,
    result: ProbeResult,
) -> None:
    """Write a classifier with hidden units, checked in the same way."""
    stream = cache.stream(result.cut).entry.stream
    measured = {"estimate": result.to_json()["estimate"], "result": result.result}
    content = replace(
        _content(cache, request, data, fit.head, stream, measured), hidden=hidden_of(fit.tensors)
    )
    chosen = choose_rows(len(data))
    _save(cache, request, data, content, chosen, content.logits(data.features[chosen]))


def save_tuned(
    cache: Cache,
    request: ProbeRequest,
    data: LabelledRows,
    backbone: Backbone,
    rung: Rung,
    fit: DepthFit,
    result: ProbeResult,
) -> None:
    """Write a classifier with a tuned tail, checked in the same way."""
    model = model_of(rung.trainable, fit.head, tuned=fit.tensors, stem=rung.stem)
    score = next(score for score in result.unfreeze if score.depth == rung.depth)
    content = replace(
        _content(
            cache,
            request,
            data,
            fit.head,
            _trained_from(cache, rung),
            {"estimate": asdict(score), "result": result.result},
        ),
        tail=tuned_tensors(model.tail, backbone),
    )
    chosen = choose_rows(len(data))
    some = np.isin(np.arange(len(data)), chosen)
    (given,) = activations_of(cache, data, [rung], backbone.preprocessing)
    logits = logits_of(model, given.examples(data, some))
    _save(cache, request, data, content, chosen, logits)


def _trained_from(cache: Cache, rung: Rung) -> Stream:
    """The stream of the cut; from pixels nothing was rounded below the feature, nor the feature."""
    if rung.from_pixels:
        return replace(cache.stream(PENULTIMATE).entry.stream, dtype="float32")
    return cache.stream(rung.cut, pooling="none").entry.stream


def _content(
    cache: Cache,
    request: ProbeRequest,
    data: LabelledRows,
    head: LinearHead,
    stream: Stream,
    measured: dict[str, Any],
) -> ClassifierFile:
    manifest = cache.manifest
    tensors = {}
    if request.embed_backbone:
        name = trusted_name(manifest.backbone["name"], request.backbone)
        locator, preprocessing = manifest.backbone["locator"], manifest.recipe.preprocessing
        tensors = load_from_locator(name, locator, preprocessing=preprocessing).state()
    return ClassifierFile(
        head=head,
        classes=data.classes,
        recipe=manifest.recipe,
        stream=stream,
        backbone=manifest.backbone,
        measured=measured,
        backbone_tensors=tensors,
    )


def _save(
    cache: Cache,
    request: ProbeRequest,
    data: LabelledRows,
    content: ClassifierFile,
    chosen: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32],
) -> None:
    """Check the content on some rows, and write it."""
    path = Path(request.save or "")
    slots = [
        Slot(cache.index.hashes[row].tobytes(), cache.index.paths[int(row)])
        for row in data.rows[chosen]
    ]
    try:
        rows = CheckedRows(source_from_locator(cache.manifest.source), slots, logits)
        save_checked(path, content, lambda read: join(read, backbone=request.backbone), rows)
    except SourceMissingError as error:
        raise SourceMissingError(
            f"{path}: not saved, since it cannot be checked from pixels: {error}"
        ) from error
