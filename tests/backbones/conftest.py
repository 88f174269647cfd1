from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torchvision.transforms import v2

from featcache.recipe import Preprocessing

RESIZE = {
    "shorter": lambda p, how: v2.Resize(p.resize[0], how),
    "exact": lambda p, how: v2.Resize(list(p.resize), how),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from threads, which wait long where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Real photographs, wide and square, from scikit-image."""
    return [
        Image.fromarray(picture) for picture in (data.chelsea(), data.astronaut(), data.coffee())
    ]


@pytest.fixture(scope="session")
def transform() -> Callable[[Preprocessing], Callable[[Image.Image], Tensor]]:
    """A torchvision transform made from the fields of a `Preprocessing` alone."""

    def make(p: Preprocessing) -> Callable[[Image.Image], Tensor]:
        how = v2.InterpolationMode(p.interpolation)
        return v2.Compose(
            [
                RESIZE[p.resize_mode](p, how),
                v2.CenterCrop(list(p.size)),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(p.mean), list(p.std)),
            ]
        )

    return make


@pytest.fixture(scope="session")
def penultimate() -> Callable[[nn.Module, str, Tensor], Tensor]:
    """What a network's layer of a given name receives: the referee for features."""

    def run(network: nn.Module, layer: str, pixels: Tensor) -> Tensor:
        received: list[Tensor] = []
        hook = network.get_submodule(layer).register_forward_pre_hook(
            lambda _module, inputs: received.append(inputs[0])
        )
        with torch.no_grad():
            network.eval()(pixels)
        hook.remove()
        return received[0].flatten(1)

    return run
