"""Networks, and where they can be cut."""

from __future__ import annotations

from dataclasses import dataclass

from featcache.results.record import Record


@dataclass(frozen=True)
class BackboneRow(Record):
    """A network that can be used: name, library, origin of its weights, input side in pixels."""

    name: str
    library: str
    weights: str
    size: int | None


@dataclass(frozen=True)
class LayerRow(Record):
    """A unit of a network, and the activation after it.

    Attributes:
        depth: 1 for the topmost unit.
        name: of the module; "layer4.1" is the cut after it.
        shape: of one picture's activation.
        bytes: of it in half precision, as `--pool none` stores it.
        params: of the unit. params_trainable: of it and all above it, without the head.
            params_frozen: of all below it.
        cost_share: of the multiplications of convolutions and linear layers in one forward pass,
            counted, not timed; attention's own products are left out.
    """

    depth: int
    name: str
    shape: tuple[int, ...]
    bytes: int
    params: int
    params_trainable: int
    params_frozen: int
    cost_share: float
