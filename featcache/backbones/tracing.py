"""A network as a graph of operations, and the places where that graph falls in two.

The network is traced symbolically (torch.fx) in evaluation mode. A node *carries* where its value
holds data of the pictures; what derives from shapes and parameters alone (a position grid, the
class token repeated for a batch) does not. Wherever exactly one carrying node is still needed, the
graph can be cut: the stem gives that node, the tail goes on from it and makes anew whatever derives
from shapes. Both are run in the order of the trace and hold the network's own modules, so that
tail(stem(x)) does exactly what the network does.

Tracing fixes what Python decides on the way: flags such as `self.training` and a fixed image size.
Modules of torch and those without parts stay modules, so BatchNorm can be switched in a tail.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from featcache.backbones.cuts import InnerSplit, Stem
from featcache.backbones.threads import one_thread_if_light
from featcache.errors import BackboneError
from featcache.lean import compiler_deferred

with compiler_deferred():
    from timm.models import get_notrace_functions, get_notrace_modules

_BATCHES = (2, 3)
"""Sizes of the observed batches: a number that is 2k in one and 3k in the other counts rows."""


@dataclass(frozen=True)
class Seen:
    """How a tensor looked in an observed run."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Traced:
    """A network as a graph, observed at one image size.

    Attributes:
        network: what was traced.
        graph: its operations in order.
        ends: node that a module returned, by the module's name in the network; without modules
            that are called several times.
        facts: what each node gave for batches of two and of three pictures; see `Seen`.
        carrying: nodes whose values hold data of the pictures.
        cuts: last position of the stem, by the node at which the graph is cut.
    """

    network: nn.Module
    graph: fx.Graph
    ends: Mapping[str, fx.Node]
    facts: Mapping[fx.Node, tuple[Any, Any]]
    carrying: frozenset[fx.Node]
    cuts: Mapping[fx.Node, int]
    _prefix: str

    @property
    def output(self) -> fx.Node:
        """The node whose value the network returns."""
        return self.graph.output_node().args[0]  # pyright: ignore[reportReturnType]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Shape of one sample's value at a node that gives a tensor."""
        return self.facts[node][0].shape[1:]

    def name(self, target: Any) -> str:
        """The network's own name of what a node calls or reads."""
        return str(target).removeprefix(self._prefix)

    def part(self, name: str) -> nn.Module:
        """The module of a name in the network."""
        return self.network.get_submodule(self._prefix + name)

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a node calls."""
        return self.network.get_submodule(str(node.target))

    def named(self, target: str) -> Any:
        """The module, parameter or buffer that a node's target names."""
        found: Any = self.network
        for part in target.split("."):
            found = getattr(found, part)
        return found


class _Whole(nn.Module):
    """Calls a network with pixels alone, so that its other arguments keep their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)


class _Tracer(fx.Tracer):
    """Keeps modules of torch and modules without parts whole, and notes what each one returns."""

    def __init__(self) -> None:
        super().__init__(
            autowrap_functions=tuple(get_notrace_functions()), param_shapes_constant=True
        )
        self.returned: dict[str, list[fx.Node]] = {}
        self._whole = tuple(get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = super().is_leaf_module(m, module_qualified_name) or isinstance(m, self._whole)
        return known or not has_parts(m)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        returned = super().call_module(m, forward, args, kwargs)
        if isinstance(returned, fx.Proxy):
            self.returned.setdefault(self.path_of_module(m), []).append(returned.node)
        return returned


class _Observer(fx.Interpreter):
    """Runs a graph and keeps what each node gave, without the data."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.facts: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.facts[n] = _fact(value)
        return value


def has_parts(module: nn.Module) -> bool:
    """Whether a module has a child with parameters."""
    return any(next(child.parameters(), None) is not None for child in module.children())


