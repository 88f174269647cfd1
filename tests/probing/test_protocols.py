"""Published protocols against their sources' algorithms, with the sources' solvers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from featcache.errors import ProbeError
from featcache.evaluation.shots import support_rows
from featcache.heads.grid import default_grid
from featcache.probing import LabelledRows, Probed, ProbeSpec
from featcache.probing.few_shots import FewShots
from featcache.probing.protocols import PROTOCOLS, run_protocol, shots
from featcache.probing.protocols.holding_out import (
    groups_by_content,
    groups_by_torch,
    hold_out,
    hold_out_by_class,
)
from featcache.probing.protocols.refitting import CLIP_GRID

SPEC = ProbeSpec(tolerance=1e-9)
PUBLISHED = tuple(name for name in PROTOCOLS if name != "default")
REFITTED = ("clip", "dinov2", "vtab1k")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small matrices: threads only wait for each other."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def noisy(pixels: Any) -> tuple[np.ndarray, np.ndarray]:
    """420 digits of 0 to 2 by eight noisy pixels: classes overlap, the best C is no end."""
    X, y = pixels
    kept = np.flatnonzero(y < 3)[:420]
    rng = np.random.default_rng(1)
    X = X[kept][:, 20:36:2] + rng.normal(scale=0.5, size=(len(kept), 8))
    return X.astype(np.float32), y[kept]


@pytest.fixture
def split(noisy: Any, rows_of: Any, splits_of: Any) -> Callable[..., LabelledRows]:
    def split(**shares: int) -> LabelledRows:
        X, y = noisy
        return rows_of(X, y, splits_of(len(y), **shares))

    return split


def predict(data: LabelledRows, C: float, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Codes by scikit-learn's head, run to convergence (centred: the bias takes that up)."""
    X, mean = data.features.astype(np.float64), data.features[train].mean(axis=0)
    model = LogisticRegression(C=C, tol=1e-8, max_iter=100_000)
    return model.fit(X[train] - mean, data.targets[train]).predict(X[rows] - mean)


class Referee:
    """Accuracy of scikit-learn's heads by C."""

    def __init__(self, data: LabelledRows, train: np.ndarray, tuning: np.ndarray) -> None:
        self.data, self.train, self.tuning = data, train, tuning
        self.known: dict[float, float] = {}

    def accuracy(self, C: float) -> float:
        if C not in self.known:
            given = predict(self.data, C, self.train, self.tuning)
            self.known[C] = float((given == self.data.targets[self.tuning]).mean())
        return self.known[C]


def accuracies(probed: Probed) -> dict[float, float]:
    return {point.C: point.accuracy for point in probed.path}


def agrees(probed: Probed, data: LabelledRows, C: float, trained: np.ndarray) -> None:
    """The refit is scikit-learn's at this C on these rows, and so are its predictions."""
    assert probed.fit is not None
    assert probed.converged
    np.testing.assert_allclose(probed.fit.C, C, rtol=1e-6)
    assert probed.path[probed.best].C == probed.fit.C
    np.testing.assert_array_equal(probed.trained, trained)
    np.testing.assert_array_equal(probed.judged, data.splits == 2)
    theirs = predict(data, C, trained, probed.judged)
    ours = probed.probabilities[probed.judged].argmax(axis=1)
    assert int((ours != theirs).sum()) <= 1
    right = (theirs == data.targets[probed.judged]).mean()
    assert abs(probed.scores.accuracy - right) <= 1 / len(theirs)


# clip


def test_clip_is_its_search_with_scikit_learn(split: Any) -> None:
    data = split(train=3, val=2, test=2)
    train, val = data.splits == 0, data.splits == 1
    referee = Referee(data, train, val)
    tried = {power: referee.accuracy(10.0**power) for power in (-6, -4, -2, 0, 2, 4, 6)}
    peak = float(max(tried, key=lambda power: (tried[power], -power)))
    interval = 1.0
    while interval >= 1 / 8:  # halved around the peak down to 8 steps a decade
        nearby = [p for p in (peak - interval, peak, peak + interval) if -6 <= p <= 6]
        peak = max(nearby, key=lambda power: referee.accuracy(10.0**power))
        interval /= 2
    assert -3 < peak < 3  # within the grid, or the search is not tried

    probed = run_protocol("clip", data, SPEC)
    agrees(probed, data, 10.0**peak, train | val)
    assert named(accuracies(probed)) == pytest.approx(named(referee.known))
    assert len(probed.path) == len(referee.known)
    assert "appendix A.3" in probed.method
    assert "the val split, refit on both, measured on test" in probed.method


