"""The sweep: one split for all depths, seen by nothing that is fitted; resumed where it ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CacheMissingError
from featcache.evaluation.metrics import correct
from featcache.probing import labelled_rows
from featcache.store.steps import Steps
from featcache.training.model import model_of
from featcache.training.trainer import logits_of
from featcache.unfreezing import ladder, refit, sweep, sweep_sizes
from featcache.unfreezing.fitting import solve_depth_0, starting_head
from featcache.unfreezing.parts import split_of
from featcache.unfreezing.rows import activations_of


@pytest.fixture(scope="module")
def swept(digits: Any, data: Any, backbone: Any, spec: Any, tmp_path_factory: Any) -> Any:
    steps = Steps(tmp_path_factory.mktemp("steps"), "whole")
    return sweep(digits, data, backbone, spec, steps)


def test_every_depth_is_judged_on_the_same_pictures(swept: Any, data: Any, spec: Any) -> None:
    (part,) = split_of(data, spec).parts
    np.testing.assert_array_equal(swept.judged, np.flatnonzero(part.judged))
    assert [depth.rung.depth for depth in swept.depths] == [0, 1, 2]
    assert any(depth.fits[0][0].epochs for depth in swept.depths[1:])  # or little is tested here
    for depth in swept.depths:
        given = depth.fits[0][0].probabilities
        np.testing.assert_array_equal(depth.right[0], correct(given, data.targets[swept.judged]))
        assert depth.scores.accuracy == depth.right.mean()
        assert depth.interval.lo <= depth.scores.accuracy <= depth.interval.hi


def test_probabilities_are_those_of_the_tensors_that_are_kept(
    swept: Any, digits: Any, data: Any, backbone: Any
) -> None:
    for found in swept.depths[1:]:
        (fit,) = found.fits[0]
        model = model_of(found.rung.tail, fit.head, tuned=fit.tensors)
        judged = np.isin(np.arange(len(data)), swept.judged)
        (given,) = activations_of(digits, data, [found.rung], backbone.preprocessing)
        examples = given.examples(data, judged)
        said = fit.head.probabilities_of(logits_of(model, examples))
        np.testing.assert_allclose(said, fit.probabilities, atol=1e-6)


def test_a_depth_starts_from_the_solved_head_and_never_ends_worse_where_it_stops(
    digits: Any, data: Any, backbone: Any, spec: Any
) -> None:
    (part,) = split_of(data, spec).parts
    head = starting_head(data, part, spec)
    again = starting_head(replace(data, targets=_shuffled(data.targets, part.stop)), part, spec)
    np.testing.assert_array_equal(head.coef, again.coef)  # the pictures that stop do not train it
    whole = solve_depth_0(data, part, spec).head
    assert not np.array_equal(head.coef, whole.coef)


def _shuffled(targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    changed = targets.copy()
    changed[rows] = np.roll(targets[rows], 1)
    return changed


def test_what_is_held_out_moves_no_fitted_number(
    swept: Any, digits: Any, data: Any, backbone: Any, spec: Any, tmp_path: Path
) -> None:
    """Other labels and features in the held-out pictures: the same heads and tails."""
    (part,) = split_of(data, spec).parts
    rows = labelled_rows(digits).rows
    strangers = np.setdiff1d(rows, data.rows)[: int(part.judged.sum())]
    other = replace(
        data,
        features=data.features.copy(),
        targets=data.targets.copy(),
        rows=data.rows.copy(),
    )
    other.features[part.judged] = 100.0
    other.rows[part.judged] = strangers  # and so their activations at every cut
    assert np.array_equal(split_of(other, spec).parts[0].judged, part.judged)
    found = sweep(
        digits,
        other,
        backbone,
        spec,
        Steps(tmp_path, "other"),
    )
    for ours, theirs in zip(swept.depths, found.depths, strict=True):
        a, b = ours.fits[0][0], theirs.fits[0][0]
        np.testing.assert_array_equal(a.head.coef, b.head.coef)
        assert (a.rate, a.epochs, a.train_accuracy) == (b.rate, b.epochs, b.train_accuracy)
        for name, tensor in a.tensors.items():
            assert torch.equal(tensor, b.tensors[name]), name
        assert not np.array_equal(a.probabilities, b.probabilities)


def test_an_interrupted_sweep_goes_on_after_the_last_finished_depth(
    swept: Any, digits: Any, data: Any, backbone: Any, spec: Any, tmp_path: Path
) -> None:
    steps, seen = Steps(tmp_path, "cut-short"), []

    def stop_at_two(stage: str, _done: int, _total: int) -> None:
        seen.append(stage)
        if stage == "depth 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(digits, data, backbone, spec, steps, stop_at_two)
    assert set(seen) == {"depth 1", "depth 2"}
    seen.clear()
    found = sweep(digits, data, backbone, spec, steps, lambda stage, *_: seen.append(stage))
    assert set(seen) == {"depth 2"}
    for ours, theirs in zip(swept.depths, found.depths, strict=True):
        np.testing.assert_array_equal(
            ours.fits[0][0].probabilities, theirs.fits[0][0].probabilities
        )
    seen.clear()
    steps.write("0-1-0", {"loss": "none"}, {"coef": np.zeros(3)})  # of another making
    sweep(digits, data, backbone, spec, steps, lambda stage, *_: seen.append(stage))
    assert set(seen) == {"depth 1"}
    steps.remove()
    assert steps.read("0-1-0") is None


def test_depths_build_on_each_other_unless_told_not_to(
    swept: Any, digits: Any, data: Any, backbone: Any, spec: Any, tmp_path: Path
) -> None:
    apart = replace(spec, progressive=False)
    alone = replace(apart, depths=(0, 2))
    both = sweep(digits, data, backbone, apart, Steps(tmp_path, "apart"))
    lone = sweep(digits, data, backbone, alone, Steps(tmp_path, "lone"))
    a, b, on = (s.depths[-1].fits[0][0].probabilities for s in (both, lone, swept))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, on)


def test_seeds_differ_and_depth_0_does_not(
    digits: Any, data: Any, backbone: Any, spec: Any, tmp_path: Path
) -> None:
    two = sweep(digits, data, backbone, replace(spec, depths=(0, 1), seeds=2), Steps(tmp_path, "s"))
    solved, tuned = two.depths
    np.testing.assert_array_equal(solved.right[0], solved.right[1])
    first, second = (fit.probabilities for fit in tuned.fits[0])
    assert not np.array_equal(first, second)
    assert tuned.scores.accuracy == pytest.approx(tuned.right.mean())


def test_sizes_are_judged_on_the_same_pictures(
    swept: Any, digits: Any, data: Any, backbone: Any, spec: Any, tmp_path: Path
) -> None:
    shallow = replace(spec, depths=(0, 1))
    small, large = sweep_sizes(digits, data, backbone, shallow, Steps(tmp_path, "n"), (60, 150))
    np.testing.assert_array_equal(small.judged, swept.judged)
    assert small.depths[0].scores.accuracy < large.depths[0].scores.accuracy


def test_the_refit_trains_on_everything(digits: Any, data: Any, backbone: Any, spec: Any) -> None:
    fit = refit(digits, data, backbone, spec, 1)
    assert fit.probabilities.shape == (0, 10)
    tail = ladder(backbone, (0, 1))[1].tail
    names = {name for name, _ in tail.named_parameters()}
    assert names <= set(fit.tensors)


def test_activations_that_are_not_there_are_named(
    digits: Any, data: Any, backbone: Any, spec: Any, tmp_path: Path
) -> None:
    with pytest.raises(CacheMissingError, match=r"no activations of .*layer1\.0"):
        sweep(digits, data, backbone, replace(spec, depths=(0, 3)), Steps(tmp_path, "x"))
