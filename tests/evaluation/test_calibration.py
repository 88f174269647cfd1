import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from featcache.errors import ProbeError
from featcache.evaluation.calibration import (
    HIGHEST,
    LOWEST,
    Calibration,
    calibration,
    expected_calibration_error,
    temperature,
    tempered,
)
from featcache.evaluation.metrics import log_loss

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed, n=60, classes=4, several=False, sureness=1.0):
    """Probabilities, and labels that follow them where sureness is 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(n, classes))
    if several:
        return expit(sureness * logits), rng.random((n, classes)) < expit(logits)
    chance = softmax(logits, axis=1).cumsum(axis=1)
    return softmax(sureness * logits, axis=1), (rng.random((n, 1)) > chance[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("sureness", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_what_was_done(several, sureness):
    p, y = drawn(0, 20_000, several=several, sureness=sureness)
    assert temperature(p, y) == pytest.approx(sureness, rel=0.03)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, several=st.booleans(), sureness=st.floats(0.2, 5))
def test_no_other_temperature_has_a_lower_loss(seed, several, sureness):
    p, y = drawn(seed, several=several, sureness=sureness)
    others = np.geomspace(LOWEST, HIGHEST, 200)
    losses = [log_loss(tempered(p, T, several_labels=several), y) for T in others]
    found = temperature(p, y)
    assert log_loss(tempered(p, found, several_labels=several), y) <= min(losses) + 1e-9
    assert LOWEST <= found <= HIGHEST


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, several=st.booleans(), a=st.floats(0.5, 2), b=st.floats(0.5, 2))
def test_temperatures_multiply(seed, several, a, b):
    p, y = drawn(seed, 200, several=several)
    once = tempered(p, a, several_labels=several)
    twice = tempered(once, b, several_labels=several)
    np.testing.assert_allclose(twice, tempered(p, a * b, several_labels=several), atol=1e-9)
    np.testing.assert_allclose(tempered(p, 1.0, several_labels=several), p, rtol=1e-9)
    assert temperature(once, y) == pytest.approx(temperature(p, y) / a, rel=1e-3)
    np.testing.assert_array_equal(once.argmax(axis=1), p.argmax(axis=1))
    if not several:
        np.testing.assert_allclose(once.sum(axis=1), 1)


def test_two_classes_are_one_label():
    p, y = drawn(3, 500, classes=1, several=True, sureness=2.0)
    as_classes = np.hstack([1 - p, p])
    assert temperature(as_classes, y[:, 0].astype(int)) == pytest.approx(temperature(p, y))


@settings(deadline=None)
@given(seed=SEEDS, several=st.booleans(), bins=st.integers(1, 20))
def test_the_calibration_error_is_its_definition(seed, several, bins):
    p, y = drawn(seed, several=several)
    if several:
        confidence, right = p.ravel(), y.ravel()
    else:
        confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    expected = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    assert expected_calibration_error(p, y, bins) == pytest.approx(expected, abs=1e-12)


def test_bins_are_closed_above():
    """With 2 bins, 0.5 is with 0.1 (mean 0.3, half of them right), 0.6 by itself."""
    p = np.array([[0.5], [0.1], [0.6], [0.0]])
    y = np.array([[True], [False], [True], [False]])
    expected = (abs(1 - 0.6) + abs(1 - 0.6)) / 4
    assert expected_calibration_error(p, y, bins=2) == pytest.approx(expected)


def test_the_error_of_true_probabilities_shrinks_with_rows():
    few, many = (expected_calibration_error(*drawn(1, n)) for n in (100, 40_000))
    assert few > many
    assert many < 0.02


def test_after_is_scored_with_the_other_groups_temperature():
    p, y = drawn(5, 90, sureness=3.0)
    groups = np.repeat([7, 2], [40, 50])
    after = np.concatenate(
        [
            tempered(p[:40], temperature(p[40:], y[40:])),
            tempered(p[40:], temperature(p[:40], y[:40])),
        ]
    )
    assert calibration(p, y, groups) == Calibration(
        temperature=temperature(p, y),
        ece_before=expected_calibration_error(p, y),
        ece_after=expected_calibration_error(after, y),
        log_loss_before=log_loss(p, y),
        log_loss_after=log_loss(after, y),
    )


def test_one_misleading_group_does_not_vouch_for_itself():
    """All rows of one group are wrong: they make the others unsure, the others keep them sure."""
    p, y = np.tile([0.9, 0.1], (40, 1)), np.zeros(40, int)
    y[30:] = 1
    groups = np.minimum(np.arange(40), 30)
    found = calibration(p, y, groups)
    alone = log_loss(tempered(p, found.temperature), y)
    assert found.log_loss_after > alone
    assert found.log_loss_after > found.log_loss_before


@pytest.mark.parametrize("several", [False, True])
def test_too_sure_probabilities_get_better(several):
    p, y = drawn(2, 2000, several=several, sureness=3.0)
    found = calibration(p, y, np.arange(2000))
    assert found.ece_after < found.ece_before / 3
    assert found.log_loss_after < found.log_loss_before
    assert found == calibration(p, y, np.arange(2000))
    assert found != calibration(p, y, np.arange(2000), seed=1)


@pytest.mark.parametrize("several", [False, True])
def test_certainty_that_is_right_is_left_alone(several):
    y = np.arange(12) % 3
    p, targets = np.eye(3)[y], np.eye(3, dtype=bool)[y] if several else y
    found = calibration(p, targets, np.arange(12))
    assert found.temperature == 1.0
    np.testing.assert_allclose(list(vars(found).values())[1:], 0, atol=1e-12)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("rows", [2, 3, 9])
def test_few_rows_and_certainty_that_is_wrong_stay_finite(several, rows):
    y = np.arange(rows) % 2
    p, targets = np.eye(2)[1 - y], np.eye(2, dtype=bool)[y] if several else y
    found = calibration(p, targets, np.arange(rows))
    assert np.isfinite(list(vars(found).values())).all()
    assert found.temperature == pytest.approx(HIGHEST, rel=1e-3)
    assert found.log_loss_after < found.log_loss_before


def test_probabilities_that_say_nothing_have_temperature_one():
    assert temperature(np.full((8, 4), 0.25), np.arange(8) % 4) == 1.0


@pytest.mark.parametrize(
    ("p", "y", "says"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "at least one row"),
        (
            np.ones((3, 2)) / 2,
            np.zeros((3, 3), bool),
            "for targets of shape .*, with at least one row",
        ),
        (
            np.full((3, 2), np.nan),
            np.zeros(3, int),
            "to be calibrated are not all from 0 to 1; check the head",
        ),
        (
            np.full((3, 2), 1.5),
            np.zeros(3, int),
            "to be calibrated are not all from 0 to 1; check the head",
        ),
    ],
)
def test_nonsense_is_refused(p, y, says):
    for refuse in (temperature, expected_calibration_error):
        with pytest.raises(ProbeError, match=says):
            refuse(p, y)


def test_too_little_to_judge_by_is_refused():
    p, y = drawn(0, 6)
    with pytest.raises(ProbeError, match="at least 2 groups"):
        calibration(p, y, np.zeros(6, int))
    with pytest.raises(ProbeError, match="at least 2 groups in at least 2 folds"):
        calibration(p, y, np.arange(6), folds=1)
    with pytest.raises(ProbeError, match="at least 1, such as 15"):
        expected_calibration_error(p, y, bins=0)
