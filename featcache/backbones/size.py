"""How large a backbone is: numbers in it, and multiplications for a picture."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featcache.backbones.registry import Backbone
from featcache.backbones.threads import one_thread_if_light

_STATISTICS = ("running_mean", "running_var")

_BY_CHANNEL = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (*_BY_CHANNEL, nn.Linear, nn.MultiheadAttention)


@dataclass(frozen=True)
class BackboneSize:
    """Numbers in a network without its last layer, and what a picture costs.

    Attributes:
        parameters: weights, biases, and scales and shifts of norms.
        statistics: running means and variances of BatchNorm, which no gradient ever trains.
        products: multiplications of convolutions and linear layers in one forward pass of one
            picture of the recipe's size; attention's own products are left out, as in `layers`.
    """

    parameters: int
    statistics: int
    products: int


def size_of(backbone: Backbone) -> BackboneSize:
    """Count a backbone; runs it once, on an empty picture."""
    stem = backbone.stem
    return BackboneSize(
        parameters=sum(parameter.numel() for parameter in stem.parameters()),
        statistics=sum(
            buffer.numel()
            for name, buffer in stem.named_buffers()
            if name.rpartition(".")[2] in _STATISTICS
        ),
        products=_products(backbone),
    )


def _products(backbone: Backbone) -> int:
    """Every weight of a layer, times the positions that it is applied at."""
    counted: list[int] = []

    def count(layer: nn.Module, _inputs: Any, output: Tensor | tuple[Tensor, ...]) -> None:
        given = output[0] if isinstance(output, tuple) else output
        channels = given.shape[1 if isinstance(layer, _BY_CHANNEL) else -1]
        weights = sum(p.numel() for p in layer.parameters() if p.ndim > 1)
        counted.append(weights * (given.numel() // channels))

    pixels = torch.zeros(1, 3, *backbone.preprocessing.size)
    with torch.no_grad(), one_thread_if_light(backbone.stem), _hooked(backbone.stem, count):
        backbone.stem(pixels)
    return sum(counted)


@contextmanager
def _hooked(stem: nn.Module, count: Any) -> Generator[None, None, None]:
    """Within it, `count` sees what each convolution and linear layer gives."""
    layers = (module for module in stem.modules() if isinstance(module, _LAYERS))
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
