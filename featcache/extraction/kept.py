"""Which streams an extraction keeps, and the stems that give them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from torch import nn

from featcache.backbones.pooling import pool_of, pooled_shape, pooled_stem
from featcache.backbones.tracing import Traced, trace
from featcache.backbones.units import list_units
from featcache.errors import BackboneError
from featcache.extraction.jobs import ALL, Job
from featcache.recipe import PENULTIMATE, Pooling, StoredDtype, Stream


class Kept:
    """The streams of a job: the penultimate feature, and the activation at each cut.

    A network is traced only if a cut is asked for; without one it need not be traceable.

    Args:
        job: what is asked.

    Attributes:
        shapes: of one row, by stream, the penultimate feature first.

    Raises:
        BackboneError: no such unit, not that pooling of it, or no cuts in this network at all.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        recipe = job.backbone.recipe().key
        feature = Stream(recipe, dtype=job.dtype or "float32")
        self.shapes: dict[Stream, tuple[int, ...]] = {feature: (job.backbone.width,)}
        for cut in self._cuts():
            stream = Stream(recipe, cut, job.pooling, job.dtype or _dtype(job))
            self.shapes[stream] = pooled_shape(self._traced, cut, job.pooling)

    def stem(self, streams: Iterable[Stream]) -> nn.Module:
        """What gives the rows of some streams, in their order: a tuple if there are several."""
        kept: list[tuple[str, Pooling]] = [(stream.cut, stream.pooling) for stream in streams]
        if kept == [(PENULTIMATE, "none")]:
            return self._job.backbone.stem
        return pooled_stem(self._traced, kept)

    def _cuts(self) -> list[str]:
        asked = dict.fromkeys(cut for cut in self._job.cuts if cut not in (ALL, PENULTIMATE))
        if ALL in self._job.cuts:
            asked |= dict.fromkeys(self._every_cut())
        return list(asked)

    def _every_cut(self) -> list[str]:
        """The units whose activations can be pooled as asked: a map, say, has no class token."""
        cuts: list[str] = []
        refused: BackboneError | None = None
        for unit in list_units(self._traced):
            try:
                pool_of(self._traced, unit.name, self._job.pooling)
                cuts.append(unit.name)
            except BackboneError as error:
                refused = error
        if refused is not None and not cuts:
            raise refused
        return cuts

    @cached_property
    def _traced(self) -> Traced:
        backbone = self._job.backbone
        try:
            return trace(backbone.stem, backbone.preprocessing.size)
        except BackboneError as error:
            raise BackboneError(f"{backbone.name}: {error}") from error


def _dtype(job: Job) -> StoredDtype:
    """Vectors are small; what is not pooled is large, and is stored as half precision."""
    return "float16" if job.pooling in ("none", "flatten") else "float32"
