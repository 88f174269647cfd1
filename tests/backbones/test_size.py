"""Sizes against those that others publish: Keras' summaries, torchvision's tables, our `layers`."""

from __future__ import annotations

import pytest
from torchvision.models import get_weight

from featcache import api
from featcache.backbones.registry import load_backbone
from featcache.backbones.size import size_of
from featcache.backbones.units import list_units
from featcache.extraction.kept import traced_of

KERAS = {
    "resnet50": (23_534_592 - 26_560, 53_120),
    "inception_v3": (21_768_352 + 17_216, 34_432),
    "timm/legacy_xception": (20_806_952, 54_528),
}
"""`include_top=False` of keras.applications: trainable, and non-trainable. Its ResNet has biases
before BatchNorm, torchvision's has none; its Inception has no scales there, torchvision's has."""

OPERATIONS = {
    "resnet50": "ResNet50_Weights.IMAGENET1K_V2",
    "mobilenet_v3_large": "MobileNet_V3_Large_Weights.IMAGENET1K_V2",
    "inception_v3": "Inception_V3_Weights.IMAGENET1K_V1",
}
"""Whose documentation counts multiplications, the classifier's among them."""

SLOW = ("inception_v3", "timm/legacy_xception", "vit_b_32")


def slow_where_large(*names: str) -> list[object]:
    marks = {name: [pytest.mark.slow] if name in SLOW else [] for name in names}
    return [pytest.param(name, marks=marks[name]) for name in names]


@pytest.mark.parametrize("name", slow_where_large(*KERAS))
def test_numbers_are_counted_as_keras_counts_them(name: str) -> None:
    size = size_of(load_backbone(name, weights="random"))
    assert (size.parameters, size.statistics) == KERAS[name]


@pytest.mark.parametrize("name", slow_where_large(*OPERATIONS))
def test_multiplications_are_those_that_torchvision_publishes(name: str) -> None:
    backbone = load_backbone(name, weights="random")
    classifier = backbone.parameters - size_of(backbone).parameters
    published = get_weight(OPERATIONS[name]).meta["_ops"]
    assert (size_of(backbone).products + classifier) / 1e9 == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    "name", slow_where_large("timm/test_vit", "vit_b_32", "timm/test_efficientnet")
)
def test_the_count_is_that_of_the_units(name: str) -> None:
    """`layers` counts the nodes of a graph, this watches a run."""
    backbone = load_backbone(name, weights="random")
    units = api.layers(name)
    products = size_of(backbone).products
    heaviest = max(units, key=lambda unit: unit.cost_share)
    counted = {unit.name: unit.products for unit in list_units(traced_of(backbone))}
    assert counted[heaviest.name] / products == pytest.approx(heaviest.cost_share, rel=1e-6)
