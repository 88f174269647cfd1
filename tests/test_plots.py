"""Panels of a sweep: what is drawn is what was given, and the recommended depth is marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from featcache import plots

CURVE = plots.DepthCurve(
    depths=[0, 1, 2, 5],
    accuracy=[0.93, 0.965, 0.976, 0.983],
    intervals=[(0.91, 0.95), (0.95, 0.98), (0.96, 0.99), (0.97, 0.99)],
    train_accuracy=[0.99, 1.0, 1.0, 1.0],
    recommended=2,
)

FOUND = plots.DepthMap(
    sizes=[50, 200, 800, 1258],
    depths=[0, 1, 3],
    accuracy=[[0.8, 0.78, 0.6], [0.88, 0.88, 0.8], [0.92, 0.95, 0.95], [0.93, 0.96, 0.98]],
    recommended=[0, None, 1, 3],
)


def test_accuracy_over_depth() -> None:
    (axes,) = plots.figure([plots.depths_panel(CURVE)]).axes
    bars, training = axes.containers[0], axes.lines[-2]
    assert list(bars[0].get_ydata()) == CURVE.accuracy
    ends = [segment[:, 1] for segment in bars[2][0].get_segments()]
    np.testing.assert_allclose(ends, CURVE.intervals)
    assert list(training.get_ydata()) == CURVE.train_accuracy
    assert list(axes.lines[-1].get_xdata()) == [2, 2]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2", "5"]
    assert axes.get_title() == "recommended: depth 2"


def test_undecided_marks_no_depth() -> None:
    (axes,) = plots.figure([plots.depths_panel(replace(CURVE, recommended=None))]).axes
    assert axes.get_title() == "undecided"
    assert list(axes.lines[-1].get_ydata()) == CURVE.train_accuracy


def test_depth_by_data_size() -> None:
    (axes,) = plots.figure([plots.map_panel(FOUND)]).axes
    assert axes.get_xscale() == "log"
    drawn = {line.get_label(): line for line in axes.lines}
    for d, depth in enumerate(FOUND.depths):
        line = drawn[f"depth {depth}"]
        assert list(line.get_xdata()) == FOUND.sizes
        assert list(line.get_ydata()) == [row[d] for row in FOUND.accuracy]
    assert list(drawn["best"].get_ydata()) == [0.8, 0.88, 0.95, 0.98]
    marked = drawn["recommended"]
    assert list(marked.get_xdata()) == [50, 800, 1258]
    assert list(marked.get_ydata()) == [0.8, 0.95, 0.98]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["50", "200", "800", "1258"]


@pytest.mark.parametrize("recommended", [[None] * 4, [0] * 4])
def test_the_map_with_all_or_none_decided(recommended: list[int | None]) -> None:
    (axes,) = plots.figure([plots.map_panel(replace(FOUND, recommended=recommended))]).axes
    marked = next(line for line in axes.lines if line.get_label() == "recommended")
    assert len(marked.get_xdata()) == sum(depth is not None for depth in recommended)
