"""Where a network is cut in two: the stem below, whose activations are cached, and the tail above.

Depth 0 cuts at the input of the last linear layer. Which layer that is, is observed, not looked up
by name: the network runs once and the linear layer called last is taken out. What remains must give
features from which that layer computes the network's own output. Networks that average two heads
(distilled DeiT, RepViT, EfficientFormer) give the mean of the two inputs, as timm's own
`pre_logits` does. A network for which neither holds (a softmax at the end) is refused, since its
feature would be wrong.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featcache.backbones.threads import one_thread_if_light
from featcache.errors import BackboneError


@dataclass(frozen=True, eq=False)
class Split:
    """A network cut in two modules that share its parameters.

    Attributes:
        stem: normalised pictures (B, 3, H, W) to activations (B, *shape).
        tail: activations to the network's own output; None where that output is not a linear
            function of the feature (no classifier, or pooling after a non-linearity).
        shape: of one sample's activation at the cut.
    """

    stem: nn.Module
    tail: nn.Module | None
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class InnerSplit(Split):
    """A network cut at one of its own activations, from which its tail goes on."""

    tail: nn.Module


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a linear layer in an observed run.

    Attributes:
        path: the layer's dotted name in the network.
        layer: an `nn.Linear` or an `nn.Conv2d`.
        inputs: what it received.
        returned: what it gave.
    """

    path: str
    layer: nn.Linear | nn.Conv2d
    inputs: Tensor
    returned: Tensor


@dataclass(frozen=True, eq=False)
class LastLinear:
    """The linear layer a network calls last.

    Attributes:
        path: its dotted name in the network.
        layer: an `nn.Linear` or a 1 x 1 `nn.Conv2d`.
        inputs: what the layer received in the observed run.
        output: what the network returned in that run, (B, K).
        returned: what the layer gave.
        before: the call of a linear layer before it, None if there was none.
    """

    path: str
    layer: nn.Linear | nn.Conv2d
    inputs: Tensor
    output: Tensor
    returned: Tensor
    before: Call | None


class Stem(nn.Module):
    """A network without its last linear layer: (B, 3, H, W) to (B, width)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """The feature of each picture."""
        return self.network(pixels).flatten(1)


class NoHead(nn.Identity):
    """Stands where a network's last linear layer was and its weights brought none."""


def split_at_penultimate(network: nn.Module, size: tuple[int, int]) -> Split:
    """Cut a network at the input of its last linear layer (depth 0).

    The layer is replaced by the identity inside `network`, nothing is copied. A network that says
    it has no classifier (`num_classes == 0`, timm's convention) gives its output as the feature.

    Args:
        network: takes (B, 3, H, W) float32 and returns (B, K); in evaluation mode.
        size: (height, width) in pixels at which it is run.

    Raises:
        BackboneError: the network cannot run at that size, does not return one vector a picture,
            or its output is not that of one last linear layer. The network is left as it was.
    """
    stem = Stem(network)
    if _has_no_head(network):
        return Split(stem, None, (_run(network, size).shape[1],))
    head = find_last_linear(network, size)
    replace_module(network, head.path, nn.Identity())
    try:
        classifier = _checked_classifier(head, stem, size)
    except BackboneError:
        if _averages_two_heads(head, network, stem, size):
            return Split(stem, None, (_in_features(head.layer),))
        replace_module(network, head.path, head.layer)
        raise
    return Split(stem, classifier, (_in_features(head.layer),))


