"""Cut anywhere, a network gives what it gives whole, bit for bit; its units are its blocks."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from featcache.backbones.cuts import split_at_penultimate
from featcache.backbones.tracing import Traced, split_at_node, trace
from featcache.backbones.units import costs_above, find_unit, list_units, split_at
from featcache.errors import BackboneError

slow = pytest.mark.slow


def family(
    name: str, side: int, topmost: str, lowest: str, count: int, *marks: pytest.MarkDecorator
):
    return pytest.param(name, side, topmost, lowest, count, marks=marks, id=name)


FAMILIES = [
    family("resnet18", 64, "layer4.1", "maxpool", 9),
    family("timm/test_vit", 160, "blocks.5", "patch_embed", 7),
    family("mobilenet_v2", 64, "features.18", "features.0", 19),
    family("timm/tf_efficientnet_lite0", 64, "bn2", "bn1", 18),
    family("squeezenet1_1", 64, "features.12", "features.2", 9),
    family("timm/convnextv2_atto", 64, "stages.3.blocks.1", "stem", 16),
    family("timm/deit_tiny_distilled_patch16_224", 64, "blocks.11", "patch_embed", 13),
    family("resnet50", 64, "layer4.2", "maxpool", 17, slow),
    family("timm/mobilenetv1_100", 64, "blocks.4.1", "bn1", 14, slow),
    family("timm/mobilenetv3_large_100", 64, "act2", "bn1", 18, slow),
    family("timm/mobilenetv4_conv_small", 64, "norm_head", "bn1", 19, slow),
    family("timm/mobilenetv4_hybrid_medium", 128, "norm_head", "bn1", 34, slow),
    family("timm/efficientnet_b0", 64, "bn2", "bn1", 18, slow),
    family("timm/tf_efficientnetv2_b0", 64, "bn2", "bn1", 23, slow),
    family("inception_v3", 96, "Mixed_7c", "Conv2d_1a_3x3", 16, slow),
    family("googlenet", 64, "inception5b", "conv1", 12, slow),
    family("timm/xception41", 96, "blocks.12", "stem.0", 15, slow),
    family("timm/legacy_xception", 96, "conv4", "act1", 16, slow),
    family("densenet121", 64, "features.denseblock4", "features.pool0", 8, slow),
    family("regnet_y_400mf", 64, "trunk_output.block4.block4-5", "stem", 17, slow),
    family("timm/regnety_004", 64, "s4.b6", "stem", 17, slow),
    family("shufflenet_v2_x0_5", 64, "conv5", "conv1", 18, slow),
    family("vgg11", 64, "classifier.5", "features.2", 10, slow),
    family("convnext_tiny", 64, "features.7.2", "features.0", 22, slow),
    family("timm/convnext_tiny", 64, "stages.3.blocks.2", "stem", 22, slow),
    family("vit_b_32", 224, "encoder.layers.encoder_layer_11", "conv_proj", 13, slow),
    family("timm/vit_tiny_patch16_224", 64, "blocks.11", "patch_embed", 13, slow),
    family("timm/deit_tiny_patch16_224", 64, "blocks.11", "patch_embed", 13, slow),
    family("timm/vit_base_patch32_clip_224", 64, "blocks.11", "patch_embed", 13, slow),
    family("timm/vit_small_patch14_dinov2", 56, "blocks.11", "patch_embed", 13, slow),
    family("timm/vit_small_patch14_reg4_dinov2", 56, "blocks.11", "patch_embed", 13, slow),
    family("timm/vit_small_patch16_dinov3", 64, "blocks.11", "patch_embed", 13, slow),
    family("timm/eva02_tiny_patch14_224", 56, "blocks.11", "patch_embed", 13, slow),
    family("swin_t", 64, "features.7.1", "features.0", 16, slow),
    family("timm/swinv2_tiny_window8_256", 64, "layers.3.blocks.1", "patch_embed", 16, slow),
    family("maxvit_t", 224, "classifier", "stem.0", 36, slow),
    family("timm/fastvit_t8", 64, "final_conv", "stem.0", 20, slow),
    family("timm/mixer_s32_224", 224, "blocks.7", "stem", 9, slow),
    family("timm/vit_base_patch16_siglip_224", 64, "attn_pool", "patch_embed", 14, slow),
    family("timm/repvit_m1", 64, "stages.3.blocks.1", "stem.conv1", 31, slow),
    family("timm/coatnet_0_rw_224", 224, "stages.3.blocks.1", "stem", 15, slow),
    family("timm/resnetv2_50", 64, "stages.3.blocks.2", "stem", 17, slow),
    family("timm/nfnet_l0", 64, "final_act", "stem.act2", 17, slow),
    family("mnasnet0_5", 64, "layers.16", "layers.2", 20, slow),
    family("timm/swin_tiny_patch4_window7_224", 224, "layers.3.blocks.1", "patch_embed", 16, slow),
    family("timm/maxvit_tiny_tf_224", 224, "head", "stem", 35, slow),
]
"""Name, side in pixels, names of the topmost and the lowest unit, how many units there are."""


def network_of(name: str, side: int) -> nn.Module:
    """A network with the weights of seed 0, for pictures of `side` pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if not name.startswith("timm/"):
            options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
            auxiliary = {"aux_logits": False} if options else {}
            return models.get_model(name, **options, **auxiliary).eval()
        network = timm.create_model(name.removeprefix("timm/")).eval()
    if side != network.pretrained_cfg["input_size"][1] and hasattr(network, "set_input_size"):
        network.set_input_size(img_size=(side, side))
    return network.requires_grad_(requires_grad=False)


