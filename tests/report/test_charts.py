"""What is drawn is where the numbers say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.manifold import trustworthiness

from featcache.report.charts import Chart, Rule, Series
from featcache.report.projections import projections, sampled_rows
from featcache.report.scales import linear_axis, log_axis, named_axis, spread

numbers = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)


@given(st.lists(numbers, min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_linear_axis_holds_its_values(values: list[float]) -> None:
    axis = linear_axis("x", values, str)
    assert all(-1e-6 <= axis.share(value) <= 1 + 1e-6 for value in values)
    assert 2 <= len(axis.ticks) <= 12
    assert all(a < b for (a, _), (b, _) in itertools.pairwise(axis.ticks))


@pytest.mark.parametrize("values", [[1.0], [0.0], [0.999, 1.0], [0.0, 1e-9], [0.5, 0.5]])
def test_shares_stay_between_0_and_1(values: list[float]) -> None:
    axis = linear_axis("x", values, str, (0.0, 1.0))
    assert 0 <= axis.low < axis.high <= 1
    assert all(0 <= axis.share(value) <= 1 for value in values)


@given(st.lists(st.floats(1e-8, 1e8), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_log_axis_holds_its_values(values: list[float]) -> None:
    axis = log_axis("x", values)
    assert all(0 <= axis.share(value) <= 1 for value in values)
    assert all(math.log10(float(text)) == pytest.approx(at, abs=1e-3) for at, text in axis.ticks)
    assert len(axis.ticks) <= 9


@given(st.lists(st.floats(0, 200), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_labels_stand_apart_in_their_order(places: list[float]) -> None:
    moved = spread(places, 15, 0, 200)
    order = np.argsort(places, kind="stable")
    gaps = np.diff(np.array(moved)[order])
    assert (gaps >= 15 - 1e-9).all()
    if (np.diff(np.sort(places)) >= 15).all():
        assert moved == places
    assert min(moved) >= 0
    assert max(moved) <= 200


def test_marks_lie_where_their_values_are() -> None:
    c, accuracy = [1e-3, 1e-1, 10.0], [0.7, 0.9, 0.8]
    low, high = [0.6, 0.85, 0.75], [0.8, 0.95, 0.85]
    axes = log_axis("C", c), linear_axis("accuracy", [*low, *high], "{:.0%}".format, (0.0, 1.0))
    chart = Chart(
        "path", (Series("held out", c, accuracy, low, high),), *axes, (Rule(0.1, "best"),)
    )
    (line,) = chart.lines
    ticks = {text: y for y, text in chart.y_ticks}
    per_point = (ticks["60%"] - ticks["80%"]) / 0.2
    for mark, value, below, above in zip(line.marks, accuracy, low, high, strict=True):
        assert mark.y == pytest.approx(ticks["60%"] - per_point * (value - 0.6))
        assert (mark.bottom, mark.top) == pytest.approx(
            [ticks["60%"] - per_point * (end - 0.6) for end in (below, above)]
        )
    steps = np.diff([mark.x for mark in line.marks])
    assert steps[0] == pytest.approx(steps[1])  # two decades each
    assert chart.placed_rules[0].x == pytest.approx(line.marks[1].x)
    assert line.marks[1].text == "held out, C: 0.1, accuracy: 90.0% (85.0% to 95.0%)"


def test_names_stand_side_by_side() -> None:
    axis = named_axis("depth", ["0", "1", "all"])
    assert [text for _, text in axis.placed_ticks] == ["0", "1", "all"]
    assert [at for at, _ in axis.placed_ticks] == [axis.share(k) for k in range(3)]


def test_projections_keep_what_they_promise() -> None:
    from sklearn.datasets import load_digits

    features = load_digits()["data"][:150].astype(np.float64)
    pca, tsne = projections(features)
    centred = features - features.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    for axis in (0, 1):
        ours = pca.at[:, axis] - pca.at[:, axis].mean()
        cosine = ours @ left[:, axis] / np.linalg.norm(ours)
        assert abs(cosine) == pytest.approx(1, abs=1e-6)
    share = values**2 / (values**2).sum()
    assert pca.note.startswith(f"{share[0]:.0%} of the variance")
    assert trustworthiness(features, tsne.at, n_neighbors=5) > 0.9
    for plane in (pca, tsne):
        assert plane.at.min() >= 0
        assert plane.at.max() <= 1
    assert projections(features[:4]) == ()


def test_rows_are_sampled_alike_each_time() -> None:
    some = sampled_rows(1000, 50)
    assert len(set(some.tolist())) == 50
    assert (np.diff(some) > 0).all()
    assert np.array_equal(some, sampled_rows(1000, 50))
    assert sampled_rows(10, 50).tolist() == list(range(10))
