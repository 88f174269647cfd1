"""Weights from a file or from memory, fitted to a network without silence about what is missing.

Only the last linear layer may be absent or of another number of classes: absent, the network keeps
none (`NoHead`); of another number, it gets the file's. So every tensor of the network is one of the
file's, and the network's identity is that of the tensors in use.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from featcache.backbones.cuts import LastLinear, NoHead, find_last_linear, replace_module
from featcache.backbones.seeding import undrawn
from featcache.backbones.threads import one_thread
from featcache.errors import BackboneError, WeightsError

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # in the order timm prefers
_PREFIXES = ("module.", "model.", "_orig_mod.")  # DistributedDataParallel, Lightning, torch.compile
_NAMED = 3  # tensors a message names


def read_state(path: str | Path) -> Mapping[str, Tensor]:
    """The tensors of a safetensors file or of a state dict saved with `torch.save`.

    Wrappers such as {"state_dict": ...} and a prefix that all names share are taken off; averaged
    (EMA) weights are preferred where a file holds both.

    Raises:
        WeightsError: the file is missing, damaged, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds more than tensors, and is not opened since that would run its code "
            f"({_first_line(error)}); save network.state_dict() with torch.save or safetensors, "
            "and give that file"
        ) from error
    except (
        safetensors.SafetensorError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
    ) as error:
        raise WeightsError(
            f"{path}: cannot be read as weights ({_first_line(error)}); give a .safetensors file "
            "or a state dict saved with torch.save"
        ) from error
    return _unwrapped(path, content)


def fit(
    network: nn.Module, state: Mapping[str, Tensor], size: tuple[int, int], origin: str
) -> None:
    """Fill a network with tensors, strictly but for its last linear layer.

    Args:
        network: changed in place; unusable if this raises.
        state: tensors by the network's own names.
        size: (height, width) at which the network runs, to find its last linear layer.
        origin: what the tensors are from and for, for messages.

    Raises:
        WeightsError: tensors are missing, unexpected or of another shape.
    """
    complete = _with_counters(network, _named_for(network, state))
    misfit = _load(network, complete)
    if misfit is None:
        return
    if _adopt_head(network, complete, size):
        misfit = _load(network, complete)
    if misfit is not None:
        raise WeightsError(
            f"{origin}: the weights are not of this network: {misfit}; give the file of the same "
            "network, whose last linear layer alone may differ"
        )


def _unwrapped(path: Path, content: Any) -> Mapping[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}: holds no tensors by name; save network.state_dict()")
    strangers = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise WeightsError(
            f"{path}: {strangers[0]!r} is no tensor; save network.state_dict() alone"
        )
    return _without_prefix(content)


def _without_prefix(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _without_prefix({k.removeprefix(prefix): v for k, v in state.items()})
    return state


def _named_for(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state as it is, or with the prefix back that turns out to be the network's own."""
    own = network.state_dict()
    for prefix in _PREFIXES:
        if not any(name in own for name in state) and any(prefix + name in own for name in state):
            return {prefix + name: tensor for name, tensor in state.items()}
    return state


def _with_counters(network: nn.Module, state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """The state with the batch counters that files of before PyTorch 0.4.1 lack.

    Layers read older layouts of themselves by the version in `_metadata`; tensors that come
    without it (safetensors) are in the current layout.
    """
    own = network.state_dict()
    complete = OrderedDict(state)
    for name, value in own.items():
        if name.endswith(".num_batches_tracked"):
            complete.setdefault(name, value)
    metadata = getattr(state, "_metadata", None) or getattr(own, "_metadata", None)
    complete._metadata = metadata  # pyright: ignore[reportAttributeAccessIssue]
    return complete


def _load(network: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """Load what fits; what does not, in words, or None."""
    own = network.state_dict()
    shapes = [
        f"{name} {list(state[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and not _alike(state[name], tensor)
    ]
    if shapes:
        return f"{len(shapes)} of another shape or kind ({_some(shapes)})"
    try:
        with one_thread():
            result = network.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        return _first_line(error)
    parts = [("missing", result.missing_keys), ("unexpected", result.unexpected_keys)]
    return "; ".join(f"{len(keys)} {what} ({_some(keys)})" for what, keys in parts if keys) or None


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.is_floating_point() == b.is_floating_point()


def _adopt_head(network: nn.Module, state: Mapping[str, Tensor], size: tuple[int, int]) -> bool:
    """Give the network the head of the weights, or none; whether its head was changed."""
    try:
        head = find_last_linear(network, size)
    except BackboneError:
        return False
    weight = state.get(f"{head.path}.weight")
    if weight is None:
        replace_module(network, head.path, NoHead())
    elif weight.shape[1:] == head.layer.weight.shape[1:]:
        bias = f"{head.path}.bias" in state
        with undrawn():
            replace_module(network, head.path, _head_like(head, weight.shape[0], bias=bias))
    else:
        return False
    return True


def _head_like(head: LastLinear, classes: int, *, bias: bool) -> nn.Module:
    if isinstance(head.layer, nn.Linear):
        return nn.Linear(head.layer.in_features, classes, bias=bias)
    return nn.Conv2d(head.layer.in_channels, classes, kernel_size=1, bias=bias)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
