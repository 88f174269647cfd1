"""Views: augmented copies of a picture, by torchvision's own transforms.

A view is a function of the picture's pixels, the policy, its seed, the content hash and the view's
number, whoever computes it and beside what. torchvision's transforms draw from torch's global
generator, which all threads share; here each view has a generator of its own, and a
`TorchFunctionMode` (of which each thread has its own stack) hands it to every draw that is made
within. So decoding threads wait for no lock, and the global generator does not move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

from featcache.errors import AugmentationError
from featcache.images.policies import MAGNITUDES
from featcache.images.transforms import mean_colour, refuse_too_narrow
from featcache.lean import compiler_deferred
from featcache.recipe import TTA, Preprocessing, View

with compiler_deferred():
    from torchvision import transforms as T  # noqa: N812 (its name everywhere)
    from torchvision.transforms import InterpolationMode

_CROPS = (0.35, 1.0)
"""Shares of the picture that a random crop takes; ratios are torchvision's."""

_WARPS = ("nearest", "bilinear", "bicubic")
"""Filters that Pillow knows for rotation and shear; for the others it is bilinear."""

Transform = Callable[[Image.Image], Image.Image]


def drawn_pixels(
    image: Image.Image, preprocessing: Preprocessing, view: View, content: bytes
) -> np.ndarray:
    """A view whose policy draws; see `view_pixels`."""
    refuse_too_narrow(image, preprocessing)
    with _Drawing(_seed(view, content)):
        return np.array(transform_of(view.policy, preprocessing)(image))


@lru_cache
def transform_of(policy: str, preprocessing: Preprocessing) -> Transform:
    """What a policy does, from a picture of any size to one of the recipe's."""
    name, _, numbers = policy.partition(":")
    warp = _warp(preprocessing)
    colour: Any = list(mean_colour(preprocessing))  # as torchvision takes it at run time
    more: list[Transform] = []
    if name == "standard":
        more = [T.RandomAffine(10, shear=10, interpolation=warp, fill=colour)]
        more += [T.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05)]
    elif name == "randaugment":
        count, magnitude = map(int, numbers.split(","))
        more = [T.RandAugment(count, magnitude, MAGNITUDES, warp, fill=colour)]
    elif name == "trivial":
        more = [T.TrivialAugmentWide(MAGNITUDES, warp, fill=colour)]
    elif name != TTA:
        raise AugmentationError(f"view of policy {policy!r}: not one of this version of featcache")
    how = InterpolationMode(preprocessing.interpolation)
    crop = T.RandomResizedCrop(preprocessing.size, scale=_CROPS, interpolation=how)
    return T.Compose([crop, T.RandomHorizontalFlip(), *more])


def _warp(preprocessing: Preprocessing) -> InterpolationMode:
    name = preprocessing.interpolation
    return InterpolationMode(name if name in _WARPS else "bilinear")


def _seed(view: View, content: bytes) -> int:
    """64 bits of the policy's seed, the content and the view's number."""
    key = f"featcache view {view.seed} {view.number} ".encode() + content
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little", signed=True)


class _Drawing(TorchFunctionMode):
    """Within it, in this thread, what is drawn from the global generator comes from an own one."""

    _DRAWS = frozenset(
        (
            *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal),
            *(torch.bernoulli, torch.multinomial, torch.Tensor.uniform_, torch.Tensor.normal_),
            *(torch.Tensor.random_, torch.Tensor.bernoulli_),
        )
    )

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {"generator": self._generator} if func in self._DRAWS else {}
        return func(*args, **given, **(kwargs or {}))
