"""Mixup and CutMix by law: losses mix linearly, targets still sum to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import TrainingError
from featcache.training.losses import row_losses
from featcache.training.mixing import Mixer, cut_mix, map_sides, mix_targets
from featcache.training.spec import TrainingSpec


def batch(b: int = 6, shape: tuple[int, ...] = (4, 8, 8), K: int = 3):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(b, *shape, generator=g)
    targets = torch.eye(K)[torch.arange(b) % K]
    return x, targets, torch.rand(b, generator=g) + 0.5


def mixer(shape=(4, 8, 8), seed=0, **fields) -> Mixer:
    return Mixer(TrainingSpec(**fields), shape, np.random.default_rng(seed))


@given(
    mixup=st.sampled_from([0.0, 0.2, 1.0]),
    cutmix=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 50),
)
def test_targets_still_sum_to_one_and_weights_keep_their_mean(mixup, cutmix, seed) -> None:
    x, targets, weights = batch()
    mixed, Y, a = mixer(mixup=mixup, cutmix=cutmix, seed=seed)(x, targets, weights)
    assert mixed.shape == x.shape
    np.testing.assert_allclose(Y.sum(dim=1), 1, rtol=1e-5)
    np.testing.assert_allclose(a.mean(), weights.mean(), rtol=1e-5)
    assert (Y >= 0).all()


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_the_loss_is_the_mixture_of_both_losses(loss) -> None:
    _, targets, weights = batch()
    other, lam = torch.tensor([3, 0, 5, 1, 2, 4]), 0.3
    Z = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    Y, a = mix_targets(targets, weights, other, lam)
    own = weights * row_losses(loss, Z, targets)
    theirs = weights[other] * row_losses(loss, Z, targets[other])
    np.testing.assert_allclose(
        a * row_losses(loss, Z, Y), lam * own + (1 - lam) * theirs, rtol=1e-5
    )


def test_mixup_is_a_line_between_two_rows() -> None:
    x, targets, weights = batch(2, (5,), 2)
    weights[:] = 1
    for seed in range(20):
        mixed, Y, _ = mixer((5,), seed, mixup=1.0)(x, targets, weights)
        np.testing.assert_allclose(mixed, Y @ x, atol=1e-6)  # one-hot rows: Y holds the shares


@given(lam=st.floats(0, 1), seed=st.integers(0, 100), last=st.booleans())
def test_cutmix_takes_a_box_and_says_how_much_it_left(lam, seed, last) -> None:
    shape, sides = ((9, 7, 4), (1, 2)) if last else ((4, 9, 7), (2, 3))
    ones, zeros = torch.ones(1, *shape), torch.zeros(1, *shape)
    mixed, kept = cut_mix(
        torch.cat([zeros, ones]), torch.tensor([1, 0]), lam, sides, np.random.default_rng(seed)
    )
    np.testing.assert_allclose(mixed[1].mean(), kept, atol=1e-6)
    np.testing.assert_allclose(mixed[0].mean(), 1 - kept, atol=1e-6)
    channels = mixed[0].movedim(-1, 0) if last else mixed[0]
    assert (channels == channels[0]).all(), "all channels share the box"
    rows, columns = (channels[0] == 1).any(dim=1), (channels[0] == 1).any(dim=0)
    assert float((channels[0] == 1).sum()) == float(rows.sum() * columns.sum()), "not a box"


def test_cutmix_leaves_the_maps_it_was_given() -> None:
    x, targets, weights = batch()
    before = x.clone()
    mixer(cutmix=1.0)(x, targets, weights)
    assert torch.equal(x, before)


def test_with_both_each_batch_has_one_of_them() -> None:
    x, targets, weights = batch(2, (1, 8, 8), 2)
    x[0], x[1] = 0, 1
    mix, kinds = mixer((1, 8, 8), mixup=1.0, cutmix=1.0), set()
    for _ in range(60):
        mixed, _, _ = mix(x, targets, weights)
        values = len(mixed[0].unique())
        kinds.add(values)
    assert kinds == {1, 2}, "a line has one value a map, a box two"


def test_noise_is_relative_to_the_activations() -> None:
    x, targets, weights = batch(64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small, _, _ = mixer(noise=0.1)(x, targets, weights)
        torch.manual_seed(0)
        large, _, _ = mixer(noise=0.1)(100 * x, targets, weights)
    np.testing.assert_allclose((small - x).std() / x.std(), 0.1, rtol=0.05)
    np.testing.assert_allclose(large, 100 * small, rtol=1e-4, atol=1e-3)


def test_nothing_asked_is_nothing_done() -> None:
    given_ = batch()
    assert all(a is b for a, b in zip(mixer()(*given_), given_, strict=True))


def test_cutmix_needs_a_map() -> None:
    with pytest.raises(TrainingError, match="gives 197 x 384, which is not a map"):
        mixer((197, 384), cutmix=1.0)
    assert map_sides((512, 7, 7)) == (2, 3)
    assert map_sides((7, 7, 768)) == (1, 2)
    assert map_sides((512, 7, 9)) == (2, 3)
