import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as referee

from featcache.errors import ProbeError
from featcache.evaluation.metrics import (
    LOG_LOSS_CLIP,
    accuracy,
    confusion,
    correct,
    log_loss,
    mean_per_class,
    score,
)

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed, n=40, classes=5):
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    return rng.dirichlet(np.ones(classes), size=n), targets


@settings(deadline=None)
@given(seed=SEEDS)
def test_one_label_a_row_against_scikit_learn(seed):
    p, y = drawn(seed)
    predicted, found = p.argmax(axis=1), score(p, y)
    assert found.accuracy == pytest.approx(referee.accuracy_score(y, predicted))
    assert found.accuracy == pytest.approx(accuracy(predicted, y))
    assert found.mean_per_class == pytest.approx(referee.balanced_accuracy_score(y, predicted))
    assert found.log_loss == pytest.approx(referee.log_loss(y, p))
    assert found.n == 40
    np.testing.assert_array_equal(
        confusion(predicted, y, 5), referee.confusion_matrix(y, predicted)
    )
    assert correct(p, y).sum() == round(found.accuracy * 40)


@settings(deadline=None)
@given(seed=SEEDS)
def test_several_labels_a_row_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    p, y = rng.random((30, 4)), rng.random((30, 4)) < 0.4
    y[0] = True
    found = score(p, y)
    assert found.accuracy == pytest.approx(referee.accuracy_score(y, p > 0.5))
    assert found.mean_per_class == pytest.approx(referee.average_precision_score(y, p))
    assert found.log_loss == pytest.approx(
        np.mean([referee.log_loss(y[:, k], p[:, k], labels=[False, True]) for k in range(4)])
    )


def test_classes_without_rows_are_left_out_of_the_mean():
    predicted, y = np.array([0, 0, 3, 1]), np.array([0, 0, 3, 3])
    assert mean_per_class(predicted, y) == pytest.approx((1 + 0.5) / 2)
    labels = np.array([[True, False], [False, False]])
    assert score(np.array([[0.9, 0.2], [0.1, 0.3]]), labels).mean_per_class == 1.0


def test_confusion_has_given_rows_and_predicted_columns():
    cells = confusion(np.array([2, 2, 0]), np.array([1, 1, 0]), 3)
    assert cells.dtype == np.int64
    assert cells.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 0]]


def test_a_given_class_of_probability_zero_costs_the_clip():
    p, y = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])
    assert log_loss(p, y) == pytest.approx(-np.log(LOG_LOSS_CLIP) / 2)


def test_a_label_set_is_right_only_as_a_whole():
    p = np.array([[0.9, 0.1], [0.9, 0.6], [0.5, 0.1]])
    y = np.array([[True, False], [True, False], [False, False]])
    assert correct(p, y).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("p", "y", "says"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "at least one row"),
        (np.ones((3, 2)) / 2, np.zeros(2, int), "for targets of shape .*, with at least one row"),
        (
            np.ones((3, 2)) / 2,
            np.zeros((3, 3), bool),
            "for targets of shape .*, with at least one row",
        ),
        (
            np.full((3, 2), np.nan),
            np.zeros(3, int),
            "to be scored are not finite; check the features",
        ),
        (
            np.ones((3, 2)) / 2,
            np.zeros((3, 2), bool),
            "none of the 3 scored rows has a label; label some",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(p, y, says):
    with pytest.raises(ProbeError, match=says):
        score(p, y)
