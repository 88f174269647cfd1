"""Rates by unit, weight decay, and the share of the rate at every step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from featcache.backbones.registry import load_backbone
from featcache.backbones.tracing import trace
from featcache.backbones.units import costs_above, list_units, split_at
from featcache.errors import TrainingError
from featcache.training.groups import depths_of, parameter_groups
from featcache.training.model import mlp_tail, model_of, untrained_head
from featcache.training.schedules import cosine_share, optimizer_of, schedule_of
from featcache.training.spec import TrainingSpec

NETWORKS = [
    "efficientnet_lite0",
    "resnet18",
    "timm/test_vit",
    "mobilenet_v3_small",
    "squeezenet1_1",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_of_each_depth_are_as_many_as_the_unit_says(name: str) -> None:
    size = 160 if name == "timm/test_vit" else 64
    weights = None if name == "efficientnet_lite0" else "random"
    backbone = load_backbone(
        name, weights=weights, image_size=None if name == "timm/test_vit" else size
    )
    traced = trace(backbone.stem, backbone.preprocessing.size)
    units = list_units(traced)[:3]
    lower = list_units(traced)[3].name
    tail = split_at(traced, lower).tail
    depths = depths_of(tail, [unit.name for unit in units])
    sizes = {name: p.numel() for name, p in tail.named_parameters()}
    counted = [sum(sizes[n] for n, d in depths.items() if d == depth) for depth in range(4)]
    assert counted[1:] == [unit.parameters for unit in units]
    assert counted[0] == costs_above(traced, units[0])[0]


def test_rates_fall_by_unit_and_the_head_has_its_factor(resnet) -> None:
    model = model_of(resnet.split.tail, resnet.head)
    spec = TrainingSpec(rate=0.1, head_factor=10, unit_decay=0.5)
    rates = {g.name: g.rate for g in parameter_groups(model, spec, resnet.units)}
    assert list(rates) == ["head", "layer4.1", "layer4.0"]
    np.testing.assert_allclose(list(rates.values()), [1.0, 0.05, 0.025])
    plain = {g.name: g.rate for g in parameter_groups(model, spec)}
    np.testing.assert_allclose([plain["head"], plain["above"]], [1.0, 0.1])


def test_every_parameter_is_in_one_group_and_only_matrices_decay(resnet) -> None:
    model = model_of(resnet.split.tail, resnet.head)
    groups = parameter_groups(model, TrainingSpec(weight_decay=0.05), resnet.units)
    grouped = [id(p) for group in groups for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    decay = {id(p): group.weight_decay for group in groups for p in group.parameters}
    for name, parameter in model.named_parameters():
        is_norm_or_bias = name.endswith("bias") or ".bn" in name or "downsample.1" in name
        assert decay[id(parameter)] == (0 if is_norm_or_bias else 0.05), name


def test_units_that_are_not_there_are_refused(resnet) -> None:
    with pytest.raises(TrainingError, match=r"'layer2\.0': the tail holds nothing"):
        depths_of(resnet.split.tail, [*resnet.units, "layer2.0"])
    with pytest.raises(TrainingError, match="it has no units"):
        depths_of(mlp_tail(5, 4, 0.0, 0), ["blocks.1"])


def test_a_cosine_rises_in_a_line_and_falls_to_zero() -> None:
    shares = [cosine_share(step, steps=100, warmup=0.1) for step in range(101)]
    np.testing.assert_allclose(shares[:10], np.arange(1, 11) / 11)
    assert shares[10] == max(shares) == 1.0
    np.testing.assert_allclose(shares[55], 0.5)
    assert (np.diff(shares[10:]) < 0).all()
    assert shares[100] == 0
    assert cosine_share(0, steps=1, warmup=0.0) == 1.0


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("steps", [1, 2, 5, 60])
def test_groups_keep_their_proportions_and_reach_their_rates(schedule, optimizer, steps) -> None:
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    model = model_of(layers[0], untrained_head(2, 2, "softmax", 0))
    spec = TrainingSpec(
        optimizer=optimizer, schedule=schedule, rate=0.1, head_factor=10, warmup=0.2
    )
    stepper = optimizer_of(spec, parameter_groups(model, spec))
    rates, following = [], schedule_of(spec, stepper, steps)
    for _ in range(steps):
        rates.append([group["lr"] for group in stepper.param_groups])
        model(torch.ones(1, 2)).sum().backward()
        stepper.step()
        following.step()
    head, above = (np.array(rates)[:, i] for i in (0, -1))
    np.testing.assert_allclose(head, 10 * above, rtol=1e-9)
    if steps == 60:
        np.testing.assert_allclose(above.max(), 0.1, rtol=1e-3)
        assert above[-1] < 0.001
