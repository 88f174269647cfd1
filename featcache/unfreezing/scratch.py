"""The whole network from random weights, for comparison: what the pretrained ones are worth."""

from __future__ import annotations

from dataclasses import replace

from featcache.backbones.registry import Backbone, load_backbone
from featcache.probing import LabelledRows
from featcache.store.cache import Cache
from featcache.unfreezing.courses import Course, courses_of
from featcache.unfreezing.depths import Rung, ladder, units_of
from featcache.unfreezing.spec import SweepSpec

SCRATCH = "scratch"
"""Stands where a cut would, since nothing is kept."""


def scratch_rung(backbone: Backbone) -> Rung:
    """What is said of it: the whole network trains."""
    depth = len(units_of(backbone))
    return replace(ladder(backbone, (0, depth))[-1], cut=SCRATCH)


def scratch_spec(spec: SweepSpec, backbone: Backbone, seed: int) -> SweepSpec:
    """The same training for what knows nothing yet: one rate, and statistics that move.

    Args:
        spec: of the sweep.
        backbone: whose units there are.
        seed: number of the training, from 0; weights differ by it too.
    """
    training = replace(
        spec.training,
        head_factor=1.0,
        unit_decay=1.0,
        batchnorm_moves=True,
        seed=spec.training.seed + seed,
    )
    depths = (0, len(units_of(backbone)))
    return replace(spec, depths=depths, training=training, solved_start=False, progressive=False)


def scratch_course(cache: Cache, data: LabelledRows, backbone: Backbone, spec: SweepSpec) -> Course:
    """The network with random weights of the spec's seed, and what it trains on.

    Raises:
        BackboneError: a network of one's own, whose weights are its factory's to make.
    """
    weights = f"random:{spec.training.seed}"
    random = load_backbone(backbone.name, weights=weights, preprocessing=backbone.preprocessing)
    return courses_of(cache, data, random, spec)[-1]
