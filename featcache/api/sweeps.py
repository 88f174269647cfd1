"""`probe --unfreeze`: the sweep over depth, its records, and the classifier of its advice."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from featcache.api.activations import ensure_cuts
from featcache.api.probe_keeping import keep, question_of, save, save_tuned
from featcache.api.requests import ProbeRequest, Progress
from featcache.api.sweep_records import depth_scores, scratch_score, size_record
from featcache.backbones.factory import is_factory_name
from featcache.backbones.registry import Backbone, load_from_locator
from featcache.classifier.joined import trusted_name
from featcache.errors import ProbeError
from featcache.probing import LabelledRows, Probed, ProbeSpec, crop_views
from featcache.probing.protocols import DEFAULT
from featcache.recipe import PENULTIMATE, sha256_json
from featcache.results import ProbeResult
from featcache.store.cache import Cache
from featcache.store.steps import Steps
from featcache.training.spec import TrainingSpec
from featcache.unfreezing import (
    SweepSpec,
    Swept,
    ladder,
    parse_depths,
    refit,
    sweep,
    sweep_sizes,
)
from featcache.unfreezing.courses import refuse_sizes
from featcache.unfreezing.depths import units_of
from featcache.unfreezing.parts import restricted, split_of
from featcache.unfreezing.pixels import fresh_views

EPOCHS, RATES = 12, (1e-3,)
"""Unless others are asked for."""

UNTRAINED_FACTOR = 10.0
"""Rate of an untrained head over that of the units, as is usual."""


def refuse_sweep(request: ProbeRequest) -> None:
    """Refuse what a sweep cannot be asked beside.

    Raises:
        ProbeError: names the option to leave out.
    """
    if request.unfreeze is None:
        _refuse_without_sweep(request)
        return
    beside = {
        f"--head {request.head}": request.head in ("ridge", "knn"),
        f"--protocol {request.protocol}": request.protocol != DEFAULT,
        f"--cut {request.cut}": request.cut != PENULTIMATE,
        "--init-from-source": bool(request.init_from_source),
    }
    for option, given in beside.items():
        if given:
            raise ProbeError(f"--unfreeze starts from the solved default head; leave out {option}")
    if request.training.live:
        fresh_views(_policy(request), request.augment_seed or 0, 0, 1)  # refuses what is none


def _policy(request: ProbeRequest) -> str:
    """Of fresh views."""
    return request.augment or "standard"


def _refuse_without_sweep(request: ProbeRequest) -> None:
    own = request.training
    asked = {
        "--live": own.live,
        "--image-size": bool(own.image_sizes),
        "--compare-scratch": own.compare_scratch,
    }
    for option, given in asked.items():
        if given:
            raise ProbeError(f"{option} is about training deeper layers; give --unfreeze too")


@dataclass(frozen=True, eq=False)
class CacheSwept:
    """A sweep of a cache, with what it took.

    Attributes:
        cache: with the activations that the depths trained from. backbone: its network.
        spec: what was asked. question: names it. steps: that were finished; to be removed once what
            was found is kept.
        found: by depth.
    """

    cache: Cache
    backbone: Backbone
    spec: SweepSpec
    question: str
    steps: Steps
    found: Swept


def sweep_cache(
    cache: Cache,
    request: ProbeRequest,
    spec: ProbeSpec,
    data: LabelledRows,
    progress: Progress | None,
) -> CacheSwept:
    """Train and judge every depth that is asked for, from activations made where they lack."""
    backbone = backbone_of(cache, request)
    asked = sweep_spec(request, spec, backbone)
    if request.tta is not None:
        asked = replace(asked, crops=crop_views(cache), averaging=request.tta)
    views = data.views.views if data.views else ()
    rungs = ladder(backbone, asked.depths, live=asked.live)[1:]
    refuse_sizes(asked, rungs)
    _refuse_counts(request, asked, data)
    cuts = [rung.cut for rung in rungs if not rung.from_pixels]
    cache = ensure_cuts(
        cache, cuts, views=views, crops=asked.crops, backbone=backbone, progress=progress
    )
    question = question_of(cache, request, spec, data)
    steps = Steps(cache.folder, sha256_json([question, _keys(cache, cuts)])[:12])
    found = sweep(cache, data, backbone, asked, steps, progress)
    return CacheSwept(cache, backbone, asked, question, steps, found)


def _refuse_counts(request: ProbeRequest, asked: SweepSpec, data: LabelledRows) -> None:
    """Refuse numbers of training pictures that cannot be had, before anything is trained."""
    for count in request.training.data_sizes:
        if count is not None:
            restricted(split_of(data, asked), data, count, asked.probe.seed)


def probe_depths(
    cache: Cache,
    request: ProbeRequest,
    spec: ProbeSpec,
    data: LabelledRows,
    probed: Probed,
    result: ProbeResult,
    progress: Progress | None,
) -> ProbeResult:
    """The result of a probe with the sweep in it, kept, and saved at the advised depth."""
    swept = sweep_cache(cache, request, spec, data, progress)
    cache, backbone, asked, steps = swept.cache, swept.backbone, swept.spec, swept.steps
    question, found = swept.question, swept.found
    sizes = _sizes(request, int(found.split.parts[0].train.sum()))
    smaller = sweep_sizes(cache, data, backbone, asked, steps, sizes, progress)
    result = replace(
        result,
        unfreeze=depth_scores(found, data, asked),
        scratch=scratch_score(found, data, asked),
        recommended_depth=_advised(found.recommendation.depth, asked.depths),
        advice=found.recommendation.reason,
        data_sizes=tuple(
            size_record(size, swept, data, asked)
            for size, swept in zip(sizes, smaller, strict=True)
        ),
        warnings=(*result.warnings, *found.warnings),
        result=question,
    )
    result = keep(cache, result, data, probed)
    steps.remove()
    if request.save is None:
        return result
    if not result.recommended_depth:  # depth 0, or undecided: the simplest is kept
        save(cache, request, spec, data, probed, result)
    else:
        tuned = refit(cache, data, backbone, asked, result.recommended_depth, progress)
        (rung,) = (d.rung for d in found.depths if d.rung.depth == result.recommended_depth)
        save_tuned(cache, request, data, backbone, rung, tuned, result)
    return replace(result, saved=os.fspath(request.save))


def backbone_of(cache: Cache, request: ProbeRequest) -> Backbone:
    """The cache's network; one that runs code of a person's own must be vouched for."""
    manifest = cache.manifest
    name = trusted_name(manifest.backbone["name"], request.backbone)
    return load_from_locator(
        name, manifest.backbone["locator"], preprocessing=manifest.recipe.preprocessing
    )


def sweep_spec(request: ProbeRequest, spec: ProbeSpec, backbone: Backbone) -> SweepSpec:
    """What is asked of a sweep.

    Raises:
        ProbeError, TrainingError: a value that cannot be asked for.
    """
    own, training = request.training, training_spec(request, EPOCHS)
    *smaller, last = own.image_sizes or ((None, training.epochs),)
    _refuse_size(last[0], backbone)
    if own.compare_scratch and is_factory_name(backbone.name):
        raise ProbeError(
            f"{backbone.name}: random weights of a network of one's own are its factory's to make; "
            "leave out --compare-scratch"
        )
    return SweepSpec(
        depths=parse_depths(request.unfreeze or "", units_of(backbone)),
        probe=spec,
        training=replace(training, epochs=last[1]),
        rates=own.rates or RATES,
        seeds=own.seeds,
        folds=request.folds,
        held_out=own.held_out,
        solved_start=own.solved_start,
        progressive=own.progressive,
        margin=request.margin,
        live=own.live,
        policy=_policy(request),
        view_seed=request.augment_seed or 0,
        smaller=tuple(smaller),
        scratch=own.compare_scratch,
    )


def _refuse_size(side: int | None, backbone: Backbone) -> None:
    """Refuse a last size that is not the one at which everything is judged."""
    size = backbone.preprocessing.size
    if side is not None and (side, side) != size:
        raise ProbeError(
            f"--image-size ends with {side} pixels; the last size must be the cache's "
            f"{size[0]} x {size[1]}, at which everything is judged, as in 128:2,{size[0]}:3"
        )


def training_spec(request: ProbeRequest, epochs: int) -> TrainingSpec:
    """How to train; so many epochs unless the request says how many.

    Raises:
        TrainingError: a value that cannot be asked for.
    """
    own, fields = request.training, asdict(request.training)
    training: dict[str, Any] = {
        name: fields[name]
        for name in (
            *("optimizer", "schedule", "batch_size", "unit_decay", "weight_decay"),
            *("clip", "mixup", "cutmix", "patience", "batchnorm_moves"),
        )
    }
    return TrainingSpec(
        **training,
        epochs=epochs if own.epochs is None else own.epochs,
        smoothing=own.label_smoothing,
        head_factor=own.head_factor or (1.0 if own.solved_start else UNTRAINED_FACTOR),
        seed=request.seed,
        device=request.device,
        memory=request.memory,
    )


def _keys(cache: Cache, cuts: list[str]) -> list[str]:
    """The streams that depths train from."""
    return [cache.stream(cut, pooling="none").entry.stream.key for cut in cuts]


def _sizes(request: ProbeRequest, everything: int) -> list[int]:
    return [everything if size is None else size for size in request.training.data_sizes]


def _advised(position: int | None, depths: tuple[int, ...]) -> int | None:
    return None if position is None else depths[position]
