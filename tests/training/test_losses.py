"""The loss against the heads' objective, and what smoothing and weights mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featcache.errors import TrainingError
from featcache.heads.linear import CERTAIN_LOGIT
from featcache.heads.objective import objective
from featcache.training.losses import TargetTable, batch_loss, row_losses

CPU = torch.device("cpu")


def table(targets, weights=None, classes=3, loss="softmax", smoothing=0.0):
    made = TargetTable(np.asarray(targets), weights, classes, loss, smoothing)
    return made.at(np.arange(len(targets)), CPU)


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_the_heads_objective_without_its_penalty(loss, classes) -> None:
    rng = np.random.default_rng(0)
    X, W, b = rng.normal(size=(30, 4)), rng.normal(size=(classes, 4)), rng.normal(size=classes)
    codes = rng.integers(classes, size=30)
    expected = objective(loss, X, np.eye(classes)[codes], W, b, C=1e12)
    Y, a = table(codes, classes=classes, loss=loss)
    ours = batch_loss(loss, torch.from_numpy(X @ W.T + b), Y.double(), a.double())
    np.testing.assert_allclose(float(ours), expected, rtol=1e-9)


def test_several_labels_are_independent_columns() -> None:
    rng = np.random.default_rng(1)
    Z, labels = rng.normal(size=(20, 3)), rng.random((20, 3)) < 0.4
    Y, a = table(labels, loss="logistic")
    P = 1 / (1 + np.exp(-Z))
    expected = -(np.where(labels, np.log(P), np.log(1 - P))).sum(axis=1).mean()
    ours = batch_loss("logistic", torch.from_numpy(Z), Y.double(), a.double())
    np.testing.assert_allclose(float(ours), expected, rtol=1e-12)


def test_a_picture_of_weight_two_is_two_pictures() -> None:
    Z = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    Y, a = table([0, 1, 2], np.array([2.0, 1.0, 1.0]))
    np.testing.assert_allclose(a.mean(), 1)
    twice, once = table([0, 0, 1, 2])
    expected = batch_loss("softmax", Z[[0, 0, 1, 2]], twice, once)
    np.testing.assert_allclose(batch_loss("softmax", Z, Y, a), expected, rtol=1e-6)


def test_smoothing_gives_a_share_to_classes_that_have_rows() -> None:
    Y, _ = table([0, 1, 1], classes=3, smoothing=0.2)
    np.testing.assert_allclose(Y, [[0.9, 0.1, 0], [0.1, 0.9, 0], [0.1, 0.9, 0]], rtol=1e-6)
    labels, _ = table([[1, 0, 1], [1, 0, 0]], loss="logistic", smoothing=0.2)
    np.testing.assert_allclose(labels, [[1, 0, 0.9], [1, 0, 0.1]], rtol=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_a_class_without_a_row_gets_no_gradient(loss) -> None:
    Z = torch.tensor([[1.0, 2.0, -CERTAIN_LOGIT]], requires_grad=True)
    Y, a = table([0, 1], loss=loss, smoothing=0.1)
    value = batch_loss(loss, Z, Y[:1], a[:1])
    value.backward()
    assert torch.isfinite(value)
    assert Z.grad[0, 2] == 0
    assert Z.grad[0, 0] != 0


def test_soft_targets_are_what_they_say() -> None:
    shares = np.array([[0.25, 0.75, 0.0]])
    Y, _ = table(shares)
    Z = torch.tensor([[0.3, -1.0, 2.0]])
    parts = [float(row_losses("softmax", Z, torch.eye(3)[k : k + 1])) for k in range(3)]
    np.testing.assert_allclose(row_losses("softmax", Z, Y), shares @ parts, rtol=1e-6)


@pytest.mark.parametrize(
    ("targets", "weights", "loss", "said"),
    [
        ([0, 3], None, "softmax", "targets from 0 to 3 for a head of 3 classes"),
        ([[1, 0], [0, 1]], None, "softmax", r"targets of shape \(2, 2\)"),
        ([0.0, 1.0], None, "softmax", r"give \(n,\) codes"),
        ([[1, 1, 0]], None, "softmax", "several labels need 'logistic'"),
        ([[2.0, 0, 0]], None, "logistic", "below 0 or above 1"),
        ([0, 1], np.array([1.0, 0.0]), "softmax", "not all positive"),
        ([0, 1], np.array([1.0, np.inf]), "softmax", "not all positive"),
        ([0, 1], np.ones(3), "softmax", r"weights of shape \(3,\) for 2 pictures"),
    ],
)
def test_what_cannot_be_is_refused(targets, weights, loss, said) -> None:
    with pytest.raises(TrainingError, match=said):
        table(targets, weights, loss=loss)
