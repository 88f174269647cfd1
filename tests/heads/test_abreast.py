"""Problems that are walked beside others are solved as they are alone, and know nothing of them."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.heads import solver
from featcache.heads.abreast import side_by_side
from featcache.heads.grid import default_grid
from featcache.heads.objective import objective
from featcache.heads.solver import FitStatus, PathProblem, solve_path, solve_paths


@pytest.fixture
def three(problem_of):
    """Problems of unlike rows, 60, 54 and 51 of 12 features, three folds each."""
    made = []
    for seed, n in enumerate((60, 54, 51)):
        X, y = problem_of(seed, n, 12, 4, ("plain", "imbalanced", "offset")[seed])
        train = np.arange(n) % 3 != np.arange(3)[:, None]
        made.append(PathProblem(X, y, 4, train, default_grid(X, 7)[:5], score=~train))
    return made


@pytest.fixture
def of_loss(three):
    """Them, or, for "logistic", the same with two classes."""

    def made(loss):
        if loss == "softmax":
            return three
        return [replace(p, targets=p.targets % 2, n_classes=2, loss=loss) for p in three]

    return made


@pytest.fixture
def walked(monkeypatch):
    """How many batches each walk abreast was of."""
    seen = list[int]()

    def spy(batches):
        seen.append(len(batches))
        return side_by_side(batches)

    monkeypatch.setattr(solver, "side_by_side", spy)
    return seen


def by_place(problems):
    """(problem, fold, position) to fit."""
    fits = {(at, fit.fold, fit.position): fit for at, fit in solve_paths(problems)}
    assert len(fits) == sum(len(p.train) * len(p.grid) for p in problems)
    return fits


def numbers(fit):
    return fit.objective, fit.gap, fit.head.coef, fit.head.bias, fit.probabilities, fit.iterations


def assert_equal(one, other):
    for a, b in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_they_are_solved_as_alone(of_loss, walked, loss, tolerance):
    problems = [replace(problem, tolerance=tolerance) for problem in of_loss(loss)]
    found = by_place(problems)
    assert walked == [3]
    for at, problem in enumerate(problems):
        for fit in solve_path(problem):
            beside = found[at, fit.fold, fit.position]
            assert beside.status is FitStatus.CONVERGED
            assert beside.gap <= tolerance
            assert beside.C == fit.C
            # neither lower bound is above the other's objective
            assert beside.objective * (1 - beside.gap) <= fit.objective
            assert fit.objective * (1 - fit.gap) <= beside.objective
            assert beside.probabilities.shape == fit.probabilities.shape
            if tolerance < 1e-3:
                np.testing.assert_allclose(beside.probabilities, fit.probabilities, atol=2e-2)
    assert len(walked) == 1, "one problem alone was put beside others"


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize(("which", "tolerance"), [(0, 1e-3), (1, 1e-3), (2, 1e-3), (2, 1e-6)])
def test_no_bit_of_one_depends_on_the_rows_of_another(
    of_loss, walked, loss, standardize, which, tolerance
):
    grid = np.array([0.01, 1.0])  # noise has other rungs
    given = {"standardize": standardize, "grid": grid, "tolerance": tolerance}
    problems = [replace(problem, **given) for problem in of_loss(loss)]
    rng = np.random.default_rng(1)
    noise = 300 * rng.normal(size=problems[which].features.shape)
    moved = np.roll(problems[which].targets, 3)  # by whole folds: each still has its classes
    other = replace(problems[which], features=noise, targets=moved)
    noisy = [*problems[:which], other, *problems[which + 1 :]]
    ours, theirs = by_place(problems), by_place(noisy)
    assert walked == 2 * ([9] if standardize else [3])
    for place, fit in ours.items():
        if place[0] == which:
            assert not np.array_equal(fit.head.coef, theirs[place].head.coef)
        else:
            assert_equal(fit, theirs[place])


@pytest.mark.parametrize("n", [20, 33, 40])
def test_no_bit_depends_on_a_duplicate_of_another(problem_of, walked, n):
    """Where features are more than rows: its rows then span one coordinate less."""
    made = []
    for seed in (0, 1):
        X, y = problem_of(seed, n, 100, 4, "plain")
        every = np.ones((1, n), np.bool_)
        made.append(PathProblem(X, y, 4, every, np.array([0.01, 1.0])))
    twice = made[1].features.copy()
    twice[3] = twice[0]
    ours, theirs = by_place(made), by_place([made[0], replace(made[1], features=twice)])
    assert walked == [2, 2]
    for place, fit in ours.items():
        if place[0] == 0:
            assert_equal(fit, theirs[place])
        else:
            assert not np.array_equal(fit.head.coef, theirs[place].head.coef)


def test_no_bit_depends_on_how_hard_another_is(three, walked):
    """One that gives up at a large C keeps the walk going long after the others are through."""
    easy, other = three[:2]
    hard = replace(three[2], grid=default_grid(three[2].features, 7) * 100)
    ours, theirs = by_place([easy, other, three[2]]), by_place([easy, other, hard])
    assert walked == [3, 3]
    assert any(fit.status is FitStatus.TOLERANCE_MISSED for fit in theirs.values())
    for place, fit in ours.items():
        if place[0] < 2:
            assert_equal(fit, theirs[place])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kinds=st.lists(
        st.sampled_from(["plain", "separable", "duplicate", "constant", "imbalanced"]),
        min_size=2,
        max_size=4,
    ),
    decade=st.floats(-6, 6),
    loss=st.sampled_from(["softmax", "logistic"]),
)
def test_what_is_reported_is_the_objective_and_bounds_the_optimum(
    problem_of, referee, seed, kinds, decade, loss
):
    problems, held, K = [], [], 3 if loss == "softmax" else 2
    for at, kind in enumerate(kinds):
        n, D = 16 + 2 * at, 3 + at
        X, y = problem_of(seed + at, n, D, K, kind)
        train, grid = np.ones((1, n), np.bool_), np.array([10.0**decade])
        problems.append(PathProblem(X, y, K, train, grid, loss))
        held.append((X - X.mean(axis=0), np.eye(K)[y] if loss == "softmax" else y[:, None] * 1.0))
    with patch.object(solver, "side_by_side", wraps=side_by_side) as stacked:
        fits = list(solve_paths(problems))
    assert [len(call.args[0]) for call in stacked.call_args_list] == [len(kinds)]
    for at, fit in fits:
        X, Y = held[at]
        W, b = referee(loss, X, Y, fit.C)
        optimum = objective(loss, X, Y, W, b, fit.C)
        assert fit.objective * (1 - fit.gap) <= optimum * (1 + 1e-12)
        assert fit.objective >= optimum * (1 - 1e-9)


def test_only_what_is_alike_and_small_is_put_side_by_side(three, walked, monkeypatch):
    fewer = replace(three[0], grid=three[0].grid[:3])  # at fewer C, which makes no difference
    binary = replace(three[2], targets=three[2].targets % 2, n_classes=2)
    columns = replace(three[1], loss="logistic")
    by_place([three[0], fewer, binary, columns])
    assert walked == [2]
    walked.clear()
    monkeypatch.setattr(solver, "_SMALL", 54 * 13)
    by_place(three)
    assert walked == [2]
    walked.clear()
    monkeypatch.setattr(solver, "_SMALL", 51 * 13)
    by_place(three)
    assert walked == []


def test_more_than_the_memory_holds_goes_in_turn(three, walked):
    cramped = [replace(problem, memory=1 << 20) for problem in (*three, *three)]
    whole, parts = by_place((*three, *three)), by_place(cramped)
    assert walked[0] == 6
    assert 1 < len(walked[1:]) < 6
    for place, fit in parts.items():
        assert fit.objective * (1 - fit.gap) <= whole[place].objective
        assert whole[place].objective * (1 - whole[place].gap) <= fit.objective


def test_what_is_solved_is_let_go_of(three, monkeypatch):
    """Groups of what was walked, of each kind, are not held while the next ones are."""
    living = list[weakref.ref[solver._Group]]()
    made = solver._Group.__init__

    def spy(self, group):
        gc.collect()
        held = sum(group() is not None for group in living)
        alive.append(held)
        made(self, group)
        living.append(weakref.ref(self))

    monkeypatch.setattr(solver._Group, "__init__", spy)
    monkeypatch.setattr(solver, "_SMALL", 54 * 13)
    large, *small = three
    for order, expected in (
        ([large, large, large], [0, 0, 0]),
        ([small[0], small[1], large, large], [0, 1, 2, 2]),
        ([replace(problem, memory=1 << 17) for problem in (*small, large)], [0, 1, 1]),
    ):
        alive, found = list[int](), set[int]()
        living.clear()
        for at, fit in solve_paths(order):
            found.add(at)
            del fit
        assert alive == expected
        assert found == set(range(len(order)))


def test_targets_of_other_kinds_are_not_put_side_by_side(three, walked):
    soft = replace(three[1], targets=np.eye(4)[three[1].targets])
    smoothed = replace(three[2], smoothing=0.1)
    by_place([three[0], three[1], soft, smoothed])
    assert sorted(walked) == [2, 2]


def test_some_problems_alone_are_refused(three):
    (group,) = [
        solver._Folds(
            0,
            three[0],
            solver._columns_of(three[0]),
            [0, 1, 2],
        )
    ]
    seats = [seat for _ in range(2) for seat in solver._Group(group).seats()]
    rows = side_by_side([seat.batch for seat in seats]).rows
    assert rows.of_problems(torch.arange(6)) is rows
    with pytest.raises(ValueError, match="problems abreast go on together"):
        rows.of_problems(torch.arange(3))


def test_soft_targets_and_weights_go_along(three, walked):
    problems = [
        replace(
            problem,
            targets=np.eye(4)[problem.targets] * 0.8 + 0.05,
            sample_weight=np.linspace(1, 2, len(problem.targets)),
            balanced=True,
            smoothing=0.1,
            tolerance=1e-7,
        )
        for problem in three
    ]
    found = by_place(problems)
    assert walked == [3]
    for at, problem in enumerate(problems):
        for fit in solve_path(problem):
            beside = found[at, fit.fold, fit.position]
            np.testing.assert_allclose(beside.objective, fit.objective, rtol=2e-7)


def test_rows_in_float32_stand_in_float64(three):
    (group,) = [
        solver._Folds(
            0,
            three[0],
            solver._columns_of(three[0]),
            [0, 1, 2],
        )
    ]
    (seat,) = solver._Group(group).seats()
    rows = replace(seat.batch.rows, rounded=seat.batch.rows.X.float())
    beside = side_by_side([seat.batch, replace(seat.batch, rows=rows)]).rows
    assert beside.dtype == torch.float64
    assert torch.equal(beside.X[0], beside.X[1])


def test_rows_that_are_not_held_are_refused(three):
    small = replace(three[0], memory=1)
    group = solver._Folds(0, small, solver._columns_of(small), [0, 1, 2])
    with pytest.raises(TypeError, match="only rows in memory stand side by side"):
        side_by_side([seat.batch for seat in solver._Group(group).seats()])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cuda_certifies_the_same_optimum(three):
    here = by_place(three)
    for place, fit in by_place([replace(problem, device="cuda") for problem in three]).items():
        assert fit.objective * (1 - fit.gap) <= here[place].objective
        assert here[place].objective * (1 - here[place].gap) <= fit.objective
