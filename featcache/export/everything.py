"""`.h5`: one plain HDF5 file with everything a cache has; h5py alone reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featcache.export.found import Found
from featcache.export.samples import Features, Samples, stream_described
from featcache.recipe import Pooling, View
from featcache.store.cache import Cache, StreamReader
from featcache.store.index import Index
from featcache.store.plain import PlainFile


def plain_streams(cache: Cache, cut: str | None) -> dict[str, StreamReader]:
    """Streams of the plain view by cut, with its pooling where there are several; of one, or all.

    Raises:
        CacheMissingError: there is no such cut.
    """
    if cut is not None:
        return {cut: cache.stream(cut)}
    asked: dict[tuple[str, Pooling], None] = dict.fromkeys(
        (entry.stream.cut, entry.stream.pooling)
        for entry in cache.manifest.streams.values()
        if entry.stream.view == View()
    )
    cuts = [name for name, _ in asked]
    return {
        name if cuts.count(name) == 1 else f"{name} ({pooling})": cache.stream(name, None, pooling)
        for name, pooling in asked
    }


def other_views(cache: Cache, plain: dict[str, StreamReader]) -> dict[str, StreamReader]:
    """The other views of streams, by policy, seed, number and the stream's name."""
    return {
        f"{view.policy}/{view.seed}/{view.number}/{name}": other
        for name, reader in plain.items()
        for view, other in cache.views_of(reader.entry.stream).items()
    }


def require_views(cache: Cache, samples: Samples, streams: Sequence[StreamReader]) -> None:
    """Refuse views of which rows were never computed.

    Raises:
        CacheIncompleteError: says how many.
    """
    hashes = cache.index.hashes[samples.rows]
    for reader in streams:
        wanted = hashes[cache.index.wanting(reader.entry.stream.view)[samples.rows]]
        wanted = wanted[~reader.is_skipped(wanted)]
        reader.require(reader.positions(wanted))


def write_hdf5(
    path: Path,
    samples: Samples,
    streams: dict[str, Features],
    found: Found | None,
    description: dict[str, Any],
    index: Index,
) -> None:
    """Write all streams, names, labels and skips.

    Datasets: features/<cut> and views/<policy>/<seed>/<number>/<cut> (n, *shape) as stored, NaN
    where a view was not made (of test pictures); labels, classes, texts as in `.npz`; pred_probs;
    skipped/path and skipped/reason. The attribute "description" is JSON, so is each stream's.
    """
    with PlainFile(path, {"description": json.dumps(description, sort_keys=True)}) as file:
        for name, features in streams.items():
            attributes = {"description": json.dumps(stream_described(features), sort_keys=True)}
            shape = len(samples), *features.shape
            file.numbers(name, shape, features.dtype, features.blocks(), attributes)
        several = (len(samples.classes),) if samples.several else ()
        kind = np.bool_ if samples.several else np.int64
        labels = (samples.labels(block) for block in samples.blocks())
        file.numbers("labels", (len(samples), *several), kind, labels)
        file.texts("classes", len(samples.classes), [samples.classes])
        for name, of in samples.texts().items():
            file.texts(name, len(samples), map(of, samples.blocks()))
        if found is not None:
            blocks = map(found.read, samples.blocks())
            file.numbers("pred_probs", found.shape, np.float64, blocks)
        _skips(file, index, streams)


def _skips(file: PlainFile, index: Index, streams: dict[str, Features]) -> None:
    """What has no features, and why: in the index, or in the shards by content."""
    both = [*zip(index.skip_paths, index.skip_reasons, strict=True), *_undecoded(index, streams)]
    file.texts("skipped/path", len(both), [[path for path, _ in both]])
    file.texts("skipped/reason", len(both), [[reason for _, reason in both]])


def _undecoded(index: Index, streams: dict[str, Features]) -> Iterator[tuple[str, str]]:
    reasons = {key: why for features in streams.values() for key, why in features.skips.items()}
    if reasons:
        for path, content in zip(index.paths, index.hashes, strict=True):
            if content.tobytes() in reasons:
                yield path, reasons[content.tobytes()]
