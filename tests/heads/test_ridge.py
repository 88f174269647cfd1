from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.profiler import ProfilerActivity, profile

from featcache.errors import ProbeError
from featcache.heads.ridge import RidgeProblem, solve_ridge

SHAPES = {"tall": (36, 5), "wide": (18, 40), "one more": (16, 15), "two more": (17, 15)}
GRID = np.array([1e-3, 0.3, 1e3])


def ridge_problem(problem_of, shape, kind="plain", **fields):
    n, D = SHAPES[shape]
    X, codes = problem_of(3, n, D, 3, kind)
    return RidgeProblem(X, np.eye(3)[codes], **{"grid": GRID, **fields})


def some_groups(n, seed=0):
    """Rows alone, and groups of 2 to about n/4 rows, in no order."""
    rng = np.random.default_rng(seed)
    alone = rng.random(n) < 0.4
    return np.where(alone, 1000 + np.arange(n), rng.integers(4, size=n) * rng.integers(1, 3, n))


def some_weights(n):
    return np.random.default_rng(7).uniform(0.2, 3, n)


def left_out(problem, C):
    """Every training row by scikit-learn's fit without its group; the others by the fit of all."""
    X, Y, n = problem.features.astype(float), problem.targets, len(problem.features)
    train = np.ones(n, bool) if problem.train is None else problem.train
    groups = np.arange(n) if problem.groups is None else problem.groups
    weights = np.ones(n) if problem.weights is None else problem.weights

    def fitted(rows):
        return Ridge(alpha=1 / C, solver="svd").fit(X[rows], Y[rows], weights[rows])

    scores = fitted(train).predict(X)
    for group in np.unique(groups[train]):
        own = train & (groups == group)
        scores[own] = fitted(train & ~own).predict(X[own])
    return scores


def agrees(problem, rtol=1e-9):
    path = solve_ridge(problem)
    for at, C in enumerate(problem.grid):
        expected = left_out(problem, C)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(path.held_out(at), expected, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_fit_is_scikit_learns_at_alpha_one_over_c(problem_of, shape, weighted):
    problem = ridge_problem(problem_of, shape, "offset")
    weights = some_weights(len(problem.features)) if weighted else None
    path = solve_ridge(replace(problem, weights=weights))
    for at, C in enumerate(GRID):
        referee = Ridge(alpha=1 / C, solver="svd").fit(problem.features, problem.targets, weights)
        fit = path.fit(at)
        assert fit.C == C
        np.testing.assert_allclose(fit.coef, referee.coef_, atol=1e-9)
        np.testing.assert_allclose(fit.bias, referee.intercept_, atol=1e-8)
        np.testing.assert_allclose(
            fit.scores(problem.features), referee.predict(problem.features), atol=1e-9
        )


@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_a_fit_is_where_the_stated_objective_has_no_slope(problem_of, shape):
    problem = ridge_problem(problem_of, shape)
    X, Y, n = problem.features, problem.targets, len(problem.features)

    def objective(W, b, C):
        return np.square(X @ W.T + b - Y).sum() / (2 * n) + np.square(W).sum() / (2 * C * n)

    path, rng = solve_ridge(problem), np.random.default_rng(0)
    for at, C in enumerate(GRID):
        fit = path.fit(at)
        dW, db, step = rng.normal(size=fit.coef.shape), rng.normal(size=3), 1e-4
        ahead = objective(fit.coef + step * dW, fit.bias + step * db, C)
        behind = objective(fit.coef - step * dW, fit.bias - step * db, C)
        lowest = objective(fit.coef, fit.bias, C)
        assert min(ahead, behind) > lowest
        assert abs(ahead - behind) < 1e-5 * (ahead + behind - 2 * lowest)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["offset", "duplicate"])
def test_leaving_one_picture_out_is_the_refit_without_it(problem_of, shape, kind):
    agrees(ridge_problem(problem_of, shape, kind))


@pytest.mark.parametrize("shape", SHAPES)
def test_leaving_a_group_out_is_the_refit_without_it(problem_of, shape):
    problem = ridge_problem(problem_of, shape)
    agrees(replace(problem, groups=some_groups(len(problem.features))))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grouped", [False, True])
def test_leaving_out_with_weights_and_with_rows_outside_train(problem_of, shape, grouped):
    problem = ridge_problem(problem_of, shape)
    n = len(problem.features)
    train = np.random.default_rng(2).random(n) < 0.8
    groups = some_groups(n) if grouped else None
    agrees(replace(problem, train=train, weights=some_weights(n), groups=groups))


@pytest.mark.parametrize("weighted", [False, True])
def test_groups_of_more_rows_than_features_are_left_out_exactly(problem_of, weighted):
    problem = ridge_problem(problem_of, "tall")
    folds = np.random.default_rng(1).integers(3, size=36)  # about 12 rows each, 5 features
    assert min(np.bincount(folds)) > 6
    agrees(replace(problem, groups=folds, weights=some_weights(36) if weighted else None))


