"""The memory of L-BFGS: exact in the penalty, whatever C its pairs are from."""

import numpy as np
import pytest
import torch

from featcache.heads.quasi_newton import CurvaturePairs, pairs_for


@pytest.fixture
def quadratic():
    """A data Hessian (6, 6) whose last coordinate is an eigenvector, and all eigenvectors."""
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    basis = np.eye(6)
    basis[:5, :5] = turned
    return basis @ np.diag([3.0, 1.0, 0.5, 0.2, 0.05, 2.0]) @ basis.T, basis.T


@pytest.mark.parametrize("strength", [0.0, 0.1, 10.0])
def test_pairs_of_one_penalty_are_exact_at_another(quadratic, strength):
    """Along all eigenvectors the memory is the whole Hessian, so the direction is Newton's."""
    hessian, eigenvectors = quadratic
    pairs = CurvaturePairs(6)
    for step in eigenvectors:
        shape = (1, 1, 6)
        pairs.push(torch.tensor(step).view(shape), torch.tensor(hessian @ step).view(shape))
    gradient = np.random.default_rng(1).normal(size=6)
    penalty = strength * np.diag([1.0] * 5 + [0.0])
    found = pairs.direction(
        torch.tensor(gradient).view(1, 1, 6),
        torch.tensor([strength], dtype=torch.float64),
        torch.ones(1, 1, 6),
    )
    expected = -np.linalg.solve(hessian + penalty, gradient)
    np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_what_no_pair_knows_of_is_as_long_as_the_last_one_says():
    """Curvature 2, 8 and 20 where H0 takes it for 1, 1 and 2: its last pair says 10 times that."""
    curvature, taken = torch.tensor([2.0, 8.0, 20.0]), torch.tensor([1.0, 1.0, 2.0])
    pairs = CurvaturePairs(6)
    for known in (0, 2):
        step = torch.zeros(1, 1, 3)
        step[..., known] = 1
        pairs.push(step.double(), (curvature * step).double())
    gradient = torch.tensor([[[1.0, 1.0, 1.0]]], dtype=torch.float64)
    inverse = (1 / taken).view(1, 1, 3)
    found = pairs.direction(gradient, torch.zeros(1, dtype=torch.float64), inverse)
    np.testing.assert_allclose(found.flatten().numpy(), [-1 / 2, -1 / 10, -1 / 20], rtol=1e-6)


def test_a_class_that_is_lacking_makes_no_direction_infinite():
    """Its bias has no curvature, hence almost infinite length in H0, and no gradient."""
    pairs = CurvaturePairs(6)
    step = torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64)
    pairs.push(step, 0.1 * step)
    gradient = torch.tensor([[[1.0, 1.0, 0.0]]], dtype=torch.float64)
    inverse = torch.tensor([[[1.0, 1.0, 8e37]]])
    found = pairs.direction(gradient, torch.zeros(1, dtype=torch.float64), inverse)
    np.testing.assert_allclose(found.flatten().numpy(), [-10, -10, 0], rtol=1e-6)


def test_a_step_without_curvature_is_not_remembered():
    pairs = CurvaturePairs(6)
    pairs.push(torch.ones(1, 1, 3), torch.zeros(1, 1, 3))
    gradient = torch.tensor([[[1.0, -2.0, 3.0]]], dtype=torch.float64)
    found = pairs.direction(gradient, torch.zeros(1, dtype=torch.float64), torch.ones(1, 1, 3))
    np.testing.assert_allclose(found.numpy(), -gradient.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("tolerance", "pairs"), [(0.5, 3), (1e-3, 6), (1e-6, 15), (1e-8, 20), (1e-30, 20)]
)
def test_a_tighter_tolerance_remembers_more(tolerance, pairs):
    assert pairs_for(tolerance) == pairs
