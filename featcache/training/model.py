"""A tail and a linear head as one module that trains, and what is read back from it.

The tail is a copy: nothing that is trained here is a part of the network it came from. Tensors of
the tail keep the names they have in the original network, as `Split` gives them, so that a tuned
network is the original one with some tensors replaced.

What tracing in evaluation mode fixed stays fixed: dropout and drop path that a network calls as
functions (attention's dropout, timm's `drop_rate` before the classifier) never act in a tail;
those that are modules act while it trains.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from featcache.errors import TrainingError
from featcache.heads.hidden import HiddenUnits
from featcache.heads.linear import LinearHead, Loss

_SCALE_FLOOR = 0.1
"""Least scale of a column that an MLP divides by, over the columns' root mean square.

Many columns of a pooled feature are dead on most pictures. Divided by their own scale they drown
the others: with a floor of 1e-3 the digits' held-out accuracy fell from 95% to 90%.
"""

_DRAW_HIDDEN = 1
"""What a seed is used for beside the head, so that the two draw apart."""


class Standardized(nn.Module):
    """Columns less their mean, over their scale; both are fixed.

    Args:
        mean: (D,). scale: (D,), positive.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)))
        self.register_buffer("scale", torch.from_numpy(scale.astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        """(n, D) to (n, D)."""
        return (x - self.mean) / self.scale


class TunedModel(nn.Module):
    """Activations (n, *shape), or pixels where it has a stem, to logits (n, K).

    Attributes:
        tail: activations to features (n, D); trained.
        head: features to logits; trained.
        stem: what gives the activations, never trained nor copied; None where they are given.
        loss, multi_label: how logits are read; see `LinearHead`.
    """

    def __init__(
        self,
        tail: nn.Module,
        head: nn.Linear,
        loss: Loss,
        *,
        multi_label: bool = False,
        stem: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.tail, self.head, self.stem = tail, head, stem
        self.loss: Loss = loss
        self.multi_label = multi_label

    def features(self, given: Tensor) -> Tensor:
        """(n, D) features of a batch; no gradient reaches the stem."""
        if self.stem is not None:
            with torch.no_grad():
                given = self.stem(given)
        return self.tail(given)

    def forward(self, given: Tensor) -> Tensor:
        """(n, K) logits; the head computes in float32 whatever the tail gave."""
        features = self.features(given).float()
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features)

    def copied(self, device: str | torch.device = "cpu") -> Self:
        """The same on a device, with a tail and a head of its own."""
        stem, there = self.stem, torch.device(device)
        if stem is not None and any(t.device != there for t in stem.state_dict().values()):
            stem = copy.deepcopy(stem).to(there)
        tail, head = copy.deepcopy(self.tail), copy.deepcopy(self.head)
        own = type(self)(tail, head, self.loss, multi_label=self.multi_label, stem=stem)
        return own.to(there)


def model_of(
    tail: nn.Module,
    head: LinearHead,
    *,
    tuned: Mapping[str, Tensor] | None = None,
    stem: nn.Module | None = None,
) -> TunedModel:
    """Join a copy of a tail with a head: what trains from a solved probe (arXiv 2202.10054).

    Args:
        tail: activations to features (n, D).
        head: for D features.
        tuned: tensors of `tuned_tensors`, put in place of the tail's own; of a shallower depth,
            say.
        stem: gives the activations from pixels, where those are not cached.

    Raises:
        TrainingError: a tuned tensor is none of the tail's, or has another shape.
    """
    own = _laid_out(copy.deepcopy(tail)).eval().requires_grad_(requires_grad=True)
    _replace(own, tuned or {})
    layer = nn.Linear(head.coef.shape[1], head.coef.shape[0], device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.coef))
        layer.bias.copy_(torch.from_numpy(head.bias))
    return TunedModel(own, layer, head.loss, multi_label=head.multi_label, stem=stem)


def head_of(model: TunedModel) -> LinearHead:
    """The head as it is now."""
    coef, bias = (t.detach().cpu().numpy().copy() for t in (model.head.weight, model.head.bias))
    return LinearHead(model.loss, coef, bias, model.multi_label)


def tuned_tensors(model: TunedModel, original: nn.Module | None = None) -> dict[str, Tensor]:
    """Copies of the tail's parameters and buffers, on the CPU, by their names in the network.

    Args:
        model: trained.
        original: the tail it was made from; then only what differs from that one's.
    """
    held = {name: t.detach().cpu().clone() for name, t in model.tail.state_dict().items()}
    if original is None:
        return held
    before = original.state_dict()
    return {name: t for name, t in held.items() if not torch.equal(t, before[name].cpu())}


def untrained_head(
    classes: int, width: int, loss: Loss, seed: int, *, multi_label: bool = False
) -> LinearHead:
    """A head to start from where none is solved: coefficients as torch initialises them, bias 0."""
    bound = 1 / np.sqrt(width)
    rng = np.random.default_rng(seed)
    coef = rng.uniform(-bound, bound, (classes, width)).astype(np.float32)
    return LinearHead(loss, coef, np.zeros(classes, np.float32), multi_label)


def mlp_tail(
    width: int,
    hidden: int,
    dropout: float,
    seed: int,
    *,
    mean: npt.NDArray[np.floating] | None = None,
    scale: npt.NDArray[np.floating] | None = None,
) -> nn.Sequential:
    """New hidden units on features: (n, width) to (n, hidden), to be trained with a head.

    The units take standardised features, so that neither their initial weights nor the sensible
    rates depend on a feature's scale; `hidden_of` folds that in.

    Args:
        width: of the features.
        hidden: how many units.
        dropout: share of them that is left out at each step.
        seed: of the initial weights.
        mean: (width,) of the training rows; None is 0.
        scale: (width,) of the training rows, None is 1. Scales have a floor, so that a column that
            hardly ever moves stays harmless.

    Raises:
        TrainingError: no unit, or all of them left out.
    """
    if hidden < 1 or not 0 <= dropout < 1:
        raise TrainingError(
            f"{hidden} hidden units, dropout {dropout}: give at least 1, and 0 to below 1"
        )
    bound = 1 / np.sqrt(width)
    rng = np.random.default_rng([seed, _DRAW_HIDDEN])
    weight = rng.uniform(-bound, bound, (hidden, width))
    mean = np.zeros(width) if mean is None else mean
    scale = np.ones(width) if scale is None else scale
    floor = _SCALE_FLOOR * np.sqrt(np.mean(np.square(scale, dtype=np.float64)))
    layer = nn.Linear(width, hidden, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.zero_()
    standardized = Standardized(mean, np.maximum(scale, floor or 1.0))
    return nn.Sequential(standardized, layer, nn.ReLU(), nn.Dropout(dropout)).eval()


def hidden_of(tensors: Mapping[str, Tensor]) -> HiddenUnits:
    """The units of an MLP's tail, for features as they are.

    Args:
        tensors: `tuned_tensors` of a model whose tail `mlp_tail` made.
    """
    names = ("0.mean", "0.scale", "1.weight", "1.bias")
    mean, scale, weight, bias = (tensors[name].double().numpy() for name in names)
    coef = weight / scale
    return HiddenUnits(coef.astype(np.float32), (bias - coef @ mean).astype(np.float32))


def _laid_out(tail: nn.Module) -> nn.Module:
    """The tail with its tensors in row-major order.

    An engine that ran the network before left them channels last, which rounds otherwise.
    """
    for tensor in (*tail.parameters(), *tail.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return tail


def _replace(tail: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = tail.state_dict()
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            there = (
                "is not in the tail" if name not in own else f"is {tuple(own[name].shape)} there"
            )
            raise TrainingError(
                f"tuned tensor {name}, {tuple(tensor.shape)}, {there}; give tensors of the same "
                "network, tuned at this depth or a shallower one"
            )
    tail.load_state_dict(dict(tensors), strict=False)
