"""`layers`: the units of a network, at which it can be cut; and those that a cache holds."""

from __future__ import annotations

import contextlib
import math

from featcache.backbones.factory import is_factory_name
from featcache.backbones.registry import load_backbone
from featcache.backbones.tracing import trace
from featcache.backbones.units import costs_above, list_units
from featcache.errors import BackboneError
from featcache.recipe import PENULTIMATE
from featcache.results import LayerRow, Records
from featcache.store.cache import Cache

_BYTES = 2
"""Of a stored value: what is not pooled is kept in half precision."""


def layers(backbone: str, *, image_size: int | None = None) -> Records[LayerRow]:
    """The units of a network from the top: what can be cached, and what training each would mean.

    No weights are needed, nor fetched.

    Args:
        backbone: a network's name, or `package.module:factory`.
        image_size: side in pixels instead of the published one; decides shapes and costs.

    Raises:
        UnknownBackboneError: no network has that name.
        BackboneError: it cannot be traced.
    """
    weights = None if is_factory_name(backbone) else "random"
    network = load_backbone(backbone, weights=weights, image_size=image_size)
    try:
        traced = trace(network.stem, network.preprocessing.size)
    except BackboneError as error:
        raise BackboneError(f"{network.name}: {error}") from error
    units = list_units(traced)
    above = [costs_above(traced, unit) for unit in units]
    products = sum(unit.products for unit in units) + above[0][1] if units else 0
    total = sum(parameter.numel() for parameter in network.stem.parameters())
    return Records(
        LayerRow(
            depth=unit.depth,
            name=unit.name,
            shape=unit.shape,
            bytes=_BYTES * math.prod(unit.shape),
            params=unit.parameters,
            params_trainable=unit.parameters + parameters,
            params_frozen=total - unit.parameters - parameters,
            cost_share=unit.products / max(products, 1),
        )
        for unit, (parameters, _) in zip(units, above, strict=True)
    )


def cuts_by_depth(cache: Cache) -> list[str]:
    """Cuts of a cache whose activations are vectors, from the pictures up to the feature.

    The order is the network's, which is built for it without its weights; where its code is a
    person's own, which is not run for that, and where it cannot be traced, it is that of names.
    """
    cuts, manifest = cache.vector_cuts(), cache.manifest
    order: list[str] = []
    name = manifest.backbone["name"]
    if len(cuts) > 1 and not is_factory_name(name):
        side = manifest.recipe.preprocessing.size[0]
        with contextlib.suppress(BackboneError):
            order = [row.name for row in reversed(layers(name, image_size=side))]
    places = {cut: order.index(cut) if cut in order else len(order) for cut in cuts}
    return sorted(cuts, key=lambda cut: (cut == PENULTIMATE, places[cut], cut))
