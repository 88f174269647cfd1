"""What is kept of activations after units, several from one forward pass.

`avg` is the mean over positions: over height and width of a map, over the tokens of a sequence.
Tokens that stand for no position (class, distillation and register tokens, which the network puts
in front of the sequence) are left out, as timm's own average pooling does. `cls` is the class
token. `flatten` makes one vector of everything, `none` keeps the shape.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from featcache.backbones.tracing import Traced, with_outputs
from featcache.backbones.units import find_unit, has_weights
from featcache.errors import BackboneError
from featcache.recipe import PENULTIMATE, Pooling

FIRST, LAST = 1, -1
"""Axis of the channels in a batch: (B, C, ...) or (B, ..., C)."""

_CHANNELS_FIRST = (
    *(nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
_KEEP_AXES = (
    *(operator.add, operator.iadd, operator.mul, operator.imul),
    *(torch.add, torch.mul, torch.relu, functional.relu, functional.gelu, functional.silu),
    *("add", "add_", "mul", "mul_", "contiguous", "clone", "relu", "relu_"),
)
_MOVE_AXES = ("Permute", "PixelShuffle", "ChannelShuffle", "Flatten", "Unflatten")


class Pool(nn.Module):
    """What is kept of an activation, (B, ...) to (B, *shape).

    It is a copy, since a network may go on in place.

    Args:
        pooling: how it becomes a vector.
        axis: of the channels, `FIRST` or `LAST`.
        prefix: how many tokens at the front of a sequence stand for no position.
    """

    def __init__(self, pooling: Pooling, axis: int = LAST, prefix: int = 0) -> None:
        super().__init__()
        self.pooling, self.axis, self.prefix = pooling, axis, prefix

    def forward(self, activation: Tensor) -> Tensor:
        """The vector, or the activation itself where nothing is pooled."""
        if self.pooling == "flatten":
            return activation.flatten(1).clone()
        if self.pooling == "cls":
            return activation[:, 0].clone()
        if self.pooling == "none" or activation.ndim == 2:
            return activation.clone()
        if self.axis == FIRST:
            return activation.mean(tuple(range(2, activation.ndim)))
        return activation[:, self.prefix :].mean(tuple(range(1, activation.ndim - 1)))


def pooled_stem(traced: Traced, kept: Sequence[tuple[str, Pooling]]) -> nn.Module:
    """A stem that gives several pooled activations in one pass.

    Nothing is run twice, and nothing above the topmost of the cuts.

    Args:
        traced: a stem, from pixels to the penultimate feature.
        kept: (cut, pooling); cuts are names of units, or `PENULTIMATE`.

    Returns:
        (B, 3, H, W) to a tuple of (B, *shape), in the order of `kept`.

    Raises:
        BackboneError: no such unit, or not that pooling of it.
    """
    return with_outputs(traced, [(_node(traced, cut), pool_of(traced, cut, p)) for cut, p in kept])


def between(traced: Traced, lower: str, uppers: Sequence[str]) -> nn.Module:
    """The part of a network from one cut to others above it, all from one pass.

    Args:
        traced: a stem, from pixels to the penultimate feature.
        lower: the unit whose activation it takes.
        uppers: units above that one, whose activations it gives.

    Returns:
        (B, *shape) to a tuple of (B, *shape), in the order of `uppers`.

    Raises:
        BackboneError: no such unit, or one that is not above `lower`.
    """
    depth = find_unit(traced, lower).depth
    for upper in uppers:
        if find_unit(traced, upper).depth >= depth:
            raise BackboneError(
                f"unit {upper!r} does not stand above {lower!r}, so its activation cannot be "
                "derived from the one there"
            )
    outputs = [(traced.ends[upper], Pool("none")) for upper in uppers]
    return with_outputs(traced, outputs, traced.ends[lower])


def pooled_shape(traced: Traced, cut: str, pooling: Pooling) -> tuple[int, ...]:
    """Shape of one picture's pooled activation.

    Raises:
        BackboneError: no such unit, or not that pooling of it.
    """
    activation = torch.empty(1, *traced.shape(_node(traced, cut)))
    return tuple(pool_of(traced, cut, pooling)(activation).shape[1:])


def pool_of(traced: Traced, cut: str, pooling: Pooling) -> Pool:
    """The pooling of an activation at a cut.

    Raises:
        BackboneError: no such unit, or it cannot be pooled so.
    """
    node = _node(traced, cut)
    rank = len(traced.shape(node))
    prefix, has_class = _tokens_in_front(traced, node)
    if pooling == "cls":
        _refuse_no_class_token(cut, traced.shape(node), has_class=has_class)
    if pooling != "avg" or rank == 1:
        return Pool(pooling)
    axis = _channel_axis(traced, node) or _axis_by_sides(traced.shape(node))
    if axis is None:
        raise BackboneError(
            f"cut {cut!r}: nothing tells which axis of {_text(traced.shape(node))} holds the "
            "channels; take --pool flatten or --pool none"
        )
    return Pool(pooling, axis, prefix if axis == LAST else 0)


def _node(traced: Traced, cut: str) -> fx.Node:
    return traced.output if cut == PENULTIMATE else traced.ends[find_unit(traced, cut).name]


def _refuse_no_class_token(cut: str, shape: tuple[int, ...], *, has_class: bool) -> None:
    if len(shape) != 2:
        kind = "a map" if len(shape) == 3 else "not tokens"
        raise BackboneError(
            f"cut {cut!r} gives {kind} ({_text(shape)}), and a class token is one of a sequence "
            "of tokens; take --pool avg"
        )
    if not has_class:
        raise BackboneError(
            f"cut {cut!r}: its {shape[0]} tokens do not begin with a class token; take --pool avg"
        )


def _tokens_in_front(traced: Traced, node: fx.Node) -> tuple[int, bool]:
    """How many tokens of a sequence stand for no position, and whether a class token is first.

    They are what the network joined in front of a sequence of this shape and did not compute.
    """
    shape = traced.shape(node)
    count, first = 0, None
    for earlier in traced.graph.nodes:
        if earlier is node or len(shape) != 2:
            break
        joins = earlier.target in (torch.cat, torch.concat) and earlier in traced.carrying
        if joins and traced.facts[earlier][0].shape[1:] == shape:
            count, first = _joined(traced, earlier)
    return count, first is not None and _is_class_token(first)


def _joined(traced: Traced, cat: fx.Node) -> tuple[int, fx.Node | None]:
    """How many tokens stand before the computed ones, and what gave the first of them."""
    parts = cat.args[0] if isinstance(cat.args[0], tuple | list) else ()
    count, first = 0, None
    for part in parts:
        if not isinstance(part, fx.Node) or part in traced.carrying:
            break
        first = first or part
        count += traced.facts[part][0].shape[1]
    return count, first


def _is_class_token(node: fx.Node) -> bool:
    """Whether a value derives from a parameter that is called a class token."""
    if node.op == "get_attr":
        name = str(node.target).rpartition(".")[2]
        return "cls" in name or "class" in name
    sources = (source for source in node.all_input_nodes if source.op != "placeholder")
    return any(map(_is_class_token, sources))


def _channel_axis(traced: Traced, node: fx.Node) -> int | None:
    """Axis of the channels, as the nearest layer below or above says that works on them."""
    seen, waiting = {node}, [node]
    for near in waiting:
        for layer in (near, *near.users):
            axis = _axis_of_layer(traced, layer)
            if axis is not None:
                return axis
        for other in _with_same_axes(traced, near):
            if other not in seen and traced.facts[other] == traced.facts[node]:
                seen.add(other)
                waiting.append(other)
    return None


def _axis_by_sides(shape: tuple[int, ...]) -> int | None:
    """Axis of the channels where no layer says: tokens come first, equal sides are a map's."""
    if len(shape) == 2:
        return LAST
    if len(shape) != 3 or len(set(shape)) != 2:
        return None
    return {True: FIRST, False: LAST}[shape[1] == shape[2]] if shape[0] != shape[2] else None


def _axis_of_layer(traced: Traced, node: fx.Node) -> int | None:
    if node.op != "call_module":
        return None
    module = traced.module(node)
    if isinstance(module, _CHANNELS_FIRST):
        return FIRST
    return LAST if isinstance(module, nn.Linear) or type(module) is nn.LayerNorm else None


def _with_same_axes(traced: Traced, node: fx.Node) -> Iterator[fx.Node]:
    """Nodes beside this one that have its axes: what elementwise operations take and give."""
    yield from (user for user in node.users if _is_elementwise(traced, user))
    if _is_elementwise(traced, node):
        yield from (source for source in node.all_input_nodes if source in traced.carrying)


def _is_elementwise(traced: Traced, node: fx.Node) -> bool:
    if node not in traced.carrying:
        return False
    if node.op == "call_module":
        module = traced.module(node)
        return not has_weights(module) and type(module).__name__ not in _MOVE_AXES
    return node.target in _KEEP_AXES


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
