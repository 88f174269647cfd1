from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch

from featcache.backbones.identity import tensors_sha256
from featcache.backbones.registry import DEFAULT, load_backbone, load_from_locator
from featcache.errors import BackboneError, UnknownBackboneError, WeightsError


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, featcache.backbones; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_backbone_is_frozen_and_float32() -> None:
    backbone = load_backbone(weights="random")
    for module in (backbone.stem, backbone.classifier):
        assert not any(part.training for part in module.modules())
        assert all(not p.requires_grad and p.dtype == torch.float32 for p in module.parameters())


def test_the_recipe_names_weights_architecture_preprocessing_and_precision() -> None:
    backbone = load_backbone(weights="random")
    recipe = backbone.recipe("bf16")
    assert recipe.weights == backbone.weights_sha256 == tensors_sha256(backbone.state())
    assert recipe.architecture == "timm/tf_efficientnet_lite0"
    assert (recipe.preprocessing, recipe.precision) == (backbone.preprocessing, "bf16")
    assert backbone.recipe().precision == "fp32"


def test_the_state_is_what_was_loaded_whatever_happens_to_the_stem() -> None:
    backbone = load_backbone("resnet18", weights="random", image_size=64)
    backbone.stem.to(torch.bfloat16)
    assert tensors_sha256(backbone.state()) == backbone.weights_sha256


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (DEFAULT, {}),
        ("resnet18", {"weights": "random:5", "image_size": 64}),
        ("timm/vit_tiny_patch16_224", {"weights": "random:2", "image_size": 96}),
    ],
)
def test_a_locator_finds_the_same_backbone_again(name, options) -> None:
    backbone = load_backbone(name, **options)
    again = load_from_locator(name, backbone.locator, preprocessing=backbone.preprocessing)
    assert again.recipe() == backbone.recipe()
    assert again.locator == backbone.locator


def test_the_whole_state_makes_the_same_backbone_at_any_size() -> None:
    whole = load_backbone("timm/vit_tiny_patch16_224", weights="random", image_size=96)
    again = load_backbone(whole.name, weights=whole.state(), preprocessing=whole.preprocessing)
    assert again.recipe() == whole.recipe()


def test_a_file_locator_finds_the_file_and_says_when_it_is_gone(tmp_path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(load_backbone("resnet18", weights="random:9").state(), path)
    backbone = load_backbone("resnet18", weights=path)
    again = load_from_locator("resnet18", backbone.locator, preprocessing=backbone.preprocessing)
    assert again.recipe() == backbone.recipe()
    path.unlink()
    with pytest.raises(WeightsError, match=r"weights\.pt: no such weights file"):
        load_from_locator("resnet18", backbone.locator, preprocessing=backbone.preprocessing)


@pytest.mark.parametrize(
    ("name", "locator", "message"),
    [
        ("resnet18", {"kind": "given"}, "pass the tensors or their file"),
        (
            "resnet18",
            {"kind": "default", "tag": "IMAGENET9"},
            "no weights 'IMAGENET9'; it has IMAGENET1K_V1",
        ),
        ("timm/resnet18", {"kind": "default", "tag": "none"}, "no weights 'none'"),
    ],
)
def test_a_locator_that_finds_nothing_says_so(name, locator, message) -> None:
    preprocessing = load_backbone("resnet18", weights="random").preprocessing
    with pytest.raises(WeightsError, match=message):
        load_from_locator(name, locator, preprocessing=preprocessing)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet81", "did you mean resnet18"),
        ("efficientnet_lite", "efficientnet_lite0"),
        ("vit_small_patch16_224", "did you mean timm/vit_small_patch16_224"),
        ("timm/resnet5O", "timm/resnet50"),
        ("timm/resnet50.a1_in2k", "timm/resnet50.a1_in1k"),
        ("RESNET50", "did you mean resnet50"),
    ],
)
def test_unknown_names_are_told_what_comes_near(name, near) -> None:
    with pytest.raises(UnknownBackboneError, match="featcache backbones PATTERN") as error:
        load_backbone(name)
    assert repr(name) in str(error.value)
    assert near in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["timm/hf-hub:timm/resnet18", "timm/local-dir:/tmp", "hf-hub:timm/resnet18", "", "timm/"],
)
def test_only_listed_names_reach_timm(name) -> None:
    with pytest.raises(UnknownBackboneError):
        load_backbone(name)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_b_32", 96, "vit_b_32 cannot take pictures of 96 x 96 pixels.*built for 224 x 224"),
        ("timm/mixer_s32_224", 96, "cannot change its input size.*built for 224 x 224"),
        ("timm/vit_tiny_patch16_224", 8, "cannot take pictures of 8 x 8.*built for 224"),
        ("inception_v3", 32, "cannot take pictures of 32 x 32.*built for 299 x 299"),
        ("resnet18", 0, "image size 0: give the side"),
    ],
)
def test_sizes_a_network_cannot_take_are_refused(name, size, message) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(name, weights="random", image_size=size)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["deit_tiny_distilled_patch16_224", "efficientformer_l1", "levit_128s"]
)
def test_two_averaged_heads_give_the_mean_of_their_inputs(name: str) -> None:
    backbone = load_backbone(f"timm/{name}", weights="random")
    network = timm.create_model(name).eval()
    network.load_state_dict(backbone.state())
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    inputs: list[torch.Tensor] = []
    for head in (network.head, network.head_dist):
        linear = head if isinstance(head, torch.nn.Linear) else head.linear
        linear.register_forward_pre_hook(lambda _module, given: inputs.append(given[0]))
    network(pixels)
    assert len(inputs) == 2
    torch.testing.assert_close(backbone.stem(pixels), (inputs[0] + inputs[1]) / 2)
    assert backbone.classifier is None


def test_heads_of_different_widths_are_refused_by_name() -> None:
    name = "timm/crossvit_tiny_240"
    with pytest.raises(BackboneError, match=f"{name} cannot be a backbone: .*heads that differ"):
        load_backbone(name, weights="random")


def test_a_network_published_without_classes_has_no_classifier() -> None:
    backbone = load_backbone("timm/vit_small_patch14_dinov2", weights="random", image_size=56)
    assert (backbone.classifier, backbone.width) == (None, 384)


def test_another_tag_is_another_preprocessing() -> None:
    small = load_backbone("timm/resnet18.a3_in1k", weights="random")
    usual = load_backbone("timm/resnet18", weights="random")
    assert small.architecture == usual.architecture == "timm/resnet18"
    assert small.preprocessing.size == (160, 160)
    assert small.weights_sha256 == usual.weights_sha256
    assert small.recipe().key != usual.recipe().key


def test_xception_is_the_one_that_keras_calls_so() -> None:
    assert load_backbone("xception", weights="random").name == "timm/legacy_xception"