def trace(network: nn.Module, size: tuple[int, int]) -> Traced:
    """Trace a network and find where it can be cut.

    Args:
        network: takes (B, 3, H, W) float32 and returns a tensor; in evaluation mode.
        size: (height, width) in pixels at which it is run.

    Raises:
        BackboneError: it cannot be traced, or gives other values once it is.
    """
    whole, tracer = _Whole(network).eval(), _Tracer()
    try:
        graph = tracer.trace(whole)
        observed = [_observe(whole, graph, batch, size) for batch in _BATCHES]
    except BackboneError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BackboneError(
            f"it cannot be traced, so it has no inner cuts ({reason}); its penultimate feature can "
            "be extracted: leave --cut out"
        ) from error
    facts = {node: (observed[0][node], observed[1][node]) for node in graph.nodes}
    carrying = frozenset(_carrying(graph, facts))
    prefix = "network.network." if isinstance(network, Stem) else "network."
    ends = {
        path.removeprefix(prefix): nodes[0]
        for path, nodes in tracer.returned.items()
        if path.startswith(prefix) and len(nodes) == 1
    }
    return Traced(whole, graph, ends, facts, carrying, _cuts(graph, facts, carrying), prefix)


def split_at_node(traced: Traced, node: fx.Node) -> InnerSplit:
    """Cut a network at a node of `Traced.cuts`."""
    nodes, position = list(traced.graph.nodes), traced.cuts[node]
    stem, tail = _Copy(traced, nodes[0], "pixels"), _Copy(traced, node, "activation")
    for before in nodes[: position + 1]:
        stem.add(before)
    for after in nodes[position + 1 :]:
        tail.add(after)
    return InnerSplit(
        stem.module(stem.place(node)), tail.module(tail.place(traced.output)), traced.shape(node)
    )


def uncut(traced: Traced) -> nn.Module:
    """The whole network as a tail: pixels to its output, parts under the network's own names."""
    nodes = list(traced.graph.nodes)
    copy = _Copy(traced, nodes[0], "pixels")
    for node in nodes[1:]:
        copy.add(node)
    return copy.module(copy.place(traced.output))


def with_outputs(
    traced: Traced, outputs: Iterable[tuple[fx.Node, nn.Module]], start: fx.Node | None = None
) -> nn.Module:
    """A network that returns a tuple: of each node's value, what the module beside it makes of it.

    Nothing behind the last of the nodes is run. A value is taken as soon as it is there, before
    anything behind it can change it in place.

    Args:
        traced: the network.
        outputs: nodes, and modules from a node's value to what is to be returned.
        start: a node of `Traced.cuts` below them all, whose value it takes; None takes pixels.
    """
    asked = list(outputs)
    nodes = list(traced.graph.nodes)
    made: dict[int, Any] = {}
    if start is None:
        copy = _Copy(traced, nodes[0], "pixels")
    else:
        copy, nodes = _Copy(traced, start, "activation"), nodes[traced.cuts[start] + 1 :]
    for node in nodes:
        copy.add(node)
        for number, (wanted, module) in enumerate(asked):
            if wanted is node:
                made[number] = copy.call(f"pooled_{number}", module, node)
        if len(made) == len(asked):
            break
    return copy.module(tuple(made[number] for number in range(len(asked))))


