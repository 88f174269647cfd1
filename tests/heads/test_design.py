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


@pytest.mark.parametrize(("decades", "empty"), [(0, 1), (2, 1), (2.4, 1), (2.6, 0), (4, 0), (9, 0)])
def test_the_basis_is_orthonormal_and_holds_the_rows(of_scales, decades, empty):
    """Decomposed by their products where that keeps all digits, by a QR where it does not."""
    X = of_scales(decades)
    design = Design.of(X, np.arange(30), standardize=False, device="cpu")
    assert design.basis is not None
    assert design.basis.shape == (80, 30), "of rows that are alike too"
    lengths = design.basis.T @ design.basis
    one = torch.eye(30, dtype=torch.float64)
    one[:empty, :empty] = 0
    assert (lengths - one).abs().max() < 1e-10
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
    lengths = design.basis.T @ design.basis
    torch.testing.assert_close(
        lengths, torch.eye(len(rows), dtype=torch.float64), atol=1e-12, rtol=0
    )
    kept = X[rows] - X[rows].mean(axis=0)
    found = design.turned(X[rows]).numpy() @ design.basis.numpy().T
    np.testing.assert_allclose(found, kept, atol=1e-13)
