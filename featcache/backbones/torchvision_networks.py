"""Classification networks of torchvision, by their own names (`resnet50`)."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from featcache.backbones.fetching import is_downloaded, no_weights, require_reachable
from featcache.backbones.origin import Origin
from featcache.backbones.published import from_torchvision, scaled
from featcache.backbones.seeding import undrawn
from featcache.errors import WeightsError
from featcache.lean import compiler_deferred
from featcache.recipe import Preprocessing

with compiler_deferred():
    import torchvision.models

_INCEPTIONS = ("googlenet", "inception_v3")
_AUXILIARY = ("aux1", "aux2", "AuxLogits")  # heads that only training uses
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@functools.cache
def names() -> tuple[str, ...]:
    """The classification networks torchvision registers."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def published_side(name: str) -> int:
    """Side in pixels of the default weights' input."""
    return torchvision.models.get_model_weights(name)["DEFAULT"].transforms().crop_size[0]


class TorchvisionOrigin(Origin):
    """A network of torchvision with one of its published weights."""

    def __init__(self, name: str, tag: str | None = None) -> None:
        self.name = name
        self.architecture = f"torchvision/{name}"
        entries = torchvision.models.get_model_weights(name)
        if tag is not None and tag not in entries.__members__:
            known = ", ".join(entries.__members__)
            raise WeightsError(f"{name}: torchvision has no weights {tag!r}; it has {known}")
        self.weights = entries[tag] if tag else entries["DEFAULT"]
        self.published_size = self.preprocessing().size

    def preprocessing(self, image_size: int | None = None) -> Preprocessing:
        """The transform of the weights, or the same at another size."""
        published = from_torchvision(self.weights.transforms())
        return published if image_size is None else scaled(published, image_size)

    def build(self) -> nn.Module:
        """The network without auxiliary heads, taking the input its published weights take."""
        options: dict[str, Any] = {}
        if self.name in _INCEPTIONS:
            options = {"aux_logits": False, "init_weights": False, "transform_input": True}
        return torchvision.models.get_model(self.name, weights=None, **options)

    def published(self) -> tuple[nn.Module, dict[str, Any]]:
        """The network as torchvision loads it, without auxiliary heads."""
        url = self.weights.url
        if not is_downloaded(url):
            require_reachable(self.name, url)
        try:
            with undrawn():  # torchvision loads strictly
                network = torchvision.models.get_model(self.name, weights=self.weights)
        except (OSError, RuntimeError) as error:
            happened = f"the weights could not be fetched ({error})"
            raise no_weights(self.name, happened, url) from error
        if self.name in _INCEPTIONS:
            _drop_auxiliary_heads(network)
        return network, {"kind": "default", "tag": self.weights.name}

    def translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Names of torchvision's own files as its networks use them."""
        if self.name in _INCEPTIONS:
            return {k: v for k, v in state.items() if k.split(".")[0] not in _AUXILIARY}
        if self.name.startswith("densenet"):
            return {_OLD_DENSENET.sub(r"\1\2", k): v for k, v in state.items()}
        return state


def _drop_auxiliary_heads(network: nn.Module) -> None:
    network.aux_logits = False  # pyright: ignore[reportArgumentType]
    for name in _AUXILIARY:
        if hasattr(network, name):
            setattr(network, name, None)
