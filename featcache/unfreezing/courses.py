"""What each depth trains on: activations or pixels, and smaller pictures before those."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from featcache.backbones.published import scaled
from featcache.backbones.registry import Backbone
from featcache.errors import ProbeError
from featcache.probing import LabelledRows
from featcache.recipe import View
from featcache.store.cache import Cache
from featcache.unfreezing.depths import Rung, ladder
from featcache.unfreezing.pixels import fresh_views
from featcache.unfreezing.rows import Activations, activations_of
from featcache.unfreezing.spec import SweepSpec


@dataclass(frozen=True, eq=False)
class Stage:
    """Epochs on pictures of another size: the depth's parts at that size, and their pixels."""

    rung: Rung
    given: Activations
    epochs: int


@dataclass(frozen=True, eq=False)
class Course:
    """One depth, what it trains from, and the stages before, in order."""

    rung: Rung
    given: Activations
    smaller: tuple[Stage, ...] = ()


def courses_of(
    cache: Cache, data: LabelledRows, backbone: Backbone, spec: SweepSpec
) -> list[Course]:
    """Those of all depths but 0.

    Raises:
        BackboneError: the network cannot be traced, or not at a smaller size.
        ProbeError: smaller pictures are asked for where activations train.
        CacheMissingError, CacheIncompleteError, SourceMissingError: as `activations_of`.
    """
    rungs = ladder(backbone, spec.depths, live=spec.live)[1:]
    refuse_sizes(spec, rungs)
    *before, views = _views(spec)
    given = activations_of(cache, data, rungs, backbone.preprocessing, views, spec.crops)
    sizes = [
        _at_size(cache, data, backbone, spec, size, own)
        for size, own in zip(spec.smaller, before, strict=True)
    ]
    return [
        Course(rung, rows, tuple(stages[place] for stages in sizes))
        for place, (rung, rows) in enumerate(zip(rungs, given, strict=True))
    ]


def refuse_sizes(spec: SweepSpec, rungs: Sequence[Rung]) -> None:
    """Refuse pictures of several sizes where activations train, which have one.

    Raises:
        ProbeError: says what trains from pixels.
    """
    if spec.smaller and not all(rung.from_pixels for rung in rungs):
        raise ProbeError(
            "pictures of several sizes are for training from pixels; give --live, or --unfreeze all"
        )


def _at_size(
    cache: Cache,
    data: LabelledRows,
    backbone: Backbone,
    spec: SweepSpec,
    size: tuple[int, int],
    views: tuple[View, ...],
) -> list[Stage]:
    """One (side, epochs) at all depths but 0."""
    side, epochs = size
    rungs = ladder(backbone, spec.depths, live=spec.live, side=side)[1:]
    given = activations_of(cache, data, rungs, scaled(backbone.preprocessing, side), views)
    return [Stage(rung, rows, epochs) for rung, rows in zip(rungs, given, strict=True)]


def _views(spec: SweepSpec) -> Iterator[tuple[View, ...]]:
    """Of each size in turn: as many fresh ones as its epochs take; none where they are cached."""
    first = 0
    for epochs in (*(epochs for _, epochs in spec.smaller), spec.training.epochs):
        count = epochs * spec.seeds
        yield fresh_views(spec.policy, spec.view_seed, first, count) if spec.live else ()
        first += count
