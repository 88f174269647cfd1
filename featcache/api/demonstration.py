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
from featcache.results import DemoResult

PICTURES = 8


def demo(out: PathLike = "featcache-demo", *, progress: Progress | None = None) -> DemoResult:
    """Extract the digits, probe them, save the classifier, and label some pictures with it.

    Args:
        out: folder for the cache, the classifier and the pictures; a second run reuses them.
        progress: called with (stage, done, total).

    Raises:
        StoreError: the folder cannot be written.
    """
    started = time.perf_counter()
    folder = Path(out)
    extracted = extract("digits", out=folder / "cache", progress=progress)
    classifier = folder / "digits.fc"
    probed = probe(extracted, save=classifier, progress=progress)
    predictions = predict(classifier, _write_pictures(folder / "pictures"), top=2)
    return DemoResult(extracted, probed, predictions, round(time.perf_counter() - started, 1))


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
