"""What an int8 network is calibrated on: some of the pictures at hand, kept beside the features.

Scales decide values, so the pixels they are measured on are part of the recipe, and the cache holds
them: whatever is added later is computed by the same network.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.engines import available_cores
from featcache.errors import CacheMissingError, SourceError
from featcache.extraction.jobs import Job
from featcache.extraction.pipeline import Pixels, Unusable, load_unnamed
from featcache.images.loading import pictures_in_order
from featcache.store import manifest as manifests
from featcache.store.calibration import read_calibration

PICTURES = 32
"""As many gave what 128 gave: a cosine to fp32 of 0.97 for EfficientNet-lite0."""


def calibrated(job: Job) -> Job:
    """The job with what its network is calibrated on: the cache's pictures, else new ones.

    Raises:
        CacheDamagedError: the cache's are gone or not those of its recipe.
        SourceError: no picture can be read.
    """
    if job.precision != "int8":
        return job
    kept = _kept(job.folder)
    return replace(job, calibration=_drawn(job) if kept is None else kept)


def _kept(folder: Path) -> npt.NDArray[np.uint8] | None:
    """The pixels of a cache that has some; None where there is no cache, or one without."""
    try:
        recipe = manifests.load(folder).recipe
    except CacheMissingError:
        return None
    return None if recipe.calibration is None else read_calibration(folder, recipe)


def _drawn(job: Job) -> npt.NDArray[np.uint8]:
    """(N, H, W, 3) of pictures that are not marked test, evenly spread over the source."""
    samples = job.source.scan().samples
    paths = [sample.path for sample in samples if sample.split != "test"]
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(PICTURES, len(paths))).astype(int))
    recipe = job.backbone.recipe(decoder=job.decoder)
    loaded = pictures_in_order(
        partial(load_unnamed, job.source, recipe),
        (paths[i] for i in chosen),
        threads=job.threads or available_cores(),
        ahead=PICTURES,
    )
    with closing(loaded):
        usable: list[Pixels] = [pixels for pixels in loaded if not isinstance(pixels, Unusable)]
    if not usable:
        raise SourceError(
            f"{job.source.locator['location']}: no picture of it that is not marked test can be "
            "read, to calibrate int8 on; mend that, or extract in fp32"
        )
    return np.stack(usable)
