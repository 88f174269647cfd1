"""Which depths were asked for, and what each of them trains.

Depth k trains the last k units and the head, from the activation below them: that after the unit
of depth k + 1. Below the lowest unit there is only the picture, whose depth trains everything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from featcache.backbones.registry import Backbone
from featcache.backbones.threads import one_thread_if_light
from featcache.backbones.tracing import Traced, trace, uncut
from featcache.backbones.units import list_units, split_at
from featcache.errors import BackboneError, ProbeError
from featcache.recipe import PENULTIMATE

PIXELS = "pixels"
"""The cut below which nothing is frozen."""

ALL = "all"

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, eq=False)
class Rung:
    """One depth.

    Attributes:
        depth: units that train.
        cut: what it trains from: a unit's name, `PENULTIMATE` (depth 0) or `PIXELS`.
        tail: activations at the cut to the penultimate feature, with the network's own parameters;
            None at depth 0.
        units: names of those that train, from the top.
        trained: parameters of the tail; total: of the network without its last layer.
        stem: pixels to the activations, where those are not cached (`live`); frozen.
    """

    depth: int
    cut: str
    tail: nn.Module | None
    units: tuple[str, ...]
    trained: int
    total: int
    stem: nn.Module | None = None

    @property
    def trainable(self) -> nn.Module:
        """The tail of a depth that has one."""
        if self.tail is None:
            raise ValueError(f"depth {self.depth} has no tail")
        return self.tail

    @property
    def from_pixels(self) -> bool:
        """Whether it trains from pixels, not from what is cached."""
        return self.stem is not None or self.cut == PIXELS


def traced_of(backbone: Backbone, side: int | None = None) -> Traced:
    """The network as a graph, for square pictures of a side in pixels, or those of its recipe.

    Raises:
        BackboneError: it cannot be traced, or not at that size; depth 0 needs no trace.
    """
    if side is not None:
        _refuse_size(backbone, side)
    try:
        return trace(backbone.stem, (side, side) if side else backbone.preprocessing.size)
    except BackboneError as error:
        raise BackboneError(
            f"{backbone.name}: {error}; without a trace it can only be probed at depth 0"
        ) from error


def _refuse_size(backbone: Backbone, side: int) -> None:
    """Refuse a size that a network of fixed size, or of too many strides, cannot take."""
    try:
        with torch.no_grad(), one_thread_if_light(backbone.stem):
            backbone.stem(torch.zeros(1, 3, side, side))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise BackboneError(
            f"{backbone.name} takes no pictures of {side} x {side} pixels ({reason}); give other "
            "sizes, leave --image-size out, or take another network"
        ) from error


def parse_depths(text: str, units: Sequence[str]) -> tuple[int, ...]:
    """Depths as written: "0-3", "0,1,4", names of units, "all"; 0 is always among them.

    A unit's name stands for the depth that trains it and all above it.

    Args:
        text: what was asked for.
        units: names from the top.

    Raises:
        ProbeError: no such depth or unit.
    """
    found = {0}
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part == ALL:
            found.add(len(units))
        elif part in units:
            found.add(units.index(part) + 1)
        else:
            found.update(_numbers(part, units))
    return tuple(sorted(found))


def _numbers(part: str, units: Sequence[str]) -> range:
    match = _RANGE.fullmatch(part)
    if match is None:
        shown = ", ".join(units[:6])
        raise ProbeError(
            f"depth {part!r}: give numbers (0-3 or 0,1,4), units from the top ({shown}, ...), or "
            "all; `featcache layers` lists them"
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last <= len(units):
        raise ProbeError(
            f"depths {part}: this network has {len(units)} units; give numbers from 0 to "
            f"{len(units)}, ascending (`featcache layers` lists them)"
        )
    return range(first, last + 1)


def units_of(backbone: Backbone) -> list[str]:
    """Names of a network's units from the top; the depth of their number is the whole network.

    Raises:
        BackboneError: the network cannot be traced.
    """
    return [unit.name for unit in list_units(traced_of(backbone))]


def ladder(
    backbone: Backbone, depths: Sequence[int], *, live: bool = False, side: int | None = None
) -> list[Rung]:
    """What each depth trains.

    Args:
        backbone: the network.
        depths: ascending, 0 among them.
        live: from pixels, through the frozen stem.
        side: of the pictures, instead of the recipe's.

    Raises:
        BackboneError: the network cannot be traced, or not at that size.
    """
    total = sum(p.numel() for p in backbone.stem.parameters())
    rungs = [Rung(0, PENULTIMATE, None, (), 0, total)]
    if max(depths) == 0:
        return rungs
    traced = traced_of(backbone, side)
    names = [unit.name for unit in list_units(traced)]
    for depth in depths:
        if depth:
            stem, tail, cut = _parts(traced, names, depth)
            trained = sum(p.numel() for p in tail.parameters())
            below = stem if live else None
            rungs.append(Rung(depth, cut, tail, tuple(names[:depth]), trained, total, below))
    return rungs


def _parts(
    traced: Traced, names: Sequence[str], depth: int
) -> tuple[nn.Module | None, nn.Module, str]:
    """Stem (none below the whole network), tail, and the cut between them."""
    if depth == len(names):
        return None, uncut(traced), PIXELS
    split = split_at(traced, names[depth])
    return split.stem, split.tail, names[depth]
