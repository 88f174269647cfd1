"""`extract`: pictures to a cache of activations."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from featcache.api.opened import CutFeatures, ExtractedCache
from featcache.api.requests import ExtractRequest, PathLike, Progress, as_request
from featcache.backbones.registry import Backbone, load_backbone
from featcache.engines import available_cores
from featcache.errors import BackboneError, CacheMismatchError
from featcache.extraction.jobs import ALL
from featcache.extraction.profiling import Watch
from featcache.extraction.running import Extraction, Job, run
from featcache.extraction.scanning import path_counts
from featcache.extraction.together import run_together
from featcache.images.sources import Source, open_source
from featcache.naming import folder_safe
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
from featcache.store.manifest import MANIFEST


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
    if SEVERAL in request.backbone:
        raise BackboneError(
            f"backbone {request.backbone!r}: {len(names_in(request.backbone))} networks make as "
            "many caches; call extract_each, which returns a result for each"
        )
    source = open_source(request.data)
    backbone, seconds = _backbone(request, request.backbone)
    job = _job(request, source, backbone, cache_folder(request.out, source.name, backbone.name))
    return _record(job.folder, run(job, progress), seconds)


def extract_each(
    data: PathLike | ExtractRequest, *, progress: Progress | None = None, **options: Any
) -> tuple[ExtractedCache, ...]:
    """`extract` for several backbones in one pass: each picture is read and decoded once.

    Each cache is byte for byte what `extract` makes of its backbone alone, and is resumed as such.
    They lie side by side, as `<data>-<backbone>` each, in `out`, else in `$FEATCACHE_DIR`, else in
    `cache`.

    Args:
        data: a request, or its `data`; `backbone` names the networks, as "resnet50,inception_v3".
        progress: called with (stage, done, total), of all together.
        **options: the other fields of `ExtractRequest`.

    Raises:
        BackboneError: something is asked for that only one network can have: weights of a file,
            units by name.
        As `extract`: what all of them finished until then is kept.
    """
    request = as_request(ExtractRequest, data, options)
    names = names_in(request.backbone)
    _refuse_of_one(request, names)
    source = open_source(request.data)
    folder = _folder_of_caches(request)
    backbones, seconds = zip(*(_backbone(request, name) for name in names), strict=True)
    jobs = [
        _job(request, source, backbone, _in_folder(folder, source.name, backbone.name))
        for backbone in backbones
    ]
    _refuse_one_folder(request, jobs)
    found = run_together(jobs, progress)
    folders = (job.folder for job in jobs)
    return tuple(_record(*done) for done in zip(folders, found, seconds, strict=True))


SEVERAL = ","
"""Between the names of networks."""


def names_in(backbone: str) -> list[str]:
    """The networks that are named."""
    return [name for part in backbone.split(SEVERAL) if (name := part.strip())]


def _refuse_of_one(request: ExtractRequest, names: list[str]) -> None:
    """Refuse what cannot be asked of several networks at once."""
    twice = sorted({name for name in names if names.count(name) > 1})
    weights = request.weights
    problems = {
        "none is named; give names, as resnet50,inception_v3": not names,
        f"{', '.join(twice)} is named twice; name each network once": bool(twice),
        f"weights {weights} are one network's; extract that one alone, or give 'random'": (
            len(names) > 1 and weights is not None and not str(weights).startswith("random")
        ),
        f"cuts {', '.join(request.cuts)} are units of one network; give 'all', or extract each "
        "alone": len(names) > 1 and bool(set(request.cuts) - {ALL}),
    }
    for problem, there in problems.items():
        if there:
            raise BackboneError(f"backbone {request.backbone!r}: {problem}")


def _refuse_one_folder(request: ExtractRequest, jobs: Sequence[Job]) -> None:
    """Refuse networks of one cache: two names of one, or names that no folder tells apart."""
    counts = Counter(job.folder for job in jobs)
    shared = next((folder for folder, count in counts.items() if count > 1), None)
    if shared is not None:
        raise BackboneError(
            f"backbone {request.backbone!r}: two of them would share the cache {shared}; name each "
            "network once, or extract one alone with --out"
        )


def _folder_of_caches(request: ExtractRequest) -> Path:
    """Where several caches lie side by side; not within one."""
    folder = Path(request.out) if request.out is not None else _home()
    if (folder / MANIFEST).exists():
        raise CacheMismatchError(
            f"{folder}: is a cache; of several backbones --out names the folder that holds their "
            f"caches, such as {folder.parent}"
        )
    return folder


def _backbone(request: ExtractRequest, name: str) -> tuple[Backbone, float]:
    """A network, and the seconds it took to load."""
    watch = Watch()
    backbone = load_backbone(
        name,
        weights=request.weights,
        image_size=request.image_size,
        preprocessing=_preprocessing(request.preprocessing),
    )
    return backbone, watch.seconds


def _job(request: ExtractRequest, source: Source, backbone: Backbone, folder: Path) -> Job:
    return Job(
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


def cache_folder(out: PathLike | None, data_name: str, backbone_name: str) -> Path:
    """Where a cache lies: `out`, else `<data>-<backbone>` in `$FEATCACHE_DIR` or `cache`."""
    if out is not None:
        return Path(out)
    return _in_folder(_home(), data_name, backbone_name)


def _home() -> Path:
    return Path(os.environ.get("FEATCACHE_DIR") or "cache")


def _in_folder(folder: Path, data_name: str, backbone_name: str) -> Path:
    return folder / f"{folder_safe(data_name)}-{folder_safe(backbone_name)}"


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


def _profile(done: Extraction, loading: float) -> ExtractProfile | None:
    if not done.processed:
        return None
    profile = done.profile
    outside = {"network": loading, **profile.outside}
    outside["rest"] = max(done.seconds - profile.seconds - sum(profile.outside.values()), 0.0)
    return ExtractProfile(
        seconds=round(profile.seconds, 3),
        cores=available_cores(),
        cpu_seconds={stage: round(seconds, 3) for stage, seconds in profile.shares().items()},
        waited={what: round(seconds, 3) for what, seconds in profile.clock.waited.items()},
        outside={what: round(seconds, 3) for what, seconds in outside.items()},
    )


def _record(folder: Path, done: Extraction, loading: float) -> ExtractedCache:
    """What an extraction did; `loading` is the seconds in which its network was loaded before."""
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
        profile=_profile(done, loading),
        precision_change=PrecisionChange(manifest.recipe.precision, **asdict(done.lowering))
        if done.lowering
        else None,
        recipe=manifest.recipe.to_dict() | {"key": manifest.recipe.key},
        engine=dict(done.engine),
        changes=ChangeCounts(**path_counts(done.changes)) if done.changes is not None else None,
        passed_over=done.passed_over,
        warnings=done.warnings,
    )
