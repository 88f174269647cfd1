"""What every library of networks offers: build one, publish weights for it, adapt it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from featcache.errors import BackboneError
from featcache.recipe import Preprocessing


class Origin(ABC):
    """One network of one library.

    Attributes:
        name: canonical name, as the user gives it.
        architecture: which code runs it, for the recipe.
        published_size: (height, width) in pixels the network is built for.
    """

    name: str
    architecture: str
    published_size: tuple[int, int]

    @abstractmethod
    def preprocessing(self, image_size: int | None = None) -> Preprocessing:
        """The published evaluation transform, or the same for another input size in pixels."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network as its library initialises it from the global random state."""

    @abstractmethod
    def published(self) -> tuple[nn.Module, dict[str, Any]]:
        """The network with its own weights, and the locator that finds them again.

        Raises:
            WeightsError: they cannot be had; the message lists what can be done.
        """

    def translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A published file's tensors under the names the network uses."""
        return state

    def converted(self, state: Mapping[str, Tensor]) -> nn.Module | None:
        """The network filled by the library's own conversion of a foreign file, if that works."""
        del state
        return None

    def resize(self, network: nn.Module, size: tuple[int, int]) -> None:
        """Make the network accept another input size, where its library knows how.

        Raises:
            BackboneError: the network is of fixed size.
        """
        del network, size


def fixed_size(origin: Origin, size: tuple[int, int], reason: str) -> BackboneError:
    """The error for a network that cannot take an input of `size`."""
    height, width = origin.published_size
    return BackboneError(
        f"{origin.name} cannot take pictures of {size[0]} x {size[1]} pixels ({reason}); it is "
        f"built for {height} x {width}: leave the image size out, or choose another backbone"
    )
