"""`extract`: pictures to a cache of activations."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from featcache.api.opened import CutFeatures, ExtractedCache
from featcache.api.requests import ExtractRequest, PathLike, Progress, as_request
from featcache.backbones.registry import load_backbone
from featcache.engines import available_cores
from featcache.errors import BackboneError
from featcache.extraction.running import Extraction, Job, run
from featcache.extraction.scanning import path_counts
from featcache.images.naming import folder_safe
from featcache.images.sources import open_source
from featcache.recipe import DRAFT, Preprocessing
from featcache.results import (
    ChangeCounts,
    ExtractProfile,
    FeatureInfo,
    PrecisionChange,
    Skip,
    ViewSet,
)
from featcache.store.cache import Cache


def extract(
    data: PathLike | ExtractRequest, *, progress: Progress | None = None, **options: Any
) -> ExtractedCache:
    """Run a frozen backbone over pictures once and keep the activations.

    Only what is new or changed is computed; killed at any instant, it loses at most the shard in
    hand, and running it again continues.

    Args:
        data: a request, or its `data`.
        progress: called with (stage, done, total).
        **options: the other fields of `ExtractRequest`.

    Returns:
        What was done; usable wherever the path of the cache is, and its rows can be taken of it.

    Raises:
        SourceError, AugmentationError, BackboneError, EngineError, StoreError, PictureError
            (strict): each names the file or value and says what to do.
    """
    request = as_request(ExtractRequest, data, options)
    source = open_source(request.data)
    backbone = load_backbone(
        request.backbone,
        weights=request.weights,
        image_size=request.image_size,
        preprocessing=_preprocessing(request.preprocessing),
    )
    folder = cache_folder(request.out, source.name, backbone.name)
    job = Job(
        folder=folder,
        source=source,
        backbone=backbone,
        cuts=request.cuts,
        pooling=request.pooling,
        views=request.all_views,
        decoder=DRAFT if request.fast_decode else "pillow",
        dtype=request.store_dtype,
        engine=request.engine,
        device=request.device,
        precision=request.precision,
        compiled=compiled_folder(),
        compares_precision=True,
        batch_size=request.batch_size,
        threads=request.threads,
        shard_rows=request.shard_rows,
        strict=request.strict,
        verify_content=request.verify_content,
        replace_source=request.replace_source,
    )
    return _record(folder, run(job, progress))


def cache_folder(out: PathLike | None, data_name: str, backbone_name: str) -> Path:
    """Where a cache lies: `out`, else `<data>-<backbone>` in `$FEATCACHE_DIR` or `cache`."""
    if out is not None:
        return Path(out)
    home = Path(os.environ.get("FEATCACHE_DIR") or "cache")
    return home / f"{folder_safe(data_name)}-{folder_safe(backbone_name)}"


def compiled_folder() -> Path | None:
    """Where engines keep what they compiled: among the user's own cached files, if there is a home.

    Not in a cache, which may come from someone else, while what is compiled is run.
    """
    with contextlib.suppress(RuntimeError):  # a user without a home
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home) / "featcache" / "compiled"
    return None


def _preprocessing(given: Preprocessing | PathLike | None) -> Preprocessing | None:
    """A preprocessing, or the one a JSON file describes."""
    if given is None or isinstance(given, Preprocessing):
        return given
    try:
        return Preprocessing.given(json.loads(Path(given).read_text("utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise BackboneError(
            f"{given}: no preprocessing ({error}); give a JSON object such as "
            '{"size": [224, 224], "resize": [256], "mean": [0.485, 0.456, 0.406], '
            '"std": [0.229, 0.224, 0.225], "interpolation": "bicubic"}'
        ) from error


def _profile(done: Extraction) -> ExtractProfile | None:
    if not done.processed:
        return None
    profile = done.profile
    return ExtractProfile(
        seconds=round(profile.seconds, 3),
        cores=available_cores(),
        cpu_seconds={stage: round(seconds, 3) for stage, seconds in profile.shares().items()},
        waited={what: round(seconds, 3) for what, seconds in profile.clock.waited.items()},
    )


def _record(folder: Path, done: Extraction) -> ExtractedCache:
    manifest = Cache(folder).manifest
    return ExtractedCache(
        cache=str(folder),
        samples=len(done.index) + len(done.index.skip_paths),
        computed=done.computed,
        reused=done.reused,
        skipped=tuple(Skip(path, reason) for path, reason in done.skipped),
        classes=tuple(done.index.label_names),
        features=CutFeatures(
            (entry.stream.cut, FeatureInfo(entry.shape, entry.stream.dtype))
            for entry in (manifest.streams[key] for key in done.streams)
        ),
        views=ViewSet.all_of(manifest.streams[key].stream.view for key in done.streams),
        seconds=round(done.seconds, 3),
        images_per_second=round(done.processed / done.profile.seconds, 1)
        if done.processed
        else 0.0,
        profile=_profile(done),
        precision_change=PrecisionChange(manifest.recipe.precision, **asdict(done.lowering))
        if done.lowering
        else None,
        recipe=manifest.recipe.to_dict() | {"key": manifest.recipe.key},
        engine=dict(done.engine),
        changes=ChangeCounts(**path_counts(done.changes)) if done.changes is not None else None,
        passed_over=done.passed_over,
        warnings=done.warnings,
    )
