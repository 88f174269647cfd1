"""What a sweep over depth looks like, from records made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import typer

from featcache.results import DataSize, DepthScore, Difference, Estimate, ProbeResult, Tta
from featcache_cli.probe import counts_of
from featcache_cli.sweep_rendering import render_sweep


def score(depth: int, accuracy: float) -> DepthScore:
    against = Difference(accuracy - 0.931, (-0.1, 0.1), 0.0123, "by hand", 539) if depth else None
    return DepthScore(
        depth=depth,
        cut="blocks.11" if depth else "penultimate",
        accuracy=accuracy,
        ci95=(accuracy - 0.02, accuracy + 0.02),
        train_accuracy=1.0,
        params_total=4_652_008 if depth < 3 else 1_304_368_640,
        params_trainable=12_810 if not depth else 717_000 * depth,
        params_frozen=3_935_008,
        seconds=12345.6,
        mean_per_class=accuracy,
        log_loss=0.2345,
        bytes=123_456_789_012,
        against_depth_0=against,
        adjusted_p=0.00123 if depth else None,
        rate=1.25e-4 if depth else None,
        epochs=12 if depth else None,
    )


_GAIN = Difference(0.011, (0.004, 0.02), 0.0312, "by hand", 539)
GAINS = (*[_GAIN] * 3, replace(_GAIN, difference=-0.011, ci95=(-0.02, -0.004)))
"""Of crops, by depth."""

SCORES = (score(0, 0.931), score(1, 0.965), score(2, 0.976), score(5, 0.983))

SWEPT = ProbeResult(
    head="softmax",
    n_train=1258,
    n_test=0,
    classes=("0", "1"),
    path=(),
    best_C=1.0,
    one_error_C=None,
    estimate=Estimate("hold-out", 0.931, (0.91, 0.95), 0.931, 0.23, 539),
    test=None,
    gap=1e-4,
    converged=True,
    confusion=(),
    seconds=1.0,
    cache="cache/digits",
    cut="penultimate",
    unfreeze=SCORES,
    recommended_depth=2,
    advice="depth 2 is enough: 97.6%, shown to be at most 0.9 points below [the] best",
)


def shown(capsys: Any, monkeypatch: pytest.MonkeyPatch, result: ProbeResult) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    render_sweep(result)
    return capsys.readouterr().out.splitlines()


def test_a_row_a_depth_in_80_columns(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(capsys, monkeypatch, SWEPT)
    assert max(map(len, lines[:-1])) <= 80  # the advice is wrapped by the terminal
    rows = [line.split() for line in lines]
    assert [row[0] for row in rows if row and row[0] in "0125"] == list("0125") * 2
    assert rows.index([]) == 0
    first = next(row for row in rows if row[:1] == ["2"])
    assert first[1:] == (
        ["*97.6%", "95.6", "to", "99.6", "100.0%", "97.6%", "0.234", "+4.5", "0.0012"]
    )
    assert ["0", "penultimate", "12.8K", "3.9M", "4.7M", "12345.6", "123456.8"] in rows
    assert ["5", "3.6M", "3.9M", "1.3G", "0.00013", "12"] in [[r[0], *r[2:7]] for r in rows if r]
    assert lines[-1] == f"advice: {SWEPT.advice}"


def test_the_probe_alone(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(capsys, monkeypatch, replace(SWEPT, recommended_depth=0, advice="enough"))
    assert lines[-1] == "advice: enough"
    assert "*93.1%" in "\n".join(lines)


def test_undecided(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    undecided = replace(SWEPT, recommended_depth=None, advice="undecided at n = 200; more rows")
    lines = shown(capsys, monkeypatch, undecided)
    assert lines[-1] == "advice: undecided at n = 200; more rows"
    assert not any("*9" in line for line in lines)


def test_the_map_of_depth_by_pictures(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    few = (score(0, 0.8), score(1, 0.79), score(2, 0.7), score(5, 0.6))
    sizes = (DataSize(50, few, None, "undecided"), DataSize(1258, SCORES, 2, "depth 2"))
    lines = shown(capsys, monkeypatch, replace(SWEPT, data_sizes=sizes))
    assert max(map(len, lines[:-1])) <= 80  # the advice is wrapped by the terminal
    rows = [line.split() for line in lines]
    assert ["50", "*80.0%", "79.0%", "70.0%", "60.0%", "undecided"] in rows
    assert ["1258", "93.1%", "96.5%", "97.6%", "*98.3%", "depth", "2"] in rows


def test_random_weights_stand_below_the_depths(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = replace(score(5, 0.4321), cut="scratch", adjusted_p=None)
    lines = shown(capsys, monkeypatch, replace(SWEPT, scratch=scratch, recommended_depth=5))
    assert max(map(len, lines[:-1])) <= 80
    rows = [line.split() for line in lines]
    below = [i + 1 for i, row in enumerate(rows) if row[:1] == ["5"]]
    assert [rows[i][:2] for i in below] == [["scratch", "43.2%"], ["scratch", "scratch"]]
    assert "*98.3%" in rows[below[0] - 1]


def test_what_crops_gain_is_a_column(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = "\n".join(shown(capsys, monkeypatch, SWEPT))
    scores = tuple(
        replace(s, tta=Tta("max", 4, s.accuracy + 0.011, 0.9, 0.2, gain))
        for s, gain in zip(SCORES, GAINS, strict=True)
    )
    scratch = replace(scores[-1], cut="scratch", accuracy=0.4321)
    lines = shown(capsys, monkeypatch, replace(SWEPT, unfreeze=scores, scratch=scratch))
    assert max(map(len, lines[:-1])) <= 80
    rows = [line.split() for line in lines]
    assert "with 4 random crops (max), on the same pictures" in [line.strip() for line in lines]
    assert ["2", "97.6%", "98.7%", "+1.10", "+0.40", "to", "+2.00", "0.031"] in rows
    assert ["5", "98.3%", "99.4%", "-1.10", "-2.00", "to", "-0.40", "0.031"] in rows
    assert ["scratch", "43.2%", "99.4%", "-1.10", "-2.00", "to", "-0.40", "0.031"] in rows
    assert "crops" not in plain


def test_a_probe_without_a_sweep_shows_none(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(capsys, monkeypatch, replace(SWEPT, unfreeze=())) == []


def test_scores_that_are_no_probabilities(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = replace(SWEPT, unfreeze=tuple(replace(s, log_loss=None) for s in SCORES))
    assert "0.2345" not in "\n".join(shown(capsys, monkeypatch, plain))


def test_records_as_json() -> None:
    found = replace(SWEPT, data_sizes=(DataSize(50, SCORES, None, "undecided"),)).to_json()
    keys = (
        "depth cut accuracy ci95 train_accuracy params_total params_trainable params_frozen seconds"
    )
    assert set(keys.split()) <= set(found["unfreeze"][0])
    assert found["unfreeze"][3]["overfitting"] == pytest.approx(0.017)
    assert found["unfreeze"][0]["against_depth_0"] is None
    assert found["unfreeze"][1]["against_depth_0"]["n"] == 539
    assert found["data_sizes"][0]["scores"][1]["depth"] == 1


def test_numbers_of_training_pictures_are_named_as_such() -> None:
    assert counts_of("50, 200,all") == (50, 200, None)
    with pytest.raises(typer.BadParameter, match="give numbers of pictures, as 50,200,all"):
        counts_of("0.5,1")
