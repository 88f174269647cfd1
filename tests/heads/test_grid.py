import numpy as np
import pytest

from featcache.errors import ProbeError
from featcache.heads.grid import default_grid


@pytest.fixture
def features():
    return np.random.default_rng(0).gamma(0.5, size=(50, 8)).astype(np.float32)


def test_seven_values_are_whole_decades_over_the_mean_squared_norm(features):
    centred = features - features.mean(axis=0, dtype=np.float64)
    decades = 10.0 ** np.arange(-1, 6)
    msn = np.square(centred).sum(axis=1).mean()
    np.testing.assert_allclose(default_grid(features, 7), decades / msn, rtol=1e-12)


def test_more_values_span_the_same_decades(features):
    few, many = default_grid(features, 7), default_grid(features)
    assert many.dtype == np.float64
    np.testing.assert_allclose(many[::4], few, rtol=1e-12)


def test_scaling_and_shifting_the_features(features):
    np.testing.assert_allclose(default_grid(10 * features), default_grid(features) / 100, rtol=1e-5)
    np.testing.assert_allclose(default_grid(features + 3), default_grid(features), rtol=1e-5)


@pytest.mark.parametrize(
    ("bad", "count", "says"),
    [
        (np.ones((4, 3), np.float32), 7, "constant or not finite"),
        (np.array([[0.0, np.nan], [1.0, 2.0]]), 7, "constant or not finite"),
        (np.eye(3), 1, "at least 2"),
    ],
)
def test_grids_that_cannot_be_placed(bad, count, says):
    with pytest.raises(ProbeError, match=says):
        default_grid(bad, count)
