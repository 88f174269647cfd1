"""Which rate each parameter has, and which ones decay.

The lower a unit, the smaller its rate: depth d has decay^d of the base, and what stands above the
topmost unit (a last norm) has the base, as the head has times its factor. That is timm's layer
decay, in the units of the cut. Weight decay acts on matrices and kernels: parameters of two
dimensions or more that are no norm's and no bias (fastai's and timm's rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from featcache.errors import TrainingError
from featcache.training.model import TunedModel
from featcache.training.spec import TrainingSpec

ABOVE = "above"
"""Names the group of what stands above the topmost unit."""

HEAD = "head"


@dataclass(frozen=True, eq=False)
class Group:
    """Parameters with one rate and one weight decay.

    Attributes:
        name: "head", "above" or a unit's.
        parameters: of it.
        rate: that the schedule reaches.
        weight_decay: 0 for biases and norms.
    """

    name: str
    parameters: list[nn.Parameter]
    rate: float
    weight_decay: float


def parameter_groups(
    model: TunedModel, spec: TrainingSpec, units: Sequence[str] = ()
) -> list[Group]:
    """Groups of all parameters of tail and head, from the head down.

    Args:
        model: what is trained.
        spec: rate, head_factor, unit_decay, weight_decay.
        units: names of the tail's units from the top; without any the tail has the base rate.

    Raises:
        TrainingError: the tail holds nothing of a unit.
    """
    depths = depths_of(model.tail, units)
    by_depth: dict[int, list[nn.Parameter]] = {depth: [] for depth in range(len(units) + 1)}
    for name, parameter in model.tail.named_parameters():
        by_depth[depths[name]].append(parameter)
    groups = _by_decay(HEAD, list(model.head.parameters()), spec.rate * spec.head_factor, spec)
    for depth, parameters in by_depth.items():
        name = units[depth - 1] if depth else ABOVE
        groups += _by_decay(name, parameters, spec.rate * spec.unit_decay**depth, spec)
    return groups


def depths_of(tail: nn.Module, units: Sequence[str]) -> dict[str, int]:
    """Depth of each parameter of a tail, by name: 1 in the topmost unit, 0 above it.

    A unit ends with the last operation of the module it is named after, and takes along what
    stands between it and the unit below (a convolution before the norm it is named after).
    """
    if not units:
        return {name: 0 for name, _ in tail.named_parameters()}
    if not isinstance(tail, fx.GraphModule):
        raise TrainingError(
            f"units {', '.join(units)}: this tail is not cut from a traced network, so it has no "
            "units; leave them out"
        )
    owners = [str(n.target) for n in tail.graph.nodes if n.op in ("call_module", "get_attr")]
    ends = {unit: _last_of(unit, owners) for unit in units}
    found: dict[str, int] = {}
    for place, owner in enumerate(owners):
        depth = next((d for d, u in _from_below(units) if place <= ends[u]), 0)
        found.setdefault(owner, depth)
    return {name: found[_owner(name, found)] for name, _ in tail.named_parameters()}


def _from_below(units: Sequence[str]) -> list[tuple[int, str]]:
    return sorted(enumerate(units, 1), reverse=True)


def _last_of(unit: str, owners: Sequence[str]) -> int:
    places = [i for i, owner in enumerate(owners) if f"{owner}.".startswith(f"{unit}.")]
    if not places:
        raise TrainingError(
            f"unit {unit!r}: the tail holds nothing of it; name the units above the cut, from the "
            "top"
        )
    return places[-1]


def _owner(name: str, owners: dict[str, int]) -> str:
    """The longest prefix of a parameter's name that is called or read in the graph."""
    while name not in owners:
        name = name.rpartition(".")[0]
    return name


def _by_decay(
    name: str, parameters: list[nn.Parameter], rate: float, spec: TrainingSpec
) -> list[Group]:
    """One group of what decays and one of what does not; none that is empty."""
    matrices = [p for p in parameters if p.ndim >= 2]
    rest = [p for p in parameters if p.ndim < 2]
    split = ((matrices, spec.weight_decay), (rest, 0.0))
    return [Group(name, held, rate, decay) for held, decay in split if held]