def named(accuracy: dict[float, float]) -> dict[str, float]:
    """By C as it is written: the last bit of a power is the processor's."""
    return {f"{C:.9e}": value for C, value in accuracy.items()}


def test_the_values_of_clip_are_eight_a_decade_and_have_that_of_its_code() -> None:
    assert len(CLIP_GRID) == 96 + 1
    assert CLIP_GRID[0] == pytest.approx(1e-6)
    assert CLIP_GRID[-1] == pytest.approx(1e6)
    assert min(abs(np.array(CLIP_GRID) - 0.316)) < 3e-4  # LogisticRegression(C=0.316) in README.md
    assert sorted(1 / np.array(CLIP_GRID)) == pytest.approx(CLIP_GRID)  # lambda or C: the same


def test_clip_holds_out_a_fifth_of_every_class_where_there_is_no_val(split: Any) -> None:
    data = split(train=3, test=1)
    probed = run_protocol("clip", data, SPEC)
    held = probed.trained & ~np.isnan(probed.probabilities[:, 0])
    train = data.splits == 0
    np.testing.assert_array_equal(probed.trained, train)
    for code in range(3):
        own = train & (data.targets == code)
        assert (held & own).sum() == round(own.sum() / 5)
    assert accuracies(probed) == pytest.approx(
        {C: Referee(data, train & ~held, held).accuracy(C) for C in accuracies(probed)}
    )
    assert "a fifth of every class of train" in probed.method


# dinov2


def test_dinov2_with_val_is_scikit_learns_sweep(split: Any) -> None:
    data = split(train=3, val=2, test=2)
    train, val = data.splits == 0, data.splits == 1
    referee = Referee(data, train, val)
    grid = (10 ** torch.linspace(-6, 5, 45)).double().tolist()  # as the source has it, in float32
    C = max(grid, key=referee.accuracy)  # the first of equals
    probed = run_protocol("dinov2", data, SPEC)
    agrees(probed, data, C, train | val)
    assert [point.C for point in probed.path] == pytest.approx(grid, rel=1e-5)
    found = [point.accuracy for point in probed.path]
    assert found == pytest.approx([referee.accuracy(C) for C in grid])
    assert len(probed.path) == 45


