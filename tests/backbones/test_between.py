"""What stands between two cuts gives the upper activation from the lower one, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from featcache.backbones.pooling import between
from featcache.backbones.registry import load_backbone
from featcache.backbones.tracing import Traced, trace
from featcache.backbones.units import list_units, split_at
from featcache.errors import BackboneError

NETWORKS = [
    ("timm/test_resnet", 64),
    ("timm/test_vit", 160),
    ("resnet18", 64),
    ("mobilenet_v2", 64),
    ("timm/convnextv2_atto", 64),
    pytest.param("densenet121", 64, marks=pytest.mark.slow),
    pytest.param("swin_t", 64, marks=pytest.mark.slow),
    pytest.param("timm/vit_tiny_patch16_224", 64, marks=pytest.mark.slow),
    pytest.param("timm/tf_efficientnet_lite0", 64, marks=pytest.mark.slow),
]


def traced_of(name: str, side: int) -> Traced:
    backbone = load_backbone(name, weights="random", image_size=side)
    return trace(backbone.stem, backbone.preprocessing.size)


def pictures(side: int, count: int = 3) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize(("name", "side"), NETWORKS)
def test_it_goes_on_from_a_stem_as_the_network_does(name: str, side: int) -> None:
    traced, pixels = traced_of(name, side), pictures(side)
    units = [unit.name for unit in list_units(traced)]
    middle = units[len(units) // 2]
    for lower, uppers in [(units[-1], units[:-1]), (middle, units[:2]), (units[1], units[:1])]:
        below = split_at(traced, lower).stem(pixels.clone())
        given = between(traced, lower, uppers)(below.clone())
        for upper, activation in zip(uppers, given, strict=True):
            expected = split_at(traced, upper).stem(pixels.clone())
            assert torch.equal(activation, expected), (lower, upper)


@torch.no_grad()
@pytest.mark.parametrize(("name", "side"), NETWORKS[:2])
def test_from_half_precision_it_is_right_within_rounding(name: str, side: int) -> None:
    traced, pixels = traced_of(name, side), pictures(side)
    units = [unit.name for unit in list_units(traced)]
    lower, upper = units[3], units[0]
    rounded = split_at(traced, lower).stem(pixels).half().float()
    (found,) = between(traced, lower, [upper])(rounded)
    expected = split_at(traced, upper).stem(pixels)
    difference = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert 0 < float(difference.max()) < 2e-3


def test_nothing_below_the_lower_cut_is_in_it() -> None:
    traced = traced_of("timm/test_resnet", 64)
    units = [unit.name for unit in list_units(traced)]
    part = between(traced, units[2], [units[1]])
    names = {name for name, _ in part.named_parameters()}
    assert names
    assert all(name.startswith(units[1]) for name in names)
    own = dict(traced.network.network.network.named_parameters())
    assert all(parameter is own[name] for name, parameter in part.named_parameters())


def test_a_cut_that_is_not_above_is_refused() -> None:
    traced = traced_of("timm/test_resnet", 64)
    units = [unit.name for unit in list_units(traced)]
    for lower, upper in [(units[0], units[1]), (units[1], units[1])]:
        with pytest.raises(BackboneError, match=rf"'{upper}' does not stand above '{lower}'"):
            between(traced, lower, [upper])
    with pytest.raises(BackboneError, match="no unit is called 'nowhere'"):
        between(traced, units[1], ["nowhere"])


class InPlace(nn.Module):
    """Blocks whose outputs are changed in place by what follows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)) for _ in range(3)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(pixels)
        for block in self.blocks:
            x = nn.functional.relu_(block(x)).mul_(0.5)
        return x.mean((2, 3))


@torch.no_grad()
def test_activations_are_taken_before_they_are_changed_in_place() -> None:
    traced, pixels = trace(InPlace().eval(), (8, 8)), pictures(8)
    units = [unit.name for unit in list_units(traced)]
    for number, lower in enumerate(units[1:], 1):
        below = split_at(traced, lower).stem(pixels)
        uppers = units[:number]
        for upper, found in zip(uppers, between(traced, lower, uppers)(below), strict=True):
            assert torch.equal(found, split_at(traced, upper).stem(pixels)), (lower, upper)
