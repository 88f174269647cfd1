"""Which streams an extraction keeps, and the stems that give them.

Streams that differ in their view alone are the same output of a stem, given other pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

from torch import nn

from featcache.backbones.pooling import pool_of, pooled_shape, pooled_stem
from featcache.backbones.registry import Backbone
from featcache.backbones.tracing import Traced, trace
from featcache.backbones.units import list_units
from featcache.errors import BackboneError, EngineError
from featcache.extraction.jobs import ALL, Job
from featcache.recipe import PENULTIMATE, Pooling, StoredDtype, Stream, View

Output = tuple[str, Pooling]
"""What a stem gives: the activation at a cut, and how it is pooled."""


class Kept:
    """The streams of a job: the penultimate feature, and the activation at each cut, of each view.

    A network is traced only if a cut is asked for; without one it need not be traceable.

    Args:
        job: what is asked.

    Attributes:
        shapes: of one row, by stream, the penultimate feature first.

    Raises:
        BackboneError: no such unit, not that pooling of it, or no cuts in this network at all.
        EngineError: cuts in int8.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        streams = job.streams or self._asked()
        shapes = {output: self._shape(*output) for output in outputs_of(streams)}
        if job.precision == "int8" and any(cut != PENULTIMATE for cut, _ in shapes):
            raise EngineError(
                "precision 'int8' keeps the penultimate feature alone: each cut would be "
                "calibrated apart from the others; extract cuts in fp32, into another --out"
            )
        self.shapes: dict[Stream, tuple[int, ...]] = {
            stream: shapes[stream.cut, stream.pooling] for stream in streams
        }

    def stem(self, streams: Iterable[Stream]) -> nn.Module:
        """What gives the outputs of some streams, in `outputs_of`'s order: a tuple if several."""
        kept = outputs_of(streams)
        if kept == [(PENULTIMATE, "none")]:
            return self._job.backbone.stem
        return pooled_stem(self._traced, kept)

    def _asked(self) -> list[Stream]:
        """The streams of the job's feature and cuts, view after view."""
        job, recipe = self._job, self._job.recipe.key
        dtype = job.dtype or _dtype(job)
        plain = [
            Stream(recipe, dtype=job.dtype or "float32"),
            *(Stream(recipe, cut, job.pooling, dtype) for cut in self._cuts()),
        ]
        return [replace(stream, view=view) for view in job.views for stream in plain]

    def _shape(self, cut: str, pooling: Pooling) -> tuple[int, ...]:
        """Of one row of an output."""
        if cut == PENULTIMATE:
            return (self._job.backbone.width,)
        return pooled_shape(self._traced, cut, pooling)

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
        return traced_of(self._job.backbone)


def traced_of(backbone: Backbone) -> Traced:
    """A network as a graph.

    Raises:
        BackboneError: it cannot be traced; names it.
    """
    try:
        return trace(backbone.stem, backbone.preprocessing.size)
    except BackboneError as error:
        raise BackboneError(f"{backbone.name}: {error}") from error


def outputs_of(streams: Iterable[Stream]) -> list[Output]:
    """The distinct outputs of a stem that some streams need, in their order."""
    return list(dict.fromkeys((stream.cut, stream.pooling) for stream in streams))


def views_of(streams: Iterable[Stream]) -> list[View]:
    """The distinct views of some streams, in their order."""
    return list(dict.fromkeys(stream.view for stream in streams))


def _dtype(job: Job) -> StoredDtype:
    """Vectors are small; what is not pooled is large, and is stored as half precision."""
    return "float16" if job.pooling in ("none", "flatten") else "float32"