def test_dinov2_without_val_holds_out_the_tenth_of_torch(split: Any) -> None:
    data = split(train=3, test=1)
    rows = np.flatnonzero(data.splits == 0)
    before = torch.random.get_rng_state()
    probed = run_protocol("dinov2", data, SPEC)
    assert torch.equal(before, torch.random.get_rng_state())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        indices = torch.randperm(len(rows)).numpy()
    held = np.zeros(len(data), bool)
    held[rows[indices[: len(rows) // 10]]] = True
    found = probed.trained & ~np.isnan(probed.probabilities[:, 0])
    np.testing.assert_array_equal(found, held)
    referee = Referee(data, (data.splits == 0) & ~held, held)
    C = max((point.C for point in probed.path), key=referee.accuracy)
    agrees(probed, data, C, data.splits == 0)


# dinov2-knn


def test_dinov2_knn_is_its_votes_in_numpy(split: Any) -> None:
    data = split(train=3, val=1, test=2)
    train, test = data.splits == 0, data.splits == 2
    X = data.features.astype(np.float64)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    near = NearestNeighbors(n_neighbors=200, metric="cosine").fit(X[train])
    distances, places = near.kneighbors(X[test])
    weights = np.exp((1 - distances) / 0.07)
    weights /= weights.sum(axis=1, keepdims=True)  # over the largest k, as theirs
    labels = np.eye(3)[data.targets[train][places]] * weights[..., None]
    probed = run_protocol("dinov2-knn", data, SPEC)
    assert [point.neighbours for point in probed.path] == [10, 20, 100, 200]
    for point in probed.path:
        predicted = labels[:, : point.neighbours].sum(axis=1).argmax(axis=1)
        assert point.accuracy == pytest.approx((predicted == data.targets[test]).mean())
    predicted = labels[:, :20].sum(axis=1).argmax(axis=1)
    np.testing.assert_array_equal(probed.probabilities[test].argmax(axis=1), predicted)
    assert probed.path[probed.best].neighbours == 20
    assert probed.fit is None
    np.testing.assert_array_equal(probed.trained, train)
    assert "the val split takes no part in this protocol" in probed.warnings


def test_dinov2_knn_leaves_out_what_there_is_not(rows_of: Any, few: Any) -> None:
    splits = ["train"] * 15 + ["test"] * 75
    probed = run_protocol("dinov2-knn", rows_of(*few, splits), SPEC)
    assert [point.neighbours for point in probed.path] == [10]
    assert "k of 20, 100, 200 left out: 15 pictures are in train" in probed.warnings
    splits = ["train"] * 9 + ["test"] * 81
    with pytest.raises(ProbeError, match="10 neighbours or more, and 9 pictures are in train"):
        run_protocol("dinov2-knn", rows_of(*few, splits), SPEC)


# fewshot-lsr


def least_squares(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, K: int) -> np.ndarray:
    """Codes by the source's formula, in float64."""
    mean, std = X.mean(axis=0), X.std(axis=0) + 1e-5
    x = np.pad((X - mean) / std, ((0, 0), (0, 1)), constant_values=100.0)
    targets = 2.0 * np.eye(K)[y] - 1.0
    w = x.T @ np.linalg.solve(x @ x.T + 2.0**10 * np.eye(len(x)), targets)
    x_test = np.pad((X_test - mean) / std, ((0, 0), (0, 1)), constant_values=100.0)
    return np.argmax(x_test @ w, axis=1)


def test_fewshot_lsr_is_its_formula(noisy: Any, rows_of: Any, splits_of: Any) -> None:
    X, y = noisy
    X = np.hstack([X * 30 + 5, np.full((len(X), 1), 3.0)])  # a constant column, and scales
    splits = np.array(splits_of(len(y), train=1, test=1))
    splits[np.flatnonzero((y == 0) & (splits == "train"))[4:]] = (
        "test"  # 4 pictures: the bias counts
    )
    data = rows_of(X, y, splits.tolist())
    train, test = data.splits == 0, data.splits == 2
    found = run_protocol("fewshot-lsr", data, SPEC)
    assert [point.shots for point in found.shots] == [1, 5, 10, 25]
    for point in found.shots:
        for seed, scores in zip((0, 1, 2), point.scores, strict=True):
            support = support_rows(y, data.groups, data.hashes, train, point.shots, seed)
            features = data.features.astype(np.float64)
            given = least_squares(features[support], y[support], features[test], 3)
            assert scores.accuracy == pytest.approx((given == y[test]).mean(), abs=1e-12)
            assert scores.log_loss is None
        assert point.chosen == (2.0**-10,) * 3
    assert found.fits == 12
    assert found.missed == 0
    assert any(
        "fewer than 25 pictures of train" in w and "'digit 0' (4)" in w for w in found.warnings
    )
    assert len({scores for point in found.shots for scores in point.scores}) > 6


# vtab1k


def test_vtab1k_without_val_takes_a_thousand_of_train(
    pixels: Any, rows_of: Any, splits_of: Any
) -> None:
    X, y = pixels
    noise = np.random.default_rng(0).normal(scale=0.2, size=(len(y), 8))
    data = rows_of(X[:, 20:36:2] + noise, y, splits_of(len(y), train=3, test=1))
    probed = run_protocol("vtab1k", data, SPEC)
    held = probed.trained & ~np.isnan(probed.probabilities[:, 0])
    assert (probed.trained.sum(), held.sum()) == (1000, 200)
    assert not probed.trained[data.splits == 2].any()
    train = probed.trained & ~held
    grid = default_grid(data.features[train], 25)
    assert [point.C for point in probed.path] == pytest.approx(grid.tolist())
    referee = Referee(data, train, held)
    agrees(probed, data, max(grid.tolist(), key=referee.accuracy), probed.trained)
    assert "200 pictures of train (800 train)" in probed.method
    assert not any("VTAB-1k has" in warning for warning in probed.warnings)

    other = run_protocol("vtab1k", data, ProbeSpec(seed=1))
    assert (other.trained != probed.trained).any()


def test_vtab1k_with_val_takes_its_pictures(pixels: Any, rows_of: Any, splits_of: Any) -> None:
    X, y = pixels
    data = rows_of(X[:, 20:36:2], y, splits_of(len(y), train=3, val=1, test=1))
    probed = run_protocol("vtab1k", data, ProbeSpec())
    held = probed.trained & ~np.isnan(probed.probabilities[:, 0])
    np.testing.assert_array_equal(data.splits[held], 1)
    np.testing.assert_array_equal(data.splits[probed.trained & ~held], 0)
    assert (probed.trained.sum(), held.sum()) == (1000, 200)


def test_vtab1k_of_fewer_pictures_says_so(split: Any) -> None:
    data = split(train=1, test=1)
    probed = run_protocol("vtab1k", data, SPEC)
    np.testing.assert_array_equal(probed.trained, data.splits == 0)
    expected = "168 pictures to train on and 42 to choose C on, where VTAB-1k has 800 and 200"
    assert any(expected in warning for warning in probed.warnings)


# coop


def coop_reference(
    data: LabelledRows, support: np.ndarray, val: np.ndarray, test: np.ndarray
) -> tuple[float, float]:
    """C and accuracy on test, by the steps of the source."""
    referee = Referee(data, support, val)
    search = [1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6]
    peak = search[int(np.argmax([referee.accuracy(C) for C in search]))]
    left, right = 1e-1 * peak, 1e1 * peak
    final = peak
    for _ in range(8):
        if referee.accuracy(left) < referee.accuracy(right):
            final, left = right, float(np.sqrt(left * right))
        else:
            final, right = left, float(np.sqrt(left * right))
    given = predict(data, final, support, test)
    return final, float((given == data.targets[test]).mean())


def is_coop(found: FewShots, data: LabelledRows, seeds: tuple[int, ...]) -> None:
    """Every seed's C and accuracy are those of the source's steps on the same pictures."""
    train, val, test = (data.splits == k for k in range(3))
    identity = data.targets, data.groups, data.hashes
    for point in found.shots:
        assert len(point.scores) == len(point.chosen) == len(seeds)
        for seed, scores, C in zip(seeds, point.scores, point.chosen, strict=True):
            support = support_rows(*identity, train, point.shots, seed)
            tuning = support_rows(*identity, val, min(point.shots, 4), seed)
            their_C, their_accuracy = coop_reference(data, support, tuning, test)
            np.testing.assert_allclose(C, their_C, rtol=1e-6)
            assert abs(scores.accuracy - their_accuracy) <= 1 / test.sum() + 1e-9


def test_coop_is_its_search_with_scikit_learn(split: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(shots, "COOP_SHOTS", (4, 16))
    monkeypatch.setattr(shots, "COOP_SEEDS", (1, 3))
    data = split(train=2, val=1, test=2)
    found = run_protocol("coop", data, replace(SPEC, tolerance=1e-5))
    assert [point.shots for point in found.shots] == [4, 16]
    assert found.missed == 0
    assert 0 < found.worst_gap <= 1e-5
    is_coop(found, data, (1, 3))
    assert len({C for point in found.shots for C in point.chosen}) > 2


@pytest.mark.slow
def test_all_of_coop_is_its_search_with_scikit_learn(split: Any) -> None:
    data = split(train=2, val=1, test=2)
    found = run_protocol("coop", data, SPEC)
    assert [point.shots for point in found.shots] == [1, 2, 4, 8, 16]
    is_coop(found, data, (1, 2, 3))


@pytest.fixture
def short_coop(monkeypatch: Any) -> None:
    """Two support sets instead of fifteen."""
    monkeypatch.setattr(shots, "COOP_SHOTS", (2,))
    monkeypatch.setattr(shots, "COOP_SEEDS", (1, 2))


@pytest.mark.usefixtures("short_coop")
def test_coop_without_val_takes_a_fifth_of_train(split: Any) -> None:
    found = run_protocol("coop", split(train=1, test=1), replace(SPEC, tolerance=1e-2))
    assert any("no val split: 42 pictures of train" in warning for warning in found.warnings)


# all


def with_noise(data: LabelledRows, rows: np.ndarray) -> LabelledRows:
    """Other features, of another scale, and other labels on some rows."""
    rng = np.random.default_rng(0)
    features, targets = data.features.copy(), data.targets.copy()
    features[rows] = 100 * rng.normal(size=features[rows].shape)
    targets[rows] = rng.permutation(targets[rows])
    return replace(data, features=features, targets=targets)


@pytest.mark.parametrize("val", [0, 1], ids=["no val", "val"])
@pytest.mark.parametrize("name", REFITTED)
def test_test_rows_change_no_fitted_number(split: Any, name: str, val: int) -> None:
    data = split(train=3, val=val, test=2)
    spec = ProbeSpec(tolerance=1e-2)
    ours = run_protocol(name, data, spec)
    noise = run_protocol(name, with_noise(data, data.splits == 2), spec)
    assert ours.path == noise.path
    assert ours.fit.C == noise.fit.C
    np.testing.assert_array_equal(ours.head.coef, noise.head.coef)
    np.testing.assert_array_equal(ours.head.bias, noise.head.bias)
    assert ours.scores != noise.scores


@pytest.mark.usefixtures("short_coop")
def test_test_rows_choose_nothing_of_coop(split: Any) -> None:
    data = split(train=3, val=1, test=2)
    spec = ProbeSpec(tolerance=1e-2)
    ours = run_protocol("coop", data, spec)
    noise = run_protocol("coop", with_noise(data, data.splits == 2), spec)
    assert [p.chosen for p in ours.shots] == [p.chosen for p in noise.shots]
    assert [p.scores for p in ours.shots] != [p.scores for p in noise.shots]


@pytest.mark.parametrize("name", ["dinov2-knn", "fewshot-lsr"])
def test_val_takes_no_part(split: Any, name: str) -> None:
    data = split(train=3, val=1, test=2)
    ours, noise = (run_protocol(name, d, SPEC) for d in (data, with_noise(data, data.splits == 1)))
    if isinstance(ours, FewShots):
        assert ours.shots == noise.shots
    else:
        assert ours.path == noise.path


@pytest.mark.parametrize("name", ["clip", "dinov2", "vtab1k"])
def test_groups_stay_on_one_side(noisy: Any, rows_of: Any, splits_of: Any, name: str) -> None:
    X, y = noisy
    groups = np.arange(len(y)) // 6
    splits = np.repeat(splits_of(len(y) // 6 + 1, train=3, test=1), 6)[: len(y)].tolist()
    data = rows_of(X, y, splits, groups)
    probed = run_protocol(name, data, ProbeSpec(tolerance=1e-2))
    held = probed.trained & ~np.isnan(probed.probabilities[:, 0])
    assert 0.05 < held.sum() / probed.trained.sum() < 0.4
    train = (data.splits == 0) & ~held
    assert not np.intersect1d(groups[held], groups[train & probed.trained]).size
    assert not np.intersect1d(groups[probed.trained], groups[probed.judged]).size


@pytest.mark.parametrize("order", [groups_by_content, groups_by_torch])
def test_whole_groups_are_held_out_until_there_are_enough(
    few: Any, rows_of: Any, order: Any
) -> None:
    groups = np.arange(90) // 3
    data, rows = rows_of(*few, groups=groups), np.arange(90) < 60
    for count, expected in ((0, 3), (1, 3), (3, 3), (4, 6), (60, 57), (99, 57)):
        held = hold_out(data, rows, order(data, rows, 0), count)
        assert held.sum() == expected
        assert not held[60:].any()
        assert not np.intersect1d(groups[held], groups[rows & ~held]).size


def test_the_order_of_rows_does_not_matter_to_what_is_held_out_by_content(
    few: Any, rows_of: Any
) -> None:
    X, y = few
    turned = np.random.default_rng(0).permutation(len(y))
    ours, theirs = rows_of(X, y), rows_of(X[turned], y[turned])
    every = np.ones(len(y), bool)
    held = hold_out_by_class(ours, every, 0.2, seed=3)
    np.testing.assert_array_equal(hold_out_by_class(theirs, every, 0.2, seed=3), held[turned])
    assert (hold_out_by_class(ours, every, 0.2, seed=4) != held).any()


def test_groups_of_several_classes_count_for_each_of_them(few: Any, rows_of: Any) -> None:
    X, _ = few
    data = rows_of(X, np.arange(90) % 3, groups=np.arange(90) // 3)  # one of each class in each
    held = hold_out_by_class(data, np.ones(90, bool), 0.2, seed=0)
    np.testing.assert_array_equal(np.bincount(data.targets[held]), [6, 6, 6])


def test_what_cannot_be_held_out_is_refused(few: Any, rows_of: Any) -> None:
    X, y = few
    one = rows_of(X, y, groups=y)
    with pytest.raises(ProbeError, match="every class has one training picture or group"):
        hold_out_by_class(one, np.ones(90, bool), 0.2, seed=0)
    with pytest.raises(ProbeError, match="31 training pictures are one group"):
        hold_out(one, y == 0, groups_by_content(one, y == 0, 0), 3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_without_a_test_split_is_refused(split: Any, name: str) -> None:
    with pytest.raises(
        ProbeError, match=f"'{name}' is measured on a test split.*--protocol default"
    ):
        run_protocol(name, split(train=3, val=1), SPEC)


@pytest.mark.parametrize("name", PUBLISHED)
def test_several_labels_are_refused(few: Any, rows_of: Any, splits_of: Any, name: str) -> None:
    X, y = few
    labels = np.eye(3, dtype=bool)[y]
    labels[:7, 2] = labels[:7, 1] = True
    with pytest.raises(ProbeError, match=f"'{name}' is of one label a picture.* have several"):
        run_protocol(name, rows_of(X, labels, splits_of(90, train=1, test=1)), SPEC)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"standardize": True}, "--standardize"),
        ({"balanced": True}, "--class-weight"),
        ({"smoothing": 0.1}, "--label-smoothing"),
        ({"folds": 7}, "--cv"),
        ({"loss": "logistic"}, "--head"),
        ({"grid": (1.0,)}, "--grid"),
    ],
)
def test_what_the_protocol_fixes_is_refused(
    split: Any, name: str, change: dict[str, Any], option: str
) -> None:
    with pytest.raises(
        ProbeError, match=f"protocol '{name}' fixes {option}, .* was given; leave it out, or give"
    ):
        run_protocol(name, split(train=3, test=1), replace(SPEC, **change))


@pytest.mark.parametrize("name", [name for name in PUBLISHED if not PROTOCOLS[name].seeded])
def test_a_seed_is_refused_where_the_source_has_its_own(split: Any, name: str) -> None:
    with pytest.raises(ProbeError, match=f"protocol '{name}' fixes --seed, 3 was given"):
        run_protocol(name, split(train=3, test=1), replace(SPEC, seed=3))


def test_one_class_to_train_on_is_refused(few: Any, rows_of: Any) -> None:
    X, y = few
    data = rows_of(X, y, ["train" if code == 1 else "test" for code in y])
    with pytest.raises(ProbeError, match="'digit 1' is the only class with training pictures"):
        run_protocol("fewshot-lsr", data, SPEC)


def test_an_unknown_protocol_is_refused(split: Any) -> None:
    with pytest.raises(ProbeError, match="protocol 'clap': unknown; give one of default, clip"):
        run_protocol("clap", split(train=3, test=1), SPEC)


def test_default_is_the_default_estimate(few: Any, rows_of: Any) -> None:
    probed = run_protocol("default", rows_of(*few), ProbeSpec(grid=(0.1, 1.0), standardize=True))
    assert probed.method.startswith("nested cross-validation")


@pytest.mark.usefixtures("short_coop")
@pytest.mark.parametrize("name", PUBLISHED)
def test_progress_ends_at_what_it_expects_or_before(split: Any, name: str) -> None:
    said: list[tuple[str, int, int]] = []
    found = run_protocol(
        name,
        split(train=3, val=2, test=2),
        ProbeSpec(tolerance=1e-2),
        lambda *progress: said.append(progress),
    )
    assert [done for _, done, _ in said] == list(range(1, found.fits + 1))
    assert found.fits <= said[-1][2]
    assert found.seconds > 0


def test_every_protocol_is_on_its_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
    for name, protocol in PROTOCOLS.items():
        assert f"`{name}`" in page
        assert "\n" not in protocol.summary
        assert len(protocol.summary) < 90
