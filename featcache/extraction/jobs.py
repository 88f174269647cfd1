"""What an extraction is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featcache.backbones.registry import Backbone
from featcache.images.sources import Source
from featcache.recipe import Decoder, Pooling, Precision, Recipe, StoredDtype, Stream, View
from featcache.store.calibration import calibration_name

if TYPE_CHECKING:
    from featcache.extraction.together import Seat

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); stages are "hash" and "extract"."""

DEFAULT_BATCH = 32

ALL = "all"
"""Stands for every unit of a network."""


@dataclass(frozen=True)
class Job:
    """What is to be extracted, and how.

    Attributes:
        folder: the cache.
        source: where the samples are.
        backbone: the network; decides the recipe.
        cuts: units whose activations are kept beside the penultimate feature; `ALL` names
            all that can be pooled so.
        pooling: of the activations at those cuts.
        views: all of them, the plain one first; see `images.policies`.
        decoder: what turns files into pixels; part of the recipe.
        dtype: stored dtype; None takes float32 for vectors, float16 for what is not pooled.
        engine, device: "auto" or a name.
        precision: of the forward pass's arithmetic; part of the recipe.
        calibration: (N, H, W, 3) pixels for int8; filled in by `calibrated`.
        compiled: folder where engines keep what they compiled, for a second start; None: nowhere.
        batch_size: rows a forward pass; None takes the open plan's, else `DEFAULT_BATCH`, or as
            many as are missing.
        threads: threads, or processes, that decode; None takes all cores. Never changes a byte.
        shard_rows: slots a shard, rounded up to whole batches; None lets the plan decide.
        strict: an unreadable picture is an error.
        verify_content: read every file again, whatever its stat key says.
        replace_source: let this source take the place of the cache's own.
        compares_precision: where it is below fp32, say what that changes; see `lowering`.
        streams: exactly these, which the cache has, instead of what cuts, pooling, views and dtype
            say.
        as_indexed: compute what the samples of the index in force lack, and do not look what the
            source holds now, so that the index stays as it is.
        seat: among others that go over the same pictures in one pass; None: it decodes itself.
    """

    folder: Path
    source: Source
    backbone: Backbone
    cuts: tuple[str, ...] = ()
    pooling: Pooling = "avg"
    views: tuple[View, ...] = (View(),)
    decoder: Decoder = "pillow"
    dtype: StoredDtype | None = None
    engine: str = "auto"
    device: str = "auto"
    precision: Precision = "fp32"
    compiled: Path | None = None
    batch_size: int | None = None
    threads: int | None = None
    shard_rows: int | None = None
    strict: bool = False
    verify_content: bool = False
    replace_source: bool = False
    compares_precision: bool = False
    streams: tuple[Stream, ...] = ()
    as_indexed: bool = False
    seat: Seat | None = field(default=None, compare=False, repr=False)
    calibration: npt.NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)

    @property
    def recipe(self) -> Recipe:
        """What decides the values."""
        pixels = self.calibration
        name = None if pixels is None else calibration_name(pixels)
        return self.backbone.recipe(self.precision, self.decoder, name)
