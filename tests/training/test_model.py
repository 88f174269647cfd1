"""A tail and a head joined: where they start, what they are called, what is read back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from torch import nn

from featcache.backbones.cuts import split_at_penultimate
from featcache.backbones.registry import load_backbone
from featcache.backbones.tracing import trace, uncut
from featcache.backbones.units import list_units, split_at
from featcache.engines import make_engine
from featcache.errors import ProbeError, TrainingError
from featcache.training.examples import Examples
from featcache.training.groups import depths_of
from featcache.training.model import (
    head_of,
    hidden_of,
    mlp_tail,
    model_of,
    tuned_tensors,
    untrained_head,
)
from featcache.training.spec import TrainingSpec
from featcache.training.trainer import logits_of, train


def test_it_starts_with_the_probes_logits_bit_for_bit(resnet) -> None:
    model = model_of(resnet.split.tail, resnet.head)
    expected = resnet.head.logits(resnet.features)
    logits = logits_of(model, resnet.examples(), batch_size=len(resnet.targets))
    np.testing.assert_array_equal(logits, expected)
    with torch.no_grad():
        forward = model.eval()(torch.from_numpy(resnet.activations).clone())
    np.testing.assert_allclose(forward.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_logits_do_not_depend_on_the_batch_beyond_rounding(resnet) -> None:
    model = model_of(resnet.split.tail, resnet.head)
    five = logits_of(model, resnet.examples(), batch_size=5)
    np.testing.assert_allclose(five, resnet.head.logits(resnet.features), rtol=1e-4, atol=1e-5)


def test_judging_leaves_the_cached_activations_alone(resnet) -> None:
    before = resnet.activations.copy()
    logits_of(model_of(resnet.split.tail, resnet.head), resnet.examples())
    np.testing.assert_array_equal(resnet.activations, before)


def test_the_tail_is_a_copy_and_the_network_stays_frozen(resnet) -> None:
    model = model_of(resnet.split.tail, resnet.head)
    theirs = {id(p) for p in resnet.network.parameters()}
    assert not theirs & {id(p) for p in model.parameters()}
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in resnet.network.parameters())


def test_a_network_that_an_engine_ran_before_trains_bit_for_bit_alike(resnet) -> None:
    tail = copy.deepcopy(resnet.split.tail)
    make_engine("torch", tail, None, device="cpu")
    assert any(p.is_contiguous(memory_format=torch.channels_last) for p in tail.parameters())
    spec, found = TrainingSpec(epochs=2, batch_size=8), []
    for given in (resnet.split.tail, tail):
        trained = train(model_of(given, resnet.head), resnet.examples(), spec)
        found.append((trained.history[-1].losses, tuned_tensors(trained.model)))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(tensor, found[1][1][name]) for name, tensor in found[0][1].items())


def test_head_is_read_back_as_it_was_put_in(resnet) -> None:
    head = head_of(model_of(resnet.split.tail, resnet.head))
    np.testing.assert_array_equal(head.coef, resnet.head.coef)
    np.testing.assert_array_equal(head.bias, resnet.head.bias)
    assert (head.loss, head.multi_label) == ("softmax", False)
    labels = untrained_head(2, 512, "logistic", 0, multi_label=True)
    assert head_of(model_of(resnet.split.tail, labels)).multi_label


def test_tensors_put_into_the_original_network_give_the_tuned_features(resnet) -> None:
    model = model_of(resnet.split.tail, resnet.head)
    with torch.no_grad():
        for parameter in model.tail.parameters():
            parameter.add_(0.01)
        expected = model.eval().features(torch.from_numpy(resnet.activations).clone())
    tensors = tuned_tensors(model, resnet.split.tail)
    assert set(tensors) == {name for name, _ in resnet.split.tail.named_parameters()}
    state = resnet.network.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    try:
        resnet.network.load_state_dict(state | tensors)
        with torch.no_grad():
            features = resnet.network(resnet.pixels)
    finally:
        resnet.network.load_state_dict(before)
    assert torch.equal(features, expected)


@pytest.mark.parametrize("name", ["timm/test_vit", "mobilenet_v2", "timm/test_efficientnet"])
def test_names_are_those_of_the_whole_network(name: str) -> None:
    backbone = load_backbone(name, weights="random")
    traced = trace(backbone.stem, backbone.preprocessing.size)
    split = split_at(traced, list_units(traced)[2].name)
    head = untrained_head(2, backbone.width, "softmax", 0)
    model, whole = model_of(split.tail, head), backbone.state()
    tensors = tuned_tensors(model)
    assert tensors
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors.items())
    rows = np.random.default_rng(0).normal(size=(4, *split.shape)).astype(np.float32)
    spec = TrainingSpec(epochs=1, rate=0.01, warmup=0.0)
    trained = train(model, Examples(rows, np.arange(4), np.arange(4) % 2), spec).model
    changed = set(tuned_tensors(trained, split.tail))
    assert changed == {name for name, _ in split.tail.named_parameters()}, "some do not train"


def test_a_deeper_tail_begins_where_a_shallower_one_ended(resnet) -> None:
    names = [f"layer4.1.{part}" for part in ("conv1.weight", "bn1.bias")]
    own = dict(resnet.split.tail.named_parameters())
    tuned = {name: torch.full_like(own[name], 0.5) for name in names}
    model = model_of(resnet.split.tail, resnet.head, tuned=tuned)
    tensors = tuned_tensors(model, resnet.split.tail)
    assert set(tensors) == set(names)
    assert all((tensor == 0.5).all() for tensor in tensors.values())


def test_a_deeper_model_that_starts_from_a_shallower_one_gives_its_logits(resnet) -> None:
    shallow = split_at(resnet.traced, resnet.units[1])
    with torch.no_grad():
        activations = shallow.stem(resnet.pixels).numpy()
    data = Examples(activations, np.arange(24), resnet.targets)
    spec = TrainingSpec(epochs=1, rate=1e-3, batch_size=24)
    tuned = train(model_of(shallow.tail, resnet.head), data, spec).model
    expected = logits_of(tuned, data, batch_size=24)
    deeper = model_of(resnet.split.tail, head_of(tuned), tuned=tuned_tensors(tuned))
    logits = logits_of(deeper, resnet.examples(), batch_size=24)
    np.testing.assert_array_equal(logits, expected)
    assert np.abs(logits - resnet.head.logits(resnet.features)).max() > 0.1


def test_a_whole_network_is_a_tail_too(resnet) -> None:
    tail = uncut(resnet.traced)
    units = [unit.name for unit in list_units(resnet.traced)]
    with torch.no_grad():
        assert torch.equal(tail(resnet.pixels), torch.from_numpy(resnet.features))
    names = {name for name, _ in tail.named_parameters()}
    assert names == {name for name, _ in resnet.network.named_parameters()}
    depths = depths_of(tail, units)
    assert depths["layer4.1.conv1.weight"] == 1
    assert depths["conv1.weight"] == len(units)
    pixels = Examples(resnet.pixels.numpy(), np.arange(4), resnet.targets[:4])
    spec = TrainingSpec(epochs=1, rate=0.01, warmup=0.0)
    trained = train(model_of(tail, resnet.head), pixels, spec, units=units).model
    assert set(tuned_tensors(trained, tail)) == names


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        (
            "layer1.0.conv1.weight",
            (64, 64, 3, 3),
            "is not in the tail; give tensors of the same network",
        ),
        ("layer4.1.bn1.bias", (7,), r"is \(512,\) there"),
    ],
)
def test_tensors_that_do_not_belong_are_refused(resnet, name, shape, said) -> None:
    with pytest.raises(TrainingError, match=said):
        model_of(resnet.split.tail, resnet.head, tuned={name: torch.zeros(shape)})


def test_a_head_for_another_width_is_refused_when_it_is_used(resnet) -> None:
    model = model_of(resnet.split.tail, untrained_head(3, 100, "softmax", 0))
    with pytest.raises(ProbeError, match="head for 100 features"):
        logits_of(model, resnet.examples())


def test_a_stem_gives_what_its_cached_activations_give(resnet) -> None:
    live = model_of(resnet.split.tail, resnet.head, stem=resnet.split.stem)
    cached = model_of(resnet.split.tail, resnet.head)
    with torch.no_grad():
        logits = live.eval()(resnet.pixels)
        expected = cached.eval()(torch.from_numpy(resnet.activations).clone())
    assert torch.equal(logits, expected)
    copied = live.copied()
    assert copied.stem is live.stem
    assert copied.tail is not live.tail


def test_untrained_heads_are_seeded_and_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (untrained_head(4, 9, "softmax", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.coef, same.coef)
    assert not np.array_equal(one.coef, other.coef)
    assert np.abs(one.coef).max() <= 1 / 3
    mlp_tail(9, 5, 0.5, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_mlp_starts_as_if_its_features_were_standardised() -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(50, 7)) * rng.uniform(3, 30, 7) + 5).astype(np.float32)
    mean, scale = X.mean(axis=0), X.std(axis=0)
    raw, plain = mlp_tail(7, 11, 0.25, 3, mean=mean, scale=scale), mlp_tail(7, 11, 0.25, 3)
    with torch.no_grad():
        ours = raw(torch.from_numpy(X))
        expected = plain(torch.from_numpy((X - mean) / scale))
    assert ours.shape == (50, 11)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    dead = mlp_tail(7, 11, 0.25, 3, mean=mean, scale=np.where(np.arange(7) == 2, 0, scale))
    assert torch.isfinite(dead(torch.from_numpy(X))).all()


def test_columns_that_hardly_move_are_not_blown_up() -> None:
    scale = np.array([1.0, 1.0, 1e-4])
    tail = mlp_tail(3, 5, 0.0, 0, mean=np.zeros(3), scale=scale)
    with torch.no_grad():
        still, moved = tail(torch.zeros(1, 3)), tail(torch.tensor([[0.0, 0.0, 0.01]]))
    assert (moved - still).abs().max() < 0.1


def test_hidden_units_take_features_as_they_are() -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(50, 7)) * rng.uniform(0.1, 30, 7) + 5).astype(np.float32)
    tail = mlp_tail(7, 11, 0.25, 3, mean=X.mean(axis=0), scale=X.std(axis=0))
    model = model_of(tail, untrained_head(2, 11, "softmax", 0))
    with torch.no_grad():
        expected = tail(torch.from_numpy(X)).numpy()
    units = hidden_of(tuned_tensors(model))
    np.testing.assert_allclose(units.activations(X), expected, atol=1e-4)


def test_impossible_mlps_are_refused() -> None:
    with pytest.raises(TrainingError, match="0 hidden units"):
        mlp_tail(5, 0, 0.5, 0)
    with pytest.raises(TrainingError, match=r"dropout 1\.0"):
        mlp_tail(5, 5, 1.0, 0)


def test_dropout_called_as_a_function_was_fixed_when_the_network_was_traced() -> None:
    """What the documents say: modules of dropout act in a tail that trains, functions do not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("test_vit", drop_rate=0.5, attn_drop_rate=0.5).eval()
    stem = split_at_penultimate(network, (160, 160)).stem
    split = split_at(traced := trace(stem, (160, 160)), list_units(traced)[1].name)
    kinds = [m for m in split.tail.modules() if isinstance(m, nn.Dropout) and m.p]
    assert kinds
    tail = split.tail.train()
    for dropout in kinds:
        dropout.p = 0.0
    x = torch.randn(2, *split.shape)
    assert torch.equal(tail(x), tail(x)), "attention's dropout acts"
