"""`demo`: the main job on what every installation has, the embedded weights and the digits."""

from __future__ import annotations

import time
from pathlib import Path

from featcache.api.extracting import extract
from featcache.api.predicting import predict
from featcache.api.probes import probe
from featcache.api.requests import PathLike, Progress
from featcache.images.decode import decode
from featcache.images.sources import open_source
from featcache.results import DemoResult, ProbeResult

PICTURES = 8

SIDE = 96
"""Pixels."""

DEPTHS = "0,1,2,5"

MARGIN = 0.02
"""540 digits are held out, too few to tell depths apart that differ by less."""


def demo(out: PathLike = "featcache-demo", *, progress: Progress | None = None) -> DemoResult:
    """Extract the digits, probe them at some depths, save a classifier, and label pictures with it.

    The pictures are enlarged to `SIDE` only: deeper layers train quickly at that size.

    Args:
        out: folder for the cache, the classifier, the plot and the pictures; a second run reuses
            the cache.
        progress: called with (stage, done, total).

    Raises:
        StoreError: the folder cannot be written.
    """
    started = time.perf_counter()
    folder = Path(out)
    extracted = extract("digits", image_size=SIDE, out=folder / "cache", progress=progress)
    classifier = folder / "digits.fc"
    probed = probe(extracted, unfreeze=DEPTHS, margin=MARGIN, save=classifier, progress=progress)
    plot = _draw(probed, folder / "depths.png")
    predictions = predict(classifier, _write_pictures(folder / "pictures"), top=2)
    seconds = round(time.perf_counter() - started, 1)
    return DemoResult(extracted, probed, predictions, seconds, plot)


def _draw(result: ProbeResult, path: Path) -> str:
    result.plot().savefig(path, dpi=150)
    return str(path)


def _write_pictures(folder: Path) -> list[str]:
    """Write some of the digits as PNG files, `<number>-is-<digit>.png`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    source = open_source("digits")
    samples = source.scan().samples
    paths: list[str] = []
    for sample in samples[:: len(samples) // PICTURES][:PICTURES]:
        path = folder / f"{sample.path}-is-{sample.labels[0]}.png"
        decode(source.read(sample.path)).save(path)
        paths.append(str(path))
    return paths
