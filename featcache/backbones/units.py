"""The blocks of a network, by name: what can be cached below the penultimate feature.

A *unit* is what people call a block: a module with parts (a residual block, a transformer block, a
stage's downsampling) whose output is the only thing the rest of the network needs. A cut is named
after the unit below it: **cutting at `layer4.1` gives the activation after `layer4.1`**, which is
what `layer4.2` receives. Units are counted from the top: depth 1 is the topmost one, and training
it alone needs the activation after the unit of depth 2.

Which modules these are is found by what they do, not by their names. A module whose own parts each
end in a cut is a row of units (a stage), and it is its parts that count, unless others of its class
are not (a residual block without its shortcut). Where layers stand in a row with no block around
them (VGG, a stem), each convolution or linear layer begins a unit, which ends before the next one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import fx, nn

from featcache.backbones.cuts import InnerSplit
from featcache.backbones.tracing import Seen, Traced, has_parts, split_at_node
from featcache.errors import BackboneError

_NAMED = 12

_NO_LAYERS = (nn.Identity, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
"""What does nothing, and what pools for the head: no unit takes these along."""


@dataclass(frozen=True)
class Unit:
    """A block of a network, at whose output the network can be cut.

    Attributes:
        name: of the module whose output the activation is: "layer4.2", "blocks.11".
        depth: 1 for the topmost unit, 2 for the one below it, and so on.
        shape: of one picture's activation after the unit.
        parameters: of the unit, with what stands between it and the unit below.
        products: multiplications of its convolutions and linear layers for one picture.
    """

    name: str
    depth: int
    shape: tuple[int, ...]
    parameters: int
    products: int


_listed: WeakKeyDictionary[Traced, tuple[Unit, ...]] = WeakKeyDictionary()
"""Units of each traced network that is in use: finding them looks at every module."""


def list_units(traced: Traced) -> tuple[Unit, ...]:
    """The units of a traced network, from the top."""
    if traced not in _listed:
        _listed[traced] = tuple(reversed(list(_from_bottom(traced))))
    return _listed[traced]


def _from_bottom(traced: Traced) -> Iterator[Unit]:
    names, nodes = _unit_names(traced), list(traced.graph.nodes)
    start = 0
    for number, name in enumerate(names):
        end = traced.ends[name]
        stop = nodes.index(end) + 1
        costs = _costs(traced, nodes[start:stop])
        yield Unit(name, len(names) - number, traced.shape(end), *costs)
        start = stop


def find_unit(traced: Traced, name: str) -> Unit:
    """The unit of a name.

    Raises:
        BackboneError: there is none; names some of those there are.
    """
    units = list_units(traced)
    for unit in units:
        if unit.name == name:
            return unit
    known = ", ".join(unit.name for unit in units[:_NAMED])
    more = f" and {len(units) - _NAMED} more" if len(units) > _NAMED else ""
    there = f"from the top there are: {known}{more}" if units else "it has none"
    raise BackboneError(f"no unit is called {name!r}; {there}")


def split_at(traced: Traced, name: str) -> InnerSplit:
    """Cut a network after a unit: the stem gives the unit's output, the tail goes on from it.

    Raises:
        BackboneError: no unit has that name.
    """
    return split_at_node(traced, traced.ends[find_unit(traced, name).name])


def costs_above(traced: Traced, unit: Unit) -> tuple[int, int]:
    """(parameters, products) of what stands above a unit's output."""
    nodes = list(traced.graph.nodes)
    return _costs(traced, nodes[nodes.index(traced.ends[unit.name]) + 1 :])


def _costs(traced: Traced, nodes: Iterable[fx.Node]) -> tuple[int, int]:
    """(parameters, products) of some nodes, and of what they derive from; each counted once."""
    counted: dict[int, int] = {}
    products = 0
    for node in nodes:
        if node.op == "call_module":
            module = traced.module(node)
            counted.update((id(p), p.numel()) for p in module.parameters())
            products += _products(traced, node, module)
        elif node.op == "get_attr":
            value = traced.named(str(node.target))
            if isinstance(value, nn.Parameter):
                counted[id(value)] = value.numel()
    return sum(counted.values()), products


def _products(traced: Traced, node: fx.Node, module: nn.Module) -> int:
    """Every weight of a layer, times the positions it is applied at."""
    weights = sum(p.numel() for p in module.parameters() if p.ndim >= 2)
    fact = traced.facts[node][0]
    seen = fact[0] if isinstance(fact, tuple) else fact
    if not weights or not isinstance(seen, Seen):
        return 0
    channels = seen.shape[1] if isinstance(module, nn.Conv2d) else seen.shape[-1]
    return weights * (math.prod(seen.shape) // (seen.shape[0] * channels))


def _unit_names(traced: Traced) -> list[str]:
    """Names of the modules that are units, from the bottom; no two end at the same node."""
    position = {node: i for i, node in enumerate(traced.graph.nodes)}
    modules = {
        name: traced.part(name)
        for name, node in sorted(traced.ends.items(), key=lambda end: position[end[1]])
        if name and node in traced.cuts
    }
    rows = _rows(modules, traced.ends)
    blocks = {
        name
        for name, module in modules.items()
        if _is_block(module) and name not in rows and not _parents(name) & (modules.keys() - rows)
    }
    layers = [
        name
        for name, module in modules.items()
        if name in blocks
        or (not has_parts(module) and not isinstance(module, _NO_LAYERS) and _parents(name) <= rows)
    ]
    return list(_ends_of_rows(traced, layers, blocks))


def _rows(modules: Mapping[str, nn.Module], ends: Mapping[str, fx.Node]) -> set[str]:
    """Names of the modules that are rows of units, not units."""
    blocks = {name: module for name, module in modules.items() if _is_block(module)}
    rows = {name for name in blocks if _is_row(name, modules, blocks, ends)}
    mixed = {type(blocks[name]) for name in blocks if name not in rows} - {nn.Sequential}
    return {name for name in rows if type(blocks[name]) not in mixed}


def _is_row(
    name: str,
    modules: Mapping[str, nn.Module],
    blocks: Mapping[str, nn.Module],
    ends: Mapping[str, fx.Node],
) -> bool:
    """Whether a module consists of units: several, or one that ends where it does."""
    inner = {ends[other] for other in blocks if other.startswith(f"{name}.")}
    if inner or type(modules[name]) is not nn.Sequential:
        return len(inner) > 1 or ends[name] in inner
    children = (modules.get(f"{name}.{child}") for child, _ in modules[name].named_children())
    return sum(child is not None and has_weights(child) for child in children) > 1


def _ends_of_rows(traced: Traced, names: Iterable[str], blocks: set[str]) -> Iterator[str]:
    """Blocks, and the last of the layers that go together, in order.

    A convolution or linear layer takes along what follows it, as long as that has no weights of its
    own and gives activations of as many dimensions.
    """
    last: str | None = None
    for name in names:
        begins = name in blocks or has_weights(traced.part(name))
        follows = last is not None and _rank(traced, name) == _rank(traced, last)
        if last is not None and (begins or not follows):
            yield last
            last = None
        if name in blocks:
            yield name
        elif begins or last is not None:
            last = name
    if last is not None:
        yield last


def _rank(traced: Traced, name: str) -> int:
    return len(traced.shape(traced.ends[name]))


def _is_block(module: nn.Module) -> bool:
    return has_parts(module) and has_weights(module)


def has_weights(module: nn.Module) -> bool:
    """Whether a module holds a matrix or kernels, not only a norm's scales."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _parents(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts))}
