"""Coordinates in which rows are solved: an orthonormal basis of what they span, by either way."""

import numpy as np
import pytest
import torch

from featcache.heads.design import Design


@pytest.fixture
def of_scales():
    """30 rows of 80 features whose singular values fall by so many decades."""

    def made(decades):
        rng = np.random.default_rng(0)
        U = np.linalg.qr(rng.normal(size=(30, 30)))[0]
        V = np.linalg.qr(rng.normal(size=(80, 30)))[0]
        return (U * np.logspace(0, -decades, 30)) @ V.T + rng.normal(size=80)

    return made


@pytest.mark.parametrize(("decades", "width"), [(0, 29), (2, 29), (4, 30), (9, 30)])
def test_the_basis_is_orthonormal_and_holds_the_rows(of_scales, decades, width):
    """Decomposed by their products where that keeps all digits, by a QR where it does not."""
    X = of_scales(decades)
    design = Design.of(X, np.arange(30), standardize=False, device="cpu")
    assert design.basis is not None
    assert design.basis.shape == (80, width)
    error = design.basis.T @ design.basis - torch.eye(width, dtype=torch.float64)
    assert error.abs().max() < 1e-10
    turned = design.turned(X)
    centred = X - X.mean(axis=0)
    np.testing.assert_allclose((turned @ design.basis.T).numpy(), centred, atol=1e-13)
    products = (turned.T @ turned).numpy()
    np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-10)


@pytest.mark.parametrize("rows", [[0], [0, 0], [0, 1, 1, 2]])
def test_rows_that_are_the_same_have_a_basis(of_scales, rows):
    X = of_scales(0)
    design = Design.of(X, np.array(rows), standardize=False, device="cpu")
    assert design.basis is not None
    kept = X[rows] - X[rows].mean(axis=0)
    np.testing.assert_allclose(
        design.turned(X[rows]).numpy() @ design.basis.numpy().T, kept, atol=1e-13
    )
