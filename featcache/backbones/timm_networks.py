"""Networks of timm, as `timm/NAME` or `timm/NAME.TAG`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from featcache.backbones.fetching import (
    hub_copy,
    hub_url,
    is_downloaded,
    no_weights,
    require_reachable,
)
from featcache.backbones.identity import tensors_sha256
from featcache.backbones.origin import Origin, fixed_size
from featcache.backbones.published import from_timm
from featcache.backbones.seeding import seeded
from featcache.errors import BackboneError
from featcache.lean import compiler_deferred
from featcache.recipe import Preprocessing

with compiler_deferred():
    import timm
    import timm.models

PREFIX = "timm/"

_CONVERSION_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)


@functools.cache
def names() -> tuple[str, ...]:
    """The architectures timm lists, without prefix and tag."""
    return tuple(timm.list_models())


@functools.cache
def tagged_names() -> tuple[str, ...]:
    """Every published weights' name, architecture.tag, without prefix."""
    return tuple(timm.list_models(pretrained=True))


def config(name: str) -> Any:
    """What timm publishes (a `PretrainedCfg`) of an architecture or of a tagged name."""
    return timm.models.get_pretrained_cfg(name)


class TimmOrigin(Origin):
    """A network of timm with one of its published weights.

    Args:
        name: an architecture or architecture.tag that timm lists, without prefix.
        alias: the canonical name if it is not `timm/<name>`.
    """

    def __init__(self, name: str, alias: str | None = None) -> None:
        self.variant = name
        self.name = alias or PREFIX + name
        self.architecture = PREFIX + name.partition(".")[0]
        self.config = config(name)
        self.published_size = tuple(self.config.input_size[1:])

    def preprocessing(self, image_size: int | None = None) -> Preprocessing:
        """What timm's evaluation transform does."""
        try:
            return from_timm(self.config.to_dict(), image_size)
        except BackboneError as error:
            raise BackboneError(f"{self.name}: {error}") from error

    def build(self) -> nn.Module:
        """The network as timm initialises it."""
        return timm.create_model(self.variant)

    def published(self) -> tuple[nn.Module, dict[str, Any]]:
        """The network as timm loads it."""
        if not self.config.has_weights:
            raise no_weights(self.name, "timm publishes no weights for it")
        overlay = self._downloaded_copy()
        try:
            network = timm.create_model(
                self.variant, pretrained=True, pretrained_cfg_overlay=overlay
            )
        except (OSError, RuntimeError, ValueError) as error:
            happened = f"the weights could not be fetched ({error})"
            raise no_weights(self.name, happened, self._url()) from error
        return network, {"kind": "default", "tag": self.config.tag}

    def converted(self, state: Mapping[str, Tensor]) -> nn.Module | None:
        """Let timm convert a file in a network's original naming, if it fills every tensor."""
        overlay = {"state_dict": dict(state), "custom_load": False}
        networks = []
        try:
            for seed in (0, 1):  # a tensor the file does not fill would differ between the two
                with seeded(seed):
                    network = timm.create_model(
                        self.variant, pretrained=True, pretrained_cfg_overlay=overlay
                    )
                networks.append(network)
        except _CONVERSION_ERRORS:
            return None
        first, second = (tensors_sha256(network.state_dict()) for network in networks)
        return networks[0] if first == second else None

    def resize(self, network: nn.Module, size: tuple[int, int]) -> None:
        """Resample position embeddings and windows where the network is of fixed size."""
        if not self.config.fixed_input_size:
            return
        set_input_size = getattr(network, "set_input_size", None)
        if set_input_size is None:
            raise fixed_size(self, size, "timm cannot change its input size")
        try:
            with torch.no_grad():
                set_input_size(img_size=size)
        except (AssertionError, ValueError, RuntimeError) as error:
            raise fixed_size(self, size, str(error) or "timm refuses that size") from error

    def _downloaded_copy(self) -> dict[str, Any]:
        """Where timm is to look for the file, once it is known to be there or reachable."""
        if self.config.hf_hub_id and not self.config.hf_hub_filename:
            copy = hub_copy(self.config.hf_hub_id)
            if copy is not None:
                return {"file": str(copy), "custom_load": False}
            require_reachable(self.name, hub_url(self.config.hf_hub_id))
        elif self.config.url and not is_downloaded(self.config.url):
            require_reachable(self.name, self.config.url)
        return {}

    def _url(self) -> str | None:
        return hub_url(self.config.hf_hub_id) if self.config.hf_hub_id else self.config.url
