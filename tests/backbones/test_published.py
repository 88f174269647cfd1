from __future__ import annotations

import pytest
import timm
import timm.data
import torch
from torchvision import models

from featcache.backbones.published import from_timm, from_torchvision, scaled
from featcache.backbones.registry import load_backbone
from featcache.errors import BackboneError
from featcache.recipe import Preprocessing

OWN = Preprocessing(
    size=(224, 224), resize=(232,), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)
)  # fmt: skip


def timm_transform(name: str, **changes):
    config = timm.data.resolve_data_config(
        changes, pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict()
    )
    return timm.data.create_transform(**config)


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("tf_efficientnet_lite0", None),
        ("tf_efficientnet_lite2", None),
        ("resnet18", None),
        ("resnet18", 150),
        ("vit_base_patch16_clip_224.openai", None),
        ("vit_base_patch16_siglip_224.webli", None),  # squashed
        ("convnext_tiny.in12k_ft_in1k_384", None),  # squashed
        ("mobilenetv3_small_100", None),
    ],
)
def test_timms_own_transform_gives_the_same_pixels(name, image_size, photos, transform) -> None:
    changes = {} if image_size is None else {"input_size": (3, image_size, image_size)}
    theirs = timm_transform(name, **changes)
    ours = transform(from_timm(timm.models.get_pretrained_cfg(name).to_dict(), image_size))
    for photo in photos:
        torch.testing.assert_close(ours(photo), theirs(photo), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_small", "efficientnet_b1", "swin_t"])
def test_torchvisions_own_transform_gives_the_same_pixels(name, photos, transform) -> None:
    preset = models.get_model_weights(name)["DEFAULT"].transforms()
    ours = transform(from_torchvision(preset))
    for photo in photos:
        torch.testing.assert_close(ours(photo), preset(photo), rtol=0, atol=1e-6)


def test_borders_are_the_longer_side() -> None:
    config = timm.models.get_pretrained_cfg("resnet18").to_dict() | {
        "crop_mode": "border",
        "crop_pct": 0.9,
    }
    preprocessing = from_timm(config)
    assert (preprocessing.resize_mode, preprocessing.resize) == ("longer", (248,))


def test_every_published_transform_of_timm_can_be_said() -> None:
    for name in timm.list_models(pretrained=True):
        config = timm.models.get_pretrained_cfg(name).to_dict()
        assert from_timm(config).size == tuple(config["input_size"][1:])


def test_a_crop_that_is_not_square_is_refused() -> None:
    config = timm.models.get_pretrained_cfg("resnet18").to_dict() | {"input_size": (3, 224, 192)}
    with pytest.raises(BackboneError, match="224 x 192 pixels is not square: give an image size"):
        from_timm(config)


@pytest.mark.parametrize(
    ("changes", "resize"),
    [
        ({}, (103,)),  # 100 * 232 / 224 = 103.57
        ({"resize_mode": "exact", "resize": (256, 280), "size": (224, 224)}, (114, 125)),
        ({"resize_mode": "longer", "resize": (224,)}, (100,)),
        ({"size": (224, 112), "resize": (112,)}, (100,)),
    ],
)
def test_another_size_keeps_the_ratio_of_resize_to_crop(changes, resize) -> None:
    given = Preprocessing.from_dict(OWN.to_dict() | changes)
    other = scaled(given, 100)
    assert (other.size, other.resize) == ((100, 100), resize)
    assert (other.mean, other.std, other.resize_mode) == (given.mean, given.std, given.resize_mode)


def test_a_preprocessing_of_ones_own_replaces_the_published_one() -> None:
    backbone = load_backbone("resnet18", weights="random", preprocessing=OWN, image_size=64)
    assert backbone.preprocessing == scaled(OWN, 64)
    assert backbone.recipe().preprocessing == backbone.preprocessing
