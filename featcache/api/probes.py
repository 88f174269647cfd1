"""`probe`: a cache to fitted heads, an honest number, and a saved classifier."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from featcache.api.mlp_heads import mlp_score, mlp_spec, refuse_mlp
from featcache.api.networks import cuts_by_depth
from featcache.api.probe_keeping import keep, question_of, save, save_mlp
from featcache.api.probe_records import (
    comparison_of,
    fitted_head,
    layer_of,
    record_of,
    record_of_shots,
    shots_of,
    suspects_of,
    tta_of,
)
from featcache.api.requests import PathLike, ProbeRequest, Progress, as_request
from featcache.api.source_rows import source_rows
from featcache.api.sweeps import probe_depths, refuse_sweep
from featcache.classifier.joined import trusted_name
from featcache.errors import ClassifierError, ProbeError
from featcache.probing import (
    FewShots,
    LabelledRows,
    Probed,
    ProbeSpec,
    ViewChoice,
    crop_views,
    cropped_rows,
    few_shots,
    fit_probe,
    fit_screen,
    labelled_rows,
    score_crops,
)
from featcache.probing.protocols import DEFAULT, OF_SHOTS, run_protocol
from featcache.recipe import PENULTIMATE
from featcache.results import LayerScore, ProbeResult
from featcache.store.cache import Cache
from featcache.unfreezing import probe_mlp, refit_mlp

ALL_CUTS = "all"


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
    spec = spec_of(request)
    choice = _choice(request)
    data = labelled_rows(opened, spec.cut, spec.memory, choice)
    if request.head == "mlp":
        return _probe_mlp(opened, request, spec, data, progress)
    if request.init_from_source:
        chosen = request.init_from_source
        prior = source_rows(opened, data.classes, chosen, request.backbone)
        spec = replace(spec, prior=prior)
    probed = _fit(request, data, spec, progress)
    if isinstance(probed, FewShots):
        result = record_of_shots(opened, request, spec, data, probed)
        return keep(opened, _named(result, opened, request, spec, data), data, None)
    result = record_of(opened, request, spec, data, probed)
    result = _with_more(result, opened, request, spec, data, probed, progress)
    if request.unfreeze is not None:
        return probe_depths(opened, request, spec, data, probed, result, progress)
    result = keep(opened, _named(result, opened, request, spec, data), data, probed)
    if request.save is None:
        return result
    save(opened, request, spec, data, probed, result)
    return replace(result, saved=os.fspath(request.save))


def _probe_mlp(
    cache: Cache,
    request: ProbeRequest,
    spec: ProbeSpec,
    data: LabelledRows,
    progress: Progress | None,
) -> ProbeResult:
    """The result of an MLP head, kept, and saved after a refit."""
    asked = mlp_spec(request, spec, data)
    found = probe_mlp(data, asked, progress)
    spec, probed = asked.sweep.probe, found.probed
    result = replace(
        record_of(cache, request, spec, data, probed),
        mlp=mlp_score(asked, found),
        advice=found.recommendation.reason,
    )
    result = _with_more(result, cache, request, spec, data, probed, progress)
    result = keep(cache, _named(result, cache, request, spec, data), data, probed)
    if request.save is None:
        return result
    save_mlp(cache, request, data, refit_mlp(data, asked, found, progress), result)
    return replace(result, saved=os.fspath(request.save))


def _named(
    result: ProbeResult, cache: Cache, request: ProbeRequest, spec: ProbeSpec, data: LabelledRows
) -> ProbeResult:
    return replace(result, result=question_of(cache, request, spec, data))


def spec_of(request: ProbeRequest) -> ProbeSpec:
    """How heads are fitted and judged."""
    return ProbeSpec(
        loss="logistic" if request.head == "logistic" else "softmax",
        folds=request.folds or ProbeSpec.folds,
        seed=request.seed,
        standardize=request.standardize,
        tolerance=request.tolerance,
        balanced=request.class_weight == "balanced",
        smoothing=request.label_smoothing,
        memory=request.memory,
        device=request.device,
        cut=PENULTIMATE if request.cut == ALL_CUTS else request.cut,
    )


def _choice(request: ProbeRequest) -> ViewChoice:
    """The views that train: published protocols and neighbours know the plain one alone."""
    live = request.unfreeze is not None and request.training.live  # then they are of other views
    named = (None, None) if live else (request.augment, request.augment_seed)
    choice = ViewChoice(request.views, *named)
    if request.protocol == DEFAULT and request.head != "knn":
        return choice
    if choice.given:
        what = "head 'knn'" if request.protocol == DEFAULT else f"protocol {request.protocol!r}"
        raise ProbeError(f"{what} takes the plain view alone; leave out --views and --augment")
    return ViewChoice(1)


def _fit(
    request: ProbeRequest, data: LabelledRows, spec: ProbeSpec, progress: Progress | None
) -> Probed | FewShots:
    if request.protocol != DEFAULT:
        return run_protocol(request.protocol, data, spec, progress)
    if request.head in ("ridge", "knn"):
        return fit_screen(request.head, data, spec, progress)
    return fit_probe(data, spec, progress)


def _with_more(
    result: ProbeResult,
    cache: Cache,
    request: ProbeRequest,
    spec: ProbeSpec,
    data: LabelledRows,
    probed: Probed,
    progress: Progress | None,
) -> ProbeResult:
    """What was asked for besides the estimate."""
    if request.suspects:
        result = replace(result, suspects=suspects_of(cache, data, probed, request.suspects))
    if request.shots:
        found = few_shots(data, spec, request.shots, request.seeds, probed, progress)
        warnings = (*result.warnings, *found.warnings)
        result = replace(result, shots=shots_of(found.shots, data), warnings=warnings)
    if request.cut == ALL_CUTS:
        layers = _layers(cache, request, spec, data, probed, progress)
        result = replace(result, layers=layers)
    if request.tta is not None:
        stream, crops = cache.stream(spec.cut).entry.stream, crop_views(cache, spec.cut)
        rows = cropped_rows(cache, stream, crops, data.rows)
        found = score_crops(data, spec, probed, rows, request.tta)
        result = replace(result, tta=tta_of(data, probed, found))
    if request.against is not None:
        result = replace(result, against=comparison_of(request.against, data, probed))
    return result


def _layers(
    cache: Cache,
    request: ProbeRequest,
    spec: ProbeSpec,
    data: LabelledRows,
    probed: Probed,
    progress: Progress | None,
) -> tuple[LayerScore, ...]:
    """Every cached cut with vectors, probed alike, from the pictures up to the feature."""
    found: list[LayerScore] = []
    for cut in cuts_by_depth(cache):
        rows = data
        if cut != spec.cut:
            rows = labelled_rows(cache, cut, spec.memory, _choice(request))
        other = probed
        if cut != spec.cut:
            other = _fit(request, rows, replace(spec, cut=cut), progress)
        if isinstance(other, Probed):
            found.append(layer_of(cut, rows, other, data, probed))
    return tuple(found)


def _refuse_early(cache: Cache, request: ProbeRequest) -> None:
    """Refuse what could never be done before minutes are spent on fitting."""
    head = fitted_head(request)
    refuse_mlp(request)
    if request.protocol != DEFAULT and request.head != "softmax":
        raise ProbeError(
            f"protocol {request.protocol!r} brings its own head; leave out --head {request.head}"
        )
    if request.init_from_source and (request.protocol != DEFAULT or request.cut != PENULTIMATE):
        raise ProbeError(
            "--init-from-source starts the default softmax head on the penultimate feature; leave "
            "out --protocol and --cut"
        )
    if request.tta is not None:
        _refuse_crops(cache, request)
    if request.protocol in OF_SHOTS:
        _refuse_beside_shots(request)
    refuse_sweep(request)
    _refuse_int8(cache, request)
    if request.save is None:
        return
    if head in ("ridge", "knn"):
        raise ProbeError(
            f"head {head!r} is for screening and cannot be saved, since its scores are no "
            "probabilities of a linear head; save a softmax or logistic one"
        )
    if request.cut not in (PENULTIMATE, ALL_CUTS):
        raise ClassifierError(
            f"a head on the cut {request.cut!r} cannot be saved yet; leave out --cut, or --save"
        )
    trusted_name(cache.manifest.backbone["name"], request.backbone)
    if Path(request.save).is_dir():
        raise ClassifierError(
            f"{request.save}: is a folder; name the file to be written, such as "
            f"{Path(request.save) / 'my.fc'}"
        )


def _refuse_int8(cache: Cache, request: ProbeRequest) -> None:
    """What an int8 network is calibrated on stays in its cache; a tail of it is not in int8."""
    asked = "--save" if request.save is not None else "--unfreeze"
    if cache.manifest.recipe.precision == "int8" and (request.save or request.unfreeze):
        raise ProbeError(
            f"{cache.folder}: of an int8 network there is no {asked}, since what it is calibrated "
            "on are pictures, which stay in the cache; extract in fp32 into another --out, and "
            "probe that"
        )


def _refuse_crops(cache: Cache, request: ProbeRequest) -> None:
    if request.protocol != DEFAULT or request.head in ("ridge", "knn"):
        raise ProbeError(
            "--tta averages probabilities of the default protocol's softmax and logistic heads; "
            "leave it out, or --protocol and --head"
        )
    cut = PENULTIMATE if request.cut == ALL_CUTS else request.cut
    crop_views(cache, cut)  # whether there are any


def _refuse_beside_shots(request: ProbeRequest) -> None:
    """A protocol of support sets has no one head, and so nothing that belongs to one."""
    asked = {
        "--save": request.save is not None,
        "--shots": bool(request.shots),
        "--suspects": bool(request.suspects),
        "--against": request.against is not None,
        "--cut all": request.cut == ALL_CUTS,
    }
    for option, given in asked.items():
        if given:
            raise ProbeError(
                f"protocol {request.protocol!r} fits a head for each support set, none of which is "
                f"the result; leave out {option}"
            )