@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_groups_of_one_row_are_no_groups(problem_of, shape):
    problem = ridge_problem(problem_of, shape)
    names = np.random.default_rng(0).permutation(len(problem.features))
    alone, grouped = solve_ridge(problem), solve_ridge(replace(problem, groups=names))
    for at in range(len(GRID)):
        np.testing.assert_allclose(alone.held_out(at), grouped.held_out(at), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_held_out_scores_stay_exact_where_every_row_is_interpolated(problem_of, shape):
    problem = ridge_problem(problem_of, shape)
    agrees(replace(problem, grid=np.array([1e8, 1e14])), rtol=1e-6)
    groups = some_groups(len(problem.features))
    agrees(replace(problem, grid=np.array([1e8, 1e14]), groups=groups), rtol=1e-6)


@pytest.mark.parametrize("together", [1, 2, 12])
def test_rows_that_alone_span_a_direction_are_left_out_exactly(problem_of, together):
    """1 - h is of the size of rounding; 12 rows take the large form."""
    problem = ridge_problem(problem_of, "tall", grid=np.array([1.0, 1e6, 1e15]))
    problem.features[:, 0] = 0
    problem.features[:together, 0] = 1 + np.arange(together)
    groups = np.maximum(np.arange(36) - together + 1, 0)
    agrees(replace(problem, groups=groups), rtol=1e-6)


def test_one_decomposition_serves_the_whole_grid(problem_of, monkeypatch):
    calls, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda A: calls.append(A.shape) or eigh(A))
    for shape in ("tall", "wide"):
        problem = ridge_problem(problem_of, shape, grid=np.logspace(-3, 3, 4))
        path = solve_ridge(replace(problem, groups=some_groups(len(problem.features))))
        for at in range(4):
            path.fit(at)
            path.held_out(at)
    assert calls == [(5, 5), (18, 18)]


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_outside_train_have_no_influence_at_all(problem_of, shape):
    problem = ridge_problem(problem_of, shape)
    n = len(problem.features)
    train, weights = np.arange(n) % 5 != 3, some_weights(n)
    spoiled = replace(problem, features=problem.features.copy(), targets=problem.targets.copy())
    spoiled.features[~train] = np.nan
    spoiled.targets[~train] = np.inf
    path = solve_ridge(replace(problem, train=train, weights=weights))
    others = solve_ridge(replace(spoiled, weights=np.where(train, weights, 0)))
    for at in range(len(GRID)):
        np.testing.assert_array_equal(path.fit(at).coef, others.fit(at).coef)
        np.testing.assert_array_equal(path.held_out(at)[train], others.held_out(at)[train])
        outside = path.fit(at).scores(problem.features)[~train]
        np.testing.assert_allclose(path.held_out(at)[~train], outside, rtol=1e-12)


@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_a_weight_of_two_is_the_row_twice(problem_of, shape):
    problem = ridge_problem(problem_of, shape)
    n = len(problem.features)
    twice = np.arange(n) % 3 == 0
    rows = np.concatenate([np.arange(n), np.flatnonzero(twice)])
    repeated = replace(
        problem, features=problem.features[rows], targets=problem.targets[rows], groups=rows
    )
    weighted, repeated = solve_ridge(replace(problem, weights=1.0 + twice)), solve_ridge(repeated)
    for at in range(len(GRID)):
        np.testing.assert_allclose(weighted.fit(at).coef, repeated.fit(at).coef, atol=1e-11)
        np.testing.assert_allclose(weighted.held_out(at), repeated.held_out(at)[:n], atol=1e-9)


@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_the_order_of_rows_changes_nothing(problem_of, shape):
    problem = ridge_problem(problem_of, shape)
    n = len(problem.features)
    problem = replace(problem, groups=some_groups(n), weights=some_weights(n))
    order = np.random.default_rng(4).permutation(n)
    fields = ("features", "targets", "groups", "weights")
    shuffled = replace(problem, **{name: getattr(problem, name)[order] for name in fields})
    here, there = solve_ridge(problem), solve_ridge(shuffled)
    for at in range(len(GRID)):
        np.testing.assert_allclose(there.held_out(at), here.held_out(at)[order], atol=1e-9)


@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_columns_of_targets_do_not_know_each_other(problem_of, shape):
    problem = ridge_problem(problem_of, shape)
    labels = np.random.default_rng(0).random((len(problem.features), 4)) < 0.3
    together = solve_ridge(replace(problem, targets=labels)).held_out(1)
    for k in range(4):
        alone = solve_ridge(replace(problem, targets=labels[:, [k]].astype(np.int8)))
        np.testing.assert_allclose(together[:, [k]], alone.held_out(1), atol=1e-12)


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_a_class_without_a_training_row_is_never_the_largest(problem_of, shape, low):
    problem = ridge_problem(problem_of, shape)
    absent = np.full((len(problem.features), 2), low)
    targets = np.hstack([absent, np.where(problem.targets, 1.0, low)])
    path = solve_ridge(replace(problem, targets=targets))
    for at in range(len(GRID)):
        scores = path.held_out(at)
        assert (scores.argmax(axis=1) >= 2).all()
        np.testing.assert_allclose(scores[:, :2], low, atol=1e-12)
        np.testing.assert_allclose(scores.sum(axis=1), targets.sum(axis=1), atol=1e-9)


