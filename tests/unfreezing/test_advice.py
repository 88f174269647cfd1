"""What the advice says where the truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from featcache.probing import labelled_rows
from featcache.store.steps import Steps
from featcache.unfreezing import sweep

SETS = 200


@pytest.fixture(scope="module")
def by_features(digits: Any) -> Any:
    """All digits under three labels that are a linear function of their features."""
    data = labelled_rows(digits)
    teacher = np.random.default_rng(0).normal(size=(data.features.shape[1], 3))
    scores = (data.features - data.features.mean(axis=0)) / data.features.std(axis=0).mean()
    return replace(data, targets=(scores @ teacher).argmax(axis=1), classes=("a", "b", "c"))


@pytest.mark.slow
def test_where_deeper_layers_have_nothing_to_add_the_advice_is_depth_0(
    by_features: Any, digits: Any, backbone: Any, spec: Any, tmp_path: Path
) -> None:
    asked = replace(spec, margin=0.03, training=replace(spec.training, rate=1e-3))
    found = sweep(digits, by_features, backbone, asked, Steps(tmp_path, "a")).recommendation
    assert found.depth == 0
    assert found.reason.startswith("depth 0 is enough")


@pytest.mark.slow
def test_too_few_pictures_are_undecided_and_say_how_many_would_do(
    by_features: Any, digits: Any, backbone: Any, spec: Any, tmp_path: Path
) -> None:
    names = ("features", "targets", "splits", "groups", "rows", "hashes")
    few = replace(by_features, **{name: getattr(by_features, name)[:120] for name in names})
    found = sweep(digits, few, backbone, spec, Steps(tmp_path, "b")).recommendation
    assert found.depth is None
    assert found.rows_needed > 120
    assert "rows would decide" in found.reason


@pytest.mark.slow
def test_permuted_labels_claim_a_better_depth_in_5_of_100_at_most(
    digits: Any, data: Any, backbone: Any, spec: Any, tmp_path: Path
) -> None:
    short = replace(
        spec,
        depths=(0, 1),
        probe=replace(spec.probe, grid=(1.0,), folds=2),
        training=replace(spec.training, epochs=2, batch_size=64),
    )
    rng, claims = np.random.default_rng(0), 0
    for number in range(SETS):
        permuted = replace(data, targets=rng.permutation(data.targets))
        found = sweep(digits, permuted, backbone, short, Steps(tmp_path, str(number)))
        better = found.depths[1].scores.accuracy > found.depths[0].scores.accuracy
        claims += bool(better and found.recommendation.better_than_first[1] < 0.05)
    assert claims <= binom.ppf(0.99, SETS, 0.05)
