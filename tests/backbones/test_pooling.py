"""Pooled activations are what a hook sees, pooled by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from featcache.backbones.pooling import pool_of, pooled_shape, pooled_stem
from featcache.backbones.registry import load_backbone
from featcache.backbones.tracing import Traced, trace
from featcache.backbones.units import list_units
from featcache.errors import BackboneError
from featcache.recipe import PENULTIMATE

PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def traced(name: str, side: int) -> Traced:
    backbone = load_backbone(name, weights="random", image_size=side)
    return trace(backbone.stem, (side, side))


def returned(whole: Traced, name: str, pixels: torch.Tensor) -> torch.Tensor:
    """What a module returns when the network runs: the referee for an activation."""
    kept: list[torch.Tensor] = []
    hook = whole.part(name).register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
    with torch.no_grad():
        whole.network(pixels.clone())
    hook.remove()
    return kept[0]


@pytest.fixture(scope="module")
def resnet() -> Traced:
    return traced("timm/test_resnet", 64)


@pytest.fixture(scope="module")
def vit() -> Traced:
    return traced("timm/vit_tiny_patch16_224", 64)


@torch.no_grad()
def test_several_come_from_one_pass_each_as_a_hook_sees_it(resnet: Traced) -> None:
    names = [unit.name for unit in list_units(resnet)]
    poolings = ("avg", "flatten", "none")
    kept = [(name, how) for name in names for how in poolings] + [(PENULTIMATE, "none")]
    outputs = dict(zip(kept, pooled_stem(resnet, kept)(PIXELS), strict=True))
    assert torch.equal(outputs.pop((PENULTIMATE, "none")), resnet.network(PIXELS))
    for (name, how), found in outputs.items():
        activation = returned(resnet, name, PIXELS)
        by_hand = {
            "avg": activation.mean((2, 3)),
            "flatten": activation.flatten(1),
            "none": activation,
        }
        assert torch.equal(found, by_hand[how]), (name, how)
        assert tuple(found.shape[1:]) == pooled_shape(resnet, name, how)


@torch.no_grad()
def test_tokens_are_averaged_without_the_class_token_or_taken_by_it(vit: Traced) -> None:
    kept = [("blocks.4", "avg"), ("blocks.4", "cls"), ("patch_embed", "avg")]
    mean, token, patches = pooled_stem(vit, kept)(PIXELS)
    activation = returned(vit, "blocks.4", PIXELS)
    assert activation.shape == (2, 1 + 16, 192)
    assert torch.equal(mean, activation[:, 1:].mean(1))
    assert torch.equal(token, activation[:, 0])
    assert torch.equal(patches, returned(vit, "patch_embed", PIXELS).mean(1))


def test_nothing_above_the_topmost_cut_is_there(vit: Traced) -> None:
    stem = pooled_stem(vit, [("blocks.2", "avg"), ("blocks.1", "cls")])
    assert {name.split(".")[1] for name, _ in stem.named_parameters() if "blocks" in name} == set(
        "012"
    )


LAYOUTS = [
    pytest.param("timm/test_convnext", 64, "stages.3.blocks.0", (2, 3), id="convolutions"),
    pytest.param("timm/mixer_s32_224", 224, "blocks.0", 1, id="tokens"),
    pytest.param("swin_t", 64, "features.1.1", (1, 2), id="channels last", marks=pytest.mark.slow),
    pytest.param(
        *("timm/swin_tiny_patch4_window7_224", 224, "layers.3.blocks.1", (1, 2)),
        id="timm's channels last",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        *("timm/maxvit_tiny_tf_224", 224, "stages.0.blocks.0.attn_block", (1, 2)),
        id="channels last within channels first",
        marks=pytest.mark.slow,
    ),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "side", "cut", "positions"), LAYOUTS)
def test_positions_are_found_wherever_the_channels_are(name, side, cut, positions) -> None:
    whole, pixels = traced(name, side), torch.randn(2, 3, side, side)
    (found,) = pooled_stem(whole, [(cut, "avg")])(pixels)
    assert torch.equal(found, returned(whole, cut, pixels).mean(positions))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "front", "has_class"),
    [
        ("timm/vit_small_patch14_reg4_dinov2", 5, True),
        ("timm/vit_medium_patch16_reg4_gap_256", 4, False),
        ("timm/deit_tiny_distilled_patch16_224", 2, True),
        ("vit_b_32", 1, True),
    ],
)
def test_tokens_that_stand_for_no_position_are_known(name, front, has_class) -> None:
    side = {"timm/vit_small_patch14_reg4_dinov2": 56, "vit_b_32": 224}.get(name, 64)
    whole = traced(name, side)
    top = list_units(whole)[0].name
    assert pool_of(whole, top, "avg").prefix == front
    if has_class:
        assert pooled_shape(whole, top, "cls") == pooled_shape(whole, top, "avg")
    else:
        with pytest.raises(BackboneError, match="do not begin with a class token; take --pool avg"):
            pool_of(whole, top, "cls")


def test_a_map_has_no_class_token(resnet: Traced, vit: Traced) -> None:
    with pytest.raises(
        BackboneError, match=r"a map \(\d+ x 2 x 2\), and a class token is one of .*--pool avg"
    ):
        pool_of(resnet, "layer4.0", "cls")
    with pytest.raises(BackboneError, match="its 16 tokens do not begin with a class token"):
        pool_of(vit, "patch_embed", "cls")


class Turns(nn.Module):
    """Its two blocks give sides of all lengths or of one, behind turns that hide the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Turned(3, 5), Turned(5, 7)])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels[:, :, :6, :4]
        for block in self.blocks:
            x = block(x).transpose(1, 2)
        return x.mean((2, 3))


class Turned(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.mix = Mix(before, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(x)


class Mix(nn.Module):
    """(B, C, H, W) to (B, H, O, W), which no layer of torch's would."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(after, before))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("oc,bchw->bhow", self.weight, x)


def test_channels_that_nothing_tells_are_asked_for() -> None:
    whole = trace(Turns().eval(), (8, 8))
    says = (
        r"cut 'blocks.0': nothing tells which axis of 6 x 5 x 4 holds the channels; .*--pool none"
    )
    with pytest.raises(BackboneError, match=says):
        pool_of(whole, "blocks.0", "avg")
    assert pooled_shape(whole, "blocks.0", "none") == (6, 5, 4)


class InPlace(nn.Module):
    """Changes what its first block gave, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
        self.high = nn.Conv2d(4, 5, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.high(self.low(pixels).relu_()).mean((2, 3))


@torch.no_grad()
def test_what_is_kept_is_not_what_the_network_made_of_it_later() -> None:
    torch.manual_seed(0)
    whole = trace(InPlace().eval(), (16, 16))
    kept, _ = pooled_stem(whole, [("low.1", "none"), (PENULTIMATE, "none")])(PIXELS)
    assert kept.amin() < 0
    assert torch.equal(kept, whole.part("low")(PIXELS))