def pictures(side: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def five(things: list) -> list:
    """At most five of them, first and last included."""
    last = len(things) - 1
    return [things[i] for i in sorted({round(last * k / 4) for k in range(5)})] if things else []


@torch.no_grad()
@pytest.mark.parametrize(("name", "side", "topmost", "lowest", "count"), FAMILIES)
def test_cut_anywhere_it_gives_what_it_gives_whole(name, side, topmost, lowest, count) -> None:
    network = network_of(name, side)
    pixels = pictures(side, 3)
    logits = network(pixels)
    whole = trace(network, (side, side))
    for node in five(list(whole.cuts)):
        split = split_at_node(whole, node)
        activation = split.stem(pixels.clone())
        assert activation.shape == (3, *split.shape)
        assert torch.equal(split.tail(activation), logits), node
    stem = split_at_penultimate(network, (side, side)).stem
    feature = stem(pixels)
    traced = trace(stem, (side, side))
    units = list_units(traced)
    assert (units[0].name, units[-1].name, len(units)) == (topmost, lowest, count)
    assert [unit.depth for unit in units] == list(range(1, count + 1))
    for unit in five(list(units)):
        split = split_at(traced, unit.name)
        activation = split.stem(pixels.clone())
        assert activation.shape == (3, *unit.shape)
        assert torch.equal(activation, returned(stem, unit.name, pixels)), unit.name
        assert torch.equal(split.tail(activation), feature), unit.name


def returned(stem: nn.Module, name: str, pixels: Tensor) -> Tensor:
    """What a module returns when the network runs: the referee for an activation."""
    kept: list[Tensor] = []
    module = stem.get_submodule(f"network.{name}")
    hook = module.register_forward_hook(lambda _m, _i, output: kept.append(output.clone()))
    with torch.no_grad():
        stem(pixels)
    hook.remove()
    (activation,) = kept
    return activation


@pytest.fixture(scope="module")
def vit() -> Traced:
    return trace(
        split_at_penultimate(network_of("timm/test_vit", 160), (160, 160)).stem, (160, 160)
    )


def test_parameters_are_shared_and_keep_their_names(vit: Traced) -> None:
    network = vit.network.network.network
    own = dict(network.named_parameters())
    split = split_at(vit, list_units(vit)[2].name)
    parts = dict(split.stem.named_parameters()) | dict(split.tail.named_parameters())
    assert parts
    assert all(parameter is own[name] for name, parameter in parts.items())
    assert not set(dict(split.stem.named_parameters())) & set(dict(split.tail.named_parameters()))


def test_every_parameter_is_counted_once(vit: Traced) -> None:
    units = list_units(vit)
    above, _ = costs_above(vit, units[0])
    total = sum(p.numel() for p in vit.network.parameters())
    assert sum(unit.parameters for unit in units) + above == total
    for lower, upper in zip(units[1:], units, strict=False):
        more, _ = costs_above(vit, lower)
        assert more == costs_above(vit, upper)[0] + upper.parameters


def test_products_are_those_of_its_layers() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(512, 5)
    )
    (top, bottom) = list_units(trace(network.eval(), (16, 16)))
    assert (bottom.products, top.products) == (8 * 3 * 9 * 64, 512 * 5)
    assert (bottom.parameters, top.parameters) == (8 * 27 + 8, 512 * 5 + 5)