class _Copy:
    """A part of a traced network in the making: begins at a node, holds the network's modules."""

    def __init__(self, traced: Traced, start: fx.Node, name: str) -> None:
        self._traced = traced
        self._graph = fx.Graph()
        self._begin = self._graph.placeholder(name)
        self._placed: dict[fx.Node, Any] = {start: self._begin}
        self._targets: dict[str, Any] = {}

    def add(self, node: fx.Node) -> None:
        """Copy the next node; one that does not carry waits until it is needed."""
        if node in self._traced.carrying and node not in self._placed:
            self._placed[node] = self._copied(node)

    def place(self, node: fx.Node) -> Any:
        """The copy of a node, or what stands for it on this side of the cut."""
        if node not in self._placed:
            beyond = any(
                source in self._traced.carrying and source not in self._placed
                for source in node.all_input_nodes
            )
            self._placed[node] = self._derived(node) if beyond else self._copied(node)
        return self._placed[node]

    def call(self, name: str, module: nn.Module, node: fx.Node) -> fx.Node:
        """Call a module of one's own on the copy of a node."""
        self._targets[name] = module
        return self._graph.create_node("call_module", name, (self.place(node),))

    def module(self, returned: Any) -> fx.GraphModule:
        """What was copied, as a module that returns this."""
        self._graph.output(returned)
        return fx.GraphModule(self._targets, self._graph, "Part").eval()

    def _copied(self, node: fx.Node) -> fx.Node:
        copied = self._graph.node_copy(node, self.place)
        if node.op in ("call_module", "get_attr"):
            name = self._traced.name(node.target)
            copied.target = name
            self._targets[name] = self._traced.named(str(node.target))
        return copied

    def _derived(self, node: fx.Node) -> Any:
        """A shape, type or device of something beyond the cut, from what was observed of it."""
        return self._from_batch(*self._traced.facts[node])

    def _from_batch(self, two: Any, three: Any) -> Any:
        if isinstance(two, torch.device):
            return self._graph.call_function(getattr, (self._begin, "device"))
        if isinstance(two, torch.Size):
            return self._graph.call_function(torch.Size, (self._each(two, three),))
        if isinstance(two, tuple):
            return self._each(two, three)
        if two == three:
            return two
        rows, rest = divmod(two, _BATCHES[0])
        if rest or three != rows * _BATCHES[1]:
            raise BackboneError(f"no cut here: a size of {two} at two pictures is {three} at three")
        batch = self._graph.call_method("size", (self._begin, 0))
        return self._graph.call_function(operator.mul, (batch, rows))

    def _each(self, two: tuple[Any, ...], three: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(self._from_batch(a, b) for a, b in zip(two, three, strict=True))


def _observe(
    whole: nn.Module, graph: fx.Graph, batch: int, size: tuple[int, int]
) -> dict[fx.Node, Any]:
    """What each node gives for fixed random pictures; the end must be what the network gives."""
    pixels = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    observer = _Observer(fx.GraphModule(whole, graph))
    with torch.no_grad(), one_thread_if_light(whole):
        given = observer.run(pixels.clone())
        expected = whole(pixels)
    if not torch.equal(given, expected):
        raise BackboneError("it gives other values once it is traced, so it has no inner cuts")
    return observer.facts


def _fact(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Seen(tuple(value.shape), value.dtype)
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return tuple(_fact(part) for part in value)
    return value


def _carrying(graph: fx.Graph, facts: Mapping[fx.Node, tuple[Any, Any]]) -> Iterator[fx.Node]:
    found: set[fx.Node] = set()
    for node in graph.nodes:
        fed = node.op == "placeholder" or any(n in found for n in node.all_input_nodes)
        if node.op != "output" and fed and _holds_data(facts[node][0]):
            found.add(node)
            yield node


def _holds_data(fact: Any) -> bool:
    if isinstance(fact, tuple) and not isinstance(fact, torch.Size):
        return any(map(_holds_data, fact))
    return isinstance(fact, Seen | float)


def _cuts(
    graph: fx.Graph,
    facts: Mapping[fx.Node, tuple[Any, Any]],
    carrying: frozenset[fx.Node],
) -> dict[fx.Node, int]:
    """Nodes that are alone needed behind some position, and the first such position."""
    position = {node: i for i, node in enumerate(graph.nodes)}

    def last_use(node: fx.Node) -> int:
        users = (u for u in node.users if u in carrying or u.op == "output")
        return max((position[user] for user in users), default=-1)

    cuts: dict[fx.Node, int] = {}
    needed: dict[fx.Node, int] = {}
    for node, here in position.items():
        if node in carrying:
            needed[node] = last_use(node)
        needed = {n: last for n, last in needed.items() if last > here}
        if len(needed) == 1:
            (alone,) = needed
            if alone.op != "placeholder" and _is_rows(facts[alone]):
                cuts.setdefault(alone, here)
    return cuts


def _is_rows(facts: tuple[Any, Any]) -> bool:
    """Whether a node gave one activation a picture."""
    if not all(isinstance(fact, Seen) and fact.dtype.is_floating_point for fact in facts):
        return False
    shapes = [fact.shape for fact in facts]
    batches = tuple(shape[0] if shape else 0 for shape in shapes)
    return batches == _BATCHES and len(shapes[0]) > 1 and shapes[0][1:] == shapes[1][1:]