def test_the_smallest_c_gives_the_mean_of_the_other_rows(problem_of):
    for shape in ("tall", "wide"):
        problem = ridge_problem(problem_of, shape, grid=np.array([1e-15]))
        Y, n = problem.targets, len(problem.targets)
        others = (Y.sum(axis=0) - Y) / (n - 1)
        np.testing.assert_allclose(solve_ridge(problem).held_out(0), others, atol=1e-10)


@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_constant_features_leave_the_bias_alone(problem_of, shape):
    problem = ridge_problem(problem_of, shape)
    path = solve_ridge(replace(problem, features=np.ones_like(problem.features)))
    Y, n = problem.targets, len(problem.targets)
    np.testing.assert_allclose(path.fit(0).coef, 0, atol=1e-20)
    np.testing.assert_allclose(path.fit(0).bias, Y.mean(axis=0))
    np.testing.assert_allclose(path.held_out(0), (Y.sum(axis=0) - Y) / (n - 1), atol=1e-12)


class Watched(np.ndarray):
    """Rows that note the size of what is read of them."""

    largest = 0

    def __getitem__(self, key):
        read = super().__getitem__(key)
        if isinstance(key, np.ndarray):
            Watched.largest = max(Watched.largest, read.size)
        return read


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grouped", [False, True])
def test_reads_stay_within_the_budget_and_blocks_change_nothing(problem_of, shape, grouped):
    problem = ridge_problem(problem_of, shape)
    n, D = problem.features.shape
    groups = np.arange(n) % 3 if grouped else None
    problem = replace(problem, groups=groups, train=np.arange(n) % 7 > 0, weights=some_weights(n))
    small = replace(problem, features=problem.features.view(Watched), memory=32 * 3 * max(n, D))
    Watched.largest = 0
    whole, blocks = solve_ridge(problem), solve_ridge(small)
    for at in range(len(GRID)):
        np.testing.assert_allclose(blocks.fit(at).coef, whole.fit(at).coef, atol=1e-9)
        np.testing.assert_allclose(blocks.held_out(at), whole.held_out(at), atol=1e-9)
    assert 0 < Watched.largest <= 3 * max(n, D)


@pytest.mark.parametrize("shape", ["tall", "wide"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_read_only_memory_map_of_any_float_is_its_float64(problem_of, tmp_path, shape, dtype):
    problem = ridge_problem(problem_of, shape)
    stored = problem.features.astype(dtype)
    stored.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype, "r", shape=stored.shape)
    path = solve_ridge(replace(problem, features=mapped))
    expected = solve_ridge(replace(problem, features=stored.astype(np.float64)))
    np.testing.assert_array_equal(path.held_out(1), expected.held_out(1))
    np.testing.assert_array_equal(
        path.fit(1).scores(mapped), expected.fit(1).scores(stored.astype(np.float64))
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shape", SHAPES)
def test_cuda_gives_the_same(problem_of, shape):
    problem = ridge_problem(problem_of, shape)
    problem = replace(problem, groups=some_groups(len(problem.features)))
    here, there = solve_ridge(problem), solve_ridge(replace(problem, device="cuda"))
    for at in range(len(GRID)):
        np.testing.assert_allclose(there.held_out(at), here.held_out(at), atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"features": np.zeros(36)}, "give \\(n, D\\)"),
        ({"targets": np.zeros(36)}, "give \\(n, K\\)"),
        ({"targets": np.full((36, 2), np.nan)}, "ridge: targets of training rows are not finite"),
        ({"features": np.full((36, 5), np.inf)}, "ridge: features of training rows are not finite"),
        (
            {"features": np.full((36, 50), np.nan)},
            "ridge: features of training rows are not finite",
        ),
        ({"grid": np.array([1.0, 0.0])}, "positive values of C"),
        ({"grid": np.array([])}, "positive values of C"),
        ({"train": np.ones(35, bool)}, "train for 36 rows must be \\(36,\\)"),
        ({"train": np.ones(36)}, "train of dtype float64; give bool"),
        ({"weights": -np.ones(36)}, "finite and not negative"),
        ({"weights": np.full(36, np.nan)}, "finite and not negative"),
        ({"groups": np.zeros(36, int)}, "group, and no row is left to fit without it"),
        ({"train": np.arange(36) < 1}, "1 training rows are one group"),
        ({"memory": 0}, "give a positive number"),
    ],
)
def test_problems_that_cannot_be_solved(problem_of, changes, says):
    with pytest.raises(ProbeError, match=says):
        solve_ridge(replace(ridge_problem(problem_of, "tall"), **changes))


def test_memory_does_not_grow_with_rows_times_classes():
    """Of 4,000 rows and 200 classes no array is made that holds all targets, 6 MB in float64."""
    rng = np.random.default_rng(0)
    targets = np.eye(200, dtype=np.bool_)[np.arange(4000) % 200]
    problem = RidgeProblem(rng.normal(size=(4000, 8)), targets, grid=GRID, memory=1 << 18)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        solve_ridge(problem).fit(0)
    largest = max(event.self_cpu_memory_usage for event in profiled.events())
    assert 0 < largest < targets.size
