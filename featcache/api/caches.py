"""`info`: what is in a cache, and what of it is stale, missing or new."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from featcache.api.requests import PathLike
from featcache.backbones.registry import load_from_locator
from featcache.errors import FeatcacheError, SourceMissingError
from featcache.extraction.scanning import Changes, compare, path_counts, scan
from featcache.images.sources import source_from_locator
from featcache.recipe import differing_fields
from featcache.results import (
    ChangeCounts,
    InfoResult,
    Skip,
    Staleness,
    StreamInfo,
)
from featcache.store import journal
from featcache.store.cache import Cache, shard_path
from featcache.store.findings import list_findings
from featcache.store.index import NO_SPLIT, SPLITS, Index
from featcache.store.manifest import Manifest, StreamEntry

_EXAMPLES = 5


def info(cache: PathLike) -> InfoResult:
    """What is in a cache and, against its source and backbone as they are now, what is stale.

    Args:
        cache: folder of a cache.

    Raises:
        CacheMissingError, CacheDamagedError: there is nothing to tell about.
    """
    opened = Cache(Path(cache))
    index, manifest = opened.index, opened.manifest
    skips = {
        key: reason for s in manifest.streams for key, reason in opened.reader(s).skips.items()
    }
    skipped = [Skip(*skip) for skip in zip(index.skip_paths, index.skip_reasons, strict=True)]
    if skips:
        skipped += [
            Skip(path, skips[content.tobytes()])
            for path, content in zip(index.paths, index.hashes, strict=True)
            if content.tobytes() in skips
        ]
    counts = np.bincount(index.label_codes, minlength=len(index.label_names)).tolist()
    streams = tuple(
        _stream(opened, entry)
        for entry in sorted(manifest.streams.values(), key=lambda e: e.stream.view.sort_key)
    )
    return InfoResult(
        cache=os.fspath(cache),
        source=manifest.source,
        backbone=manifest.backbone,
        recipe=manifest.recipe.to_dict() | {"key": manifest.recipe.key},
        samples=len(index) + len(index.skip_paths),
        splits=_splits(index),
        classes=dict(zip(index.label_names, counts, strict=True)),
        unlabelled=int((index.label_counts == 0).sum()),
        streams=streams,
        skipped=tuple(skipped),
        results=tuple(list_findings(opened.folder)),
        staleness=replace(
            _staleness(opened.folder, index, manifest), missing=sum(s.missing for s in streams)
        ),
    )


def _splits(index: Index) -> dict[str, int]:
    names = dict(enumerate(SPLITS)) | {NO_SPLIT: "none"}
    return dict(Counter(names[code] for code in index.splits.tolist()))


def _stream(cache: Cache, entry: StreamEntry) -> StreamInfo:
    reader, parent = cache.reader(entry.stream.key), cache.parent_of(entry.stream)
    known = reader.positions(cache.index.hashes) >= 0
    skipped = reader.is_skipped(cache.index.hashes)
    return StreamInfo(
        cut=entry.stream.cut,
        pooling=entry.stream.pooling,
        shape=entry.shape,
        dtype=entry.stream.dtype,
        rows=len(reader),
        skipped=len(reader.skips),
        shards=len(entry.shards),
        bytes=sum(
            shard_path(cache.folder, entry.stream, s.number).stat().st_size for s in entry.shards
        ),
        missing=int((~known & ~skipped & cache.index.wanting(entry.stream.view)).sum()),
        view=entry.stream.view.to_dict(),
        parent=parent.cut if parent else None,
        computed_by=tuple(
            dict.fromkeys(
                f"{p.engine} {p.versions.get(p.engine, '')} on {p.device}" for p in entry.plans
            )
        ),
    )


def _staleness(folder: Path, index: Index, manifest: Manifest) -> Staleness:
    """Scan the source and load the backbone again; neither need be there for the rest."""
    changes, reason = Changes(), None
    try:
        if manifest.source["kind"] == "torchvision":
            raise SourceMissingError("a public data set, which might have to be fetched for it")
        settled = manifest.index and journal.settled_before(folder, manifest.index.sha256)
        found = scan(source_from_locator(manifest.source), index, settled_before_ns=settled)
        changes = compare(index, found.index)
    except FeatcacheError as error:
        reason = str(error)
    fields, recipe_reason = _recipe_differences(manifest)
    return Staleness(
        checked=reason is None,
        reason=reason,
        counts=ChangeCounts(**path_counts(changes)),
        examples=_examples(changes),
        recipe=tuple(fields),
        recipe_reason=recipe_reason,
    )


def _recipe_differences(manifest: Manifest) -> tuple[list[str], str | None]:
    name, recipe = manifest.backbone["name"], manifest.recipe
    if ":" in name:
        return [], f"{name} is a network of one's own, which runs code: not loaded only to compare"
    try:
        backbone = load_from_locator(
            name, manifest.backbone["locator"], preprocessing=recipe.preprocessing
        )
    except FeatcacheError as error:
        return [], str(error)
    now = backbone.recipe_like(recipe)
    return differing_fields(now.to_dict(), recipe.to_dict()), None


def _examples(changes: Changes) -> dict[str, tuple[str, ...]]:
    named = {
        "new": changes.new,
        "changed": changes.changed,
        "missing": changes.missing,
        "relabelled": changes.relabelled,
        "moved": tuple(f"{old} -> {new}" for old, new in changes.moved),
    }
    return {kind: paths[:_EXAMPLES] for kind, paths in named.items() if paths}
