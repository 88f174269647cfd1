"""What computes the features of given pictures: a network, loaded once for all that ask for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.backbones.registry import Backbone, load_backbone
from featcache.engines import Engine, available_cores, make_engine
from featcache.engines.parity import refuse_disparity
from featcache.errors import EngineError, PictureError
from featcache.extraction.jobs import DEFAULT_BATCH, Job
from featcache.extraction.kept import Kept
from featcache.extraction.pipeline import Slot, Unusable, blank_pixels, load, stream_pixels
from featcache.extraction.shards import extract_shard
from featcache.naming import shown
from featcache.recipe import DRAFT, PENULTIMATE, Pooling, Precision, Preprocessing, Recipe, Stream
from featcache.transformer.given import GivenSource

_NETWORKS = 2
"""That stay loaded."""

_running = threading.Lock()
"""An engine's settings are the process's."""


@dataclass(frozen=True)
class Wanted:
    """Which features; the fields are those of `FeatureExtractor`."""

    backbone: str
    weights: str | None
    image_size: int | None
    preprocessing: Preprocessing | None
    cut: str
    pooling: Pooling
    precision: Precision
    fast_decode: bool
    engine: str
    device: str
    batch_size: int | None
    written: tuple[int, ...] = field(default=())

    def network(self) -> Network:
        """What computes them; loaded again where the file of its weights has changed.

        Raises:
            BackboneError, EngineError: what is asked for cannot be.
        """
        if self.precision == "int8":
            raise EngineError(
                "precision 'int8' is calibrated on the pictures of an extraction; take "
                "featcache.extract for it, or fp32 here"
            )
        return _network(replace(self, written=_written(self.weights)))


def _written(weights: str | None) -> tuple[int, ...]:
    """When a file of weights was written, as far as the file system tells."""
    if weights is None or not Path(weights).is_file():
        return ()
    status = Path(weights).stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


@lru_cache(maxsize=_NETWORKS)
def _network(wanted: Wanted) -> Network:
    return Network(wanted)


class Network:
    """A backbone, and the engine that runs it up to a cut."""

    def __init__(self, wanted: Wanted) -> None:
        """Load it."""
        self._wanted = wanted
        self.backbone: Backbone = load_backbone(
            wanted.backbone,
            weights=wanted.weights,
            image_size=wanted.image_size,
            preprocessing=wanted.preprocessing,
        )
        pooling = "none" if wanted.cut == PENULTIMATE else wanted.pooling
        self.stream = Stream(self.recipe.key, wanted.cut, pooling)
        self._kept = Kept(self.job(Path(), GivenSource([])))
        self._vouched = False

    @property
    def recipe(self) -> Recipe:
        """What decides the values, but for the cut."""
        decoder = DRAFT if self._wanted.fast_decode else "pillow"
        return self.backbone.recipe(self._wanted.precision, decoder)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self._kept.shapes[self.stream]

    def job(self, folder: Path, source: GivenSource) -> Job:
        """What an extraction of these features into a cache is asked."""
        return Job(
            folder=folder,
            source=source,
            backbone=self.backbone,
            streams=(self.stream,),
            decoder=self.recipe.decoder,
            engine=self._wanted.engine,
            device=self._wanted.device,
            precision=self._wanted.precision,
            batch_size=self._wanted.batch_size,
            strict=True,
        )

    def rows(self, source: GivenSource, slots: Sequence[Slot]) -> npt.NDArray[np.float32]:
        """(n, *shape) of pictures of a source, each content once.

        Raises:
            PictureError: one cannot be used; names it.
            EngineError: the engine does not agree with torch on the first pictures.
        """
        pixels = stream_pixels(
            source,
            self.recipe,
            (self.stream.view,),
            slots,
            threads=available_cores(),
            ahead=2 * DEFAULT_BATCH,
        )
        with _running, closing(pixels):
            self._vouch(source, slots)
            with self._engine:
                done = extract_shard(
                    self._engine,
                    pixels,
                    slots,
                    {self.stream: self.shape},
                    blank=blank_pixels(self.backbone.preprocessing),
                    batch_size=self._wanted.batch_size or min(DEFAULT_BATCH, len(slots)),
                )
        for slot, why in done.unusable.items():
            raise PictureError(f"{shown(slot.path)}: {why.reason}")
        return done.shards[0].features

    def _vouch(self, source: GivenSource, slots: Sequence[Slot]) -> None:
        """Compare an engine other than torch with it, once, on pictures that can be used."""
        if self._vouched or self._engine.name == "torch":
            return
        loaded = [load(source, self.recipe, slot) for slot in slots[:8]]
        usable = [pixels for pixels in loaded if not isinstance(pixels, Unusable)]
        if usable:
            reference = self._made("torch")
            refuse_disparity(self._engine, reference, np.stack(usable), self._wanted.precision)
            self._vouched = True

    @cached_property
    def _engine(self) -> Engine:
        return self._made(self._wanted.engine)

    def _made(self, name: str) -> Engine:
        return make_engine(
            name,
            self._kept.stem([self.stream]),
            self.backbone.preprocessing,
            device=self._wanted.device,
            precision=self._wanted.precision,
        )


def weights_name(weights: str | os.PathLike[str] | None) -> str | None:
    """Weights as they are named to a backbone."""
    return None if weights is None else os.fspath(weights)