def test_an_unknown_unit_is_refused_and_some_are_named(vit: Traced) -> None:
    with pytest.raises(BackboneError, match=r"no unit is called 'blocks\.99'; .*blocks\.\d"):
        find_unit(vit, "blocks.99")


class Small(nn.Module):
    """Two residual blocks and what a subclass does beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Residual(), Residual()])
        self.fc = nn.Linear(4, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(pixels)
        for block in self.blocks:
            x = self.between(block(x))
        return self.fc(x.mean((2, 3)))

    def between(self, x: Tensor) -> Tensor:
        return x


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x).relu()


class DecidesByValue(Small):
    def between(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class CountsRows(Small):
    """Folds windows into the batch and back, by sizes that count the rows of the batch."""

    def between(self, x: Tensor) -> Tensor:
        rows, _, height, _ = x.shape
        windows = x.unflatten(2, (height // 4, 4)).transpose(1, 2).flatten(0, 1)
        shifted = windows + windows.shape[0] / (rows * 100)
        return shifted.view(rows, height // 4, 4, 4, -1).transpose(1, 2).flatten(2, 3)


class InPlace(Small):
    def between(self, x: Tensor) -> Tensor:
        nn.functional.relu_(x)
        return x.mul_(0.5)


@torch.no_grad()
@pytest.mark.parametrize("kind", [Small, CountsRows, InPlace])
@pytest.mark.parametrize("batch", [1, 4])
def test_what_counts_rows_or_works_in_place_is_cut_right(kind: type[Small], batch: int) -> None:
    torch.manual_seed(0)
    network = kind().eval()
    traced, pixels = trace(network, (8, 8)), pictures(8, batch)
    expected = network(pixels)
    assert [unit.name for unit in list_units(traced)][-3:] == ["blocks.1", "blocks.0", "stem"]
    for node in traced.cuts:
        split = split_at_node(traced, node)
        assert torch.equal(split.tail(split.stem(pixels)), expected), node


class CountsOneMore(Small):
    """A size that neither stands still nor grows with the pictures crosses its upper cut."""

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.blocks[0](self.stem(pixels))
        rows = torch.cat([x, x[:1]]).size(0)
        return self.fc(self.blocks[1](x).mean((2, 3)) * rows)


class CountsCalls(Small):
    """Gives something else each time."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = nn.Parameter(torch.zeros(()), requires_grad=False)

    def between(self, x: Tensor) -> Tensor:
        return x + self.calls.add_(1)


def test_a_size_that_no_tail_could_know_is_no_cut() -> None:
    traced = trace(CountsOneMore().eval(), (8, 8))
    with pytest.raises(BackboneError, match="no cut here: a size of 3 at two pictures is 4 at thr"):
        split_at(traced, "blocks.1")


def test_a_network_that_is_never_the_same_has_no_cuts() -> None:
    with pytest.raises(BackboneError, match="it gives other values once it is traced, so it has"):
        trace(CountsCalls().eval(), (8, 8))


def test_a_network_that_cannot_be_traced_says_what_can_be_done() -> None:
    with pytest.raises(BackboneError, match=r"cannot be traced, so it has no inner cuts .*--cut"):
        trace(DecidesByValue().eval(), (8, 8))
