"""The tuned tail as tensors: what training changed of a backbone, and a copy of it so changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from featcache.backbones.cuts import Stem
from featcache.backbones.registry import Backbone
from featcache.backbones.tracing import trace
from featcache.backbones.units import split_at
from featcache.errors import ClassifierError
from featcache.recipe import PENULTIMATE

_NAMED = 3


def tuned_tensors(tail: nn.Module, backbone: Backbone) -> dict[str, Tensor]:
    """Parameters and buffers of a tail that are no longer the backbone's, by the network's names.

    Buffers that the network does not save (constants of the trace, index tables) are no part of it.

    Args:
        tail: of the backbone, as `split_at` names its parts; trained, on any device.
        backbone: as it was before; not changed.

    Raises:
        ClassifierError: a parameter is not of this network, or a tensor of another shape or dtype.
    """
    original = backbone.state()
    known = original.keys() | dict(tail.named_parameters()).keys()
    held = {name: tensor for name, tensor in tail.state_dict().items() if name in known}
    state = {name: tensor.detach().cpu() for name, tensor in held.items()}
    _check(state, original)
    return {
        name: tensor.clone().contiguous()
        for name, tensor in state.items()
        if not torch.equal(tensor, original[name].cpu())
    }


def tuned_stem(stem: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a backbone's stem with some tensors replaced; the stem itself if there are none.

    Args:
        stem: pixels to features; not changed.
        tensors: by the network's own names.

    Raises:
        ClassifierError: a tensor is not of this network, or of another shape or dtype.
    """
    if not tensors:
        return stem
    tuned = copy.deepcopy(stem)
    network = tuned.network if isinstance(tuned, Stem) else tuned
    _check(tensors, network.state_dict())
    network.load_state_dict(dict(tensors), strict=False)
    return tuned.train().eval()  # networks that keep biases they looked up forget them in training


class _Halved(nn.Module):
    """Rounds to half precision, as the store does."""

    def forward(self, activation: Tensor) -> Tensor:
        return activation.half().float()


def halved_at(stem: nn.Module, cut: str, size: tuple[int, int]) -> nn.Module:
    """A stem whose activation at a cut is rounded as a cache of half precision holds it.

    Args:
        stem: pixels to features; shares its parameters with what is returned.
        cut: name of a unit, or `PENULTIMATE`.
        size: (height, width) in pixels at which it is run.

    Raises:
        BackboneError: there is no such cut.
    """
    if cut == PENULTIMATE:
        return nn.Sequential(stem, _Halved()).eval()
    split = split_at(trace(stem, size), cut)
    return nn.Sequential(split.stem, _Halved(), split.tail).eval()  # pyright: ignore[reportArgumentType] - a unit has a tail


def _check(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    strangers = [name for name in tensors if name not in own]
    if strangers:
        raise ClassifierError(
            f"{len(strangers)} tuned tensors are not of this network ({_some(strangers)}); use the "
            "backbone they were trained from, or train and save again"
        )
    misfits = [
        f"{name} {_kind(tensor)} instead of {_kind(own[name])}"
        for name, tensor in tensors.items()
        if (tensor.shape, tensor.dtype) != (own[name].shape, own[name].dtype)
    ]
    if misfits:
        raise ClassifierError(
            f"{len(misfits)} tuned tensors do not fit the network ({_some(misfits)}); use the "
            "backbone they were trained from, or train and save again"
        )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
