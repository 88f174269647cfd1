"""Several views' probabilities as one."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from featcache.heads.averaging import Averaging, averaged

P = np.random.default_rng(0).dirichlet(np.ones(4), size=(3, 10))


@pytest.mark.parametrize("how", get_args(Averaging))
def test_copies_of_a_view_are_that_view(how: Averaging) -> None:
    np.testing.assert_allclose(averaged(np.stack([P[0]] * 3), how), P[0], rtol=1e-12)


@pytest.mark.parametrize("how", get_args(Averaging))
def test_distributions_stay_so_and_order_does_not_matter(how: Averaging) -> None:
    found = averaged(P, how)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(averaged(P[::-1], how), found, rtol=1e-12)


def test_by_hand() -> None:
    views = np.array([[[0.6, 0.4]], [[0.1, 0.9]]])
    np.testing.assert_allclose(averaged(views, "mean"), [[0.35, 0.65]])
    np.testing.assert_allclose(averaged(views, "max"), [[0.4, 0.6]])
    np.testing.assert_allclose(averaged(views, "max", multi_label=True), [[0.6, 0.9]])