def find_last_linear(network: nn.Module, size: tuple[int, int]) -> LastLinear:
    """Run a network once and say which linear layer was called last.

    Raises:
        BackboneError: there is none, or the network does not run.
    """
    calls: deque[Call] = deque(maxlen=2)
    paths = {module: path for path, module in network.named_modules()}

    def remember(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(Call(paths[module], module, inputs[0].clone(), output.clone()))

    layers = [module for module in paths if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(remember) for layer in layers]
    try:
        output = _run(network, size)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or not calls[-1].path:
        raise BackboneError("it has no linear layer at its end; the feature is the input of one")
    last = calls.pop()
    if isinstance(last.layer, nn.Conv2d) and not _is_pointwise(last.layer):
        raise BackboneError(f"its last layer, {last.path}, is a convolution, not a linear layer")
    before = calls.pop() if calls else None
    return LastLinear(last.path, last.layer, last.inputs, output, last.returned, before)


def replace_module(network: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a dotted path of a network."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


def _has_no_head(network: nn.Module) -> bool:
    said = getattr(network, "num_classes", None) == 0
    return said or any(isinstance(module, NoHead) for module in network.modules())


def _run(network: nn.Module, size: tuple[int, int]) -> Tensor:
    """The output of a network on two fixed random pictures, (2, K)."""
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad(), one_thread_if_light(network):
            output = network(torch.randn(2, 3, *size, generator=generator))
    except (MemoryError, RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        reason = str(error).strip() or type(error).__name__
        raise BackboneError(f"it does not run at {size[0]} x {size[1]} pixels: {reason}") from error
    if not isinstance(output, Tensor) or not _is_vectors(output):
        given = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise BackboneError(f"it returns {given} for two pictures; one vector each is needed")
    return output


def _is_vectors(output: Tensor) -> bool:
    return output.ndim >= 2 and output.shape[0] == 2 and output[0].numel() == output.shape[1]


def _checked_classifier(head: LastLinear, stem: Stem, size: tuple[int, int]) -> nn.Linear | None:
    """The last linear layer, once it is shown that the stem gives its input.

    With the layer L, its observed input Z and the network's output Y, the feature F must satisfy
    L(F) = Y, and F = Z where Z is one vector a picture. A 1 x 1 convolution followed by a
    non-linearity and pooling (SqueezeNet) cannot satisfy L(F) = Y; for it F must be the mean of Z.
    """
    classifier = _as_linear(head.layer)
    try:
        feature = _run(stem, size)
    except BackboneError as error:
        raise BackboneError(_not_last(head.path)) from error
    if feature.shape[1] != classifier.in_features:
        raise BackboneError(_not_last(head.path))
    with torch.no_grad():
        gives_output = _close(classifier(feature), head.output.flatten(1))
    one_vector = head.inputs.flatten(1).shape == feature.shape
    if gives_output and (not one_vector or _close(feature, head.inputs.flatten(1))):
        return classifier
    is_map = isinstance(head.layer, nn.Conv2d) and not one_vector
    if is_map and _close(feature, head.inputs.mean(dim=(2, 3))):
        return None
    raise BackboneError(_not_last(head.path))


def _averages_two_heads(
    head: LastLinear, network: nn.Module, stem: nn.Module, size: tuple[int, int]
) -> bool:
    """Whether the output was the mean of two layers; then the stem is left without either.

    The last one, already replaced, stays replaced; the other is, and is put back if it was none.
    """
    other = head.before
    if other is None or other.returned.shape != head.returned.shape:
        return False
    if not _close((head.returned + other.returned) / 2, head.output):
        return False
    replace_module(network, other.path, nn.Identity())
    try:
        feature = _run(stem, size)
    except BackboneError:
        feature = None
    if _is_mean(feature, head.inputs, other.inputs):
        return True
    replace_module(network, other.path, other.layer)
    return False


def _is_mean(feature: Tensor | None, a: Tensor, b: Tensor) -> bool:
    if feature is None or not feature.shape == a.shape == b.shape:
        return False
    return _close(feature, (a + b) / 2)


def _not_last(path: str) -> str:
    return (
        f"its output is not that of one last linear layer ({path} is called last, but does not "
        "give the output from the feature: heads that differ, or something behind the head); use a "
        "variant with one head, or a factory (package.module:factory) whose network returns the "
        "features themselves and says num_classes = 0"
    )


def _is_pointwise(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.groups == 1


def _in_features(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _as_linear(layer: nn.Linear | nn.Conv2d) -> nn.Linear:
    """The layer on vectors; a 1 x 1 convolution as a linear layer that shares its parameters."""
    if isinstance(layer, nn.Linear):
        return layer
    linear = nn.Linear(
        layer.in_channels, layer.out_channels, bias=layer.bias is not None, device="meta"
    )
    linear.weight = nn.Parameter(layer.weight.flatten(1), requires_grad=False)
    linear.bias = layer.bias  # pyright: ignore[reportAttributeAccessIssue]
    return linear.eval()


def _close(a: Tensor, b: Tensor) -> bool:
    finite = bool(b.isfinite().all())
    return finite and torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))
