import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from featcache.errors import ProbeError
from featcache.heads import solver, walk
from featcache.heads.batch import Batch
from featcache.heads.certificate import bounds
from featcache.heads.grid import default_grid
from featcache.heads.objective import gradient, objective
from featcache.heads.solver import AS_FLAT, FitStatus, PathProblem, solve_path
from featcache.heads.walk import _Walkers


def folds_of(n, count=3, seed=0):
    held_out = np.random.default_rng(seed).permutation(n) % count
    return held_out != np.arange(count)[:, None]


@pytest.fixture
def problem(blobs):
    X, y = blobs
    return PathProblem(X, y, 4, folds_of(len(y)), default_grid(X))


def two_classes(problem, **changes):
    rows = problem.targets < 2
    return replace(
        problem,
        features=problem.features[rows],
        targets=problem.targets[rows],
        n_classes=2,
        train=problem.train[:, rows],
        **changes,
    )


def several_labels(problem):
    y = problem.targets
    labels = np.stack([y == 0, y < 2, y % 2 == 0], axis=1)
    return replace(problem, targets=labels, n_classes=3, loss="logistic")


def test_every_fold_and_value_is_fitted_once_and_certified(problem):
    fits = list(solve_path(problem))
    expected = {(f, C) for f in range(3) for C in problem.grid.tolist()}
    assert len(fits) == len(expected)
    assert {(f.fold, f.C) for f in fits} == expected
    for fit in fits:
        assert fit.status is FitStatus.CONVERGED
        assert 0 <= fit.gap <= problem.tolerance
        assert fit.iterations > 0
        assert fit.seconds > 0
        assert fit.absent == ()
        assert fit.head.coef.shape == (4, 20)
        assert fit.head.coef.dtype == fit.head.bias.dtype == np.float32


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
@pytest.mark.parametrize("standardize", [False, True])
def test_fits_are_what_scikit_learn_converges_to(problem, loss, standardize):
    problem = replace(problem, loss=loss, standardize=standardize, tolerance=1e-9)
    for fit in solve_path(replace(problem, grid=problem.grid[1:5:2], train=problem.train[:1])):
        train = problem.train[0]
        scaler = StandardScaler(with_std=standardize).fit(problem.features[train].astype(float))
        X = scaler.transform(problem.features.astype(float))
        model = LogisticRegression(C=fit.C, tol=1e-8, max_iter=10_000)
        if loss == "logistic":
            model = OneVsRestClassifier(model)
        model.fit(X[train], problem.targets[train])
        expected = model.predict_proba(X[~train])
        found = fit.head.probabilities(problem.features[~train])
        np.testing.assert_allclose(found, expected, atol=2e-3)
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_two_classes_are_scikit_learns_single_vector(problem, loss):
    problem = two_classes(problem, loss=loss, tolerance=1e-9)
    for fit in solve_path(replace(problem, grid=problem.grid[1:4:2], train=problem.train[:1])):
        train = problem.train[0]
        X = problem.features - problem.features[train].mean(axis=0)
        model = LogisticRegression(C=fit.C, tol=1e-8, max_iter=10_000)
        model.fit(X[train].astype(float), problem.targets[train])
        np.testing.assert_allclose(
            fit.head.probabilities(problem.features), model.predict_proba(X), atol=1e-3
        )
        np.testing.assert_array_equal(fit.head.coef[0], -fit.head.coef[1])
        half = 2 if loss == "softmax" else 1
        np.testing.assert_allclose(half * fit.head.coef[1:], model.coef_, atol=1e-3)


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_objective_is_that_of_the_returned_head(problem, loss):
    for fit in solve_path(replace(problem, loss=loss)):
        rows = problem.train[fit.fold]
        value = objective(
            loss,
            problem.features[rows].astype(float),
            np.eye(4)[problem.targets[rows]],
            fit.head.coef.astype(float),
            fit.head.bias.astype(float),
            fit.C,
        )
        assert fit.objective == pytest.approx(value, rel=1e-3)


def test_gap_is_above_the_true_one(problem, referee):
    problem = replace(problem, tolerance=0.05, train=problem.train[:1])
    rows = problem.train[0]
    X = problem.features[rows].astype(float)
    X -= X.mean(axis=0)
    Y = np.eye(4)[problem.targets[rows]]
    for fit in solve_path(problem):
        optimum = objective("softmax", X, Y, *referee("softmax", X, Y, fit.C), fit.C)
        assert fit.gap >= (fit.objective - optimum) / fit.objective


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("kind", ["problem", "in_float32"])
def test_held_out_rows_have_no_influence_on_any_bit(request, loss, standardize, kind):
    problem = request.getfixturevalue(kind)
    problem = replace(problem, loss=loss, standardize=standardize, train=problem.train[:1])
    rng = np.random.default_rng(9)
    held_out = ~problem.train[0]
    X, y = problem.features.copy(), problem.targets.copy()
    X[held_out] = 1e3 * rng.normal(size=(held_out.sum(), X.shape[1]))
    X[np.flatnonzero(held_out)[0]] = np.nan
    y[held_out] = rng.integers(4, size=held_out.sum())
    changed = replace(problem, features=X, targets=y)
    for ours, theirs in zip(solve_path(problem), solve_path(changed), strict=True):
        np.testing.assert_array_equal(ours.head.coef, theirs.head.coef)
        np.testing.assert_array_equal(ours.head.bias, theirs.head.bias)
        assert (ours.objective, ours.gap) == (theirs.objective, theirs.gap)


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_more_features_than_rows(problem, loss):
    """The reduction to the span of the rows is exact: noise columns of zeros change nothing."""
    rng = np.random.default_rng(2)
    turn, _ = np.linalg.qr(rng.normal(size=(400, 20)))
    wide = (problem.features.astype(float) @ turn.T).astype(np.float32)
    narrow = replace(problem, loss=loss, tolerance=1e-8, grid=problem.grid[:4])
    for a, b in zip(solve_path(narrow), solve_path(replace(narrow, features=wide)), strict=True):
        assert b.head.coef.shape == (4, 400)
        assert b.objective == pytest.approx(a.objective, rel=1e-5)
        np.testing.assert_allclose(
            b.head.probabilities(wide), a.head.probabilities(problem.features), atol=1e-3
        )


def test_an_absent_class_leaves_its_fold(problem):
    train = problem.train.copy()
    train[1] &= problem.targets != 2
    for loss in ("softmax", "logistic"):
        for fit in solve_path(replace(problem, train=train, loss=loss)):
            p = fit.head.probabilities(problem.features)
            assert np.isfinite(p).all()
            np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
            assert fit.absent == ((2,) if fit.fold == 1 else ())
            assert (p[:, 2] == 0).all() == (fit.fold == 1)
            assert fit.status is FitStatus.CONVERGED


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_two_present_of_four_classes_are_the_two_class_fit(problem, loss):
    rows = np.isin(problem.targets, [1, 3])
    part = replace(problem, train=problem.train & rows, loss=loss)
    pair = replace(
        part,
        features=problem.features[rows],
        targets=problem.targets[rows] // 2,
        n_classes=2,
        train=part.train[:, rows],
    )
    for a, b in zip(solve_path(part), solve_path(pair), strict=True):
        assert a.absent == (0, 2)
        np.testing.assert_array_equal(a.head.coef[[1, 3]], b.head.coef)
        np.testing.assert_array_equal(
            a.head.probabilities(problem.features)[:, [1, 3]],
            b.head.probabilities(problem.features),
        )


def test_several_labels_are_one_column_each(problem):
    problem = replace(several_labels(problem), tolerance=1e-9, grid=problem.grid[1:4:2])
    train = problem.train[0]
    X = (problem.features - problem.features[train].mean(axis=0)).astype(float)
    for fit in solve_path(replace(problem, train=problem.train[:1])):
        p = fit.head.probabilities(problem.features)
        assert fit.head.multi_label
        for k in range(3):
            model = LogisticRegression(C=fit.C, tol=1e-8, max_iter=10_000)
            model.fit(X[train], problem.targets[train, k])
            np.testing.assert_allclose(p[:, k], model.predict_proba(X)[:, 1], atol=1e-3)


def test_labels_on_no_row_and_on_every_row(problem):
    labels = several_labels(problem).targets.copy()
    labels[:, 1], labels[:, 2] = False, True
    fit = next(iter(solve_path(replace(several_labels(problem), targets=labels))))
    p = fit.head.probabilities(problem.features)
    assert fit.absent == (1,)
    assert (p[:, 1] == 0).all()
    assert (p[:, 2] == 1).all()
    assert 0 < p[:, 0].min() < p[:, 0].max() < 1


def test_constant_and_duplicate_columns_and_a_wild_scale(problem):
    X = np.hstack([problem.features, problem.features, np.full((120, 1), 3.3, np.float32)])
    X[:, 0] *= 1e4
    changed = replace(problem, features=X, standardize=True, grid=problem.grid[:4])
    for fit in solve_path(changed):
        assert fit.status is FitStatus.CONVERGED
        assert (np.abs(fit.head.coef[:, -1]) < 1e-6).all()


def test_a_missed_tolerance_is_said(problem):
    fits = list(solve_path(replace(problem, tolerance=1e-17, grid=problem.grid[:1])))
    assert all(f.status is FitStatus.TOLERANCE_MISSED and f.gap > 1e-17 for f in fits)
    assert "smaller C" in FitStatus.TOLERANCE_MISSED.value


def test_every_fold_has_its_own_tolerance(problem):
    asked = replace(problem, tolerance=np.array([1e-2, 1e-6, 1e-2]))
    gaps = {fold: [] for fold in range(3)}
    for fit in solve_path(asked):
        assert fit.status is FitStatus.CONVERGED
        gaps[fit.fold].append(fit.gap)
    assert max(gaps[1]) <= 1e-6
    assert 1e-5 < max(gaps[0]) <= 1e-2
    loose = {(f.fold, f.C): f.gap for f in solve_path(replace(problem, tolerance=1e-2))}
    assert max(gap for (fold, _), gap in loose.items() if fold == 1) > 1e-6


def test_a_flat_fit_is_no_worse_than_scikit_learns():
    """Its default stops by the gradient: at small C, closer than a gap of 1e-3."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:400] / 4, y[:400]  # as long as what networks give: its rule has the features' unit
    grid = np.logspace(-5, 1, 13)
    asked = PathProblem(X, y, 10, np.ones((1, len(y)), np.bool_), grid)

    def above(problem):
        """How many of its fits have the larger objective."""
        return sum(fit.objective > theirs[fit.C] for fit in solve_path(problem))

    theirs = {}
    for C in grid.tolist():
        model = LogisticRegression(C=C, max_iter=1000).fit(X.astype(np.float64), y)
        Y = np.eye(10)[y]
        theirs[C] = objective("softmax", X.astype(np.float64), Y, model.coef_, model.intercept_, C)
    assert above(asked)
    assert not above(replace(asked, gradient_tolerance=AS_FLAT))
    each = replace(asked, train=np.ones((2, len(y)), np.bool_))
    flat = replace(each, gradient_tolerance=np.array([np.inf, AS_FLAT]))
    steps = {0: 0, 1: 0}
    for fit in solve_path(flat):
        steps[fit.fold] += fit.iterations
    assert steps[1] > steps[0]


def test_a_gradient_tolerance_holds_of_what_float32_steps_found(in_float32):
    X, y = in_float32.features, in_float32.targets
    K, rows = in_float32.n_classes, in_float32.train[:1]
    asked = replace(in_float32, train=rows, grid=np.array([1e-3, 1.0, 1e2]))
    X, Y = X[rows[0]], np.eye(K)[y[rows[0]]]
    for fit in solve_path(replace(asked, gradient_tolerance=1e-8)):
        turned, W = fit._solution.design.turned(X).numpy(), fit._solution.W.numpy()
        slope, _ = gradient("softmax", turned, Y, W[:, :-1], W[:, -1], fit.C)
        length = np.sqrt(np.mean(np.sum(turned**2, axis=1)))
        assert np.linalg.norm(slope) <= 1e-8 * length


def test_rows_that_are_all_equal_are_waited_for_no_longer(problem):
    asked = replace(problem, features=np.ones_like(problem.features))
    for fit in solve_path(asked):
        assert fit.status is FitStatus.CONVERGED
        assert fit.iterations <= 2


def test_a_path_needs_no_logits_but_those_of_its_steps(problem, monkeypatch):
    """What a secant adds to the rounding is that of the way since the last solution, no more."""
    multiplied, values = [], Batch.values

    def counted(self, W):
        multiplied.append(len(W))
        return values(self, W)

    monkeypatch.setattr(Batch, "values", counted)
    assert len(list(solve_path(problem))) == 3 * len(problem.grid)
    assert not multiplied


def test_the_order_of_the_rows_and_of_the_grid_decides_nothing(problem):
    order = np.random.default_rng(3).permutation(120)
    mixed = replace(
        problem,
        features=problem.features[order],
        targets=problem.targets[order],
        train=problem.train[:, order],
        grid=problem.grid[::-1],
    )
    ours = {(f.fold, f.C): f for f in solve_path(problem)}
    for fit in solve_path(mixed):
        assert fit.objective == pytest.approx(ours[fit.fold, fit.C].objective, rel=2e-3)


def test_a_single_class_is_named_before_the_first_fit(problem):
    train = problem.train.copy()
    train[1] = problem.targets == 3
    with pytest.raises(ProbeError, match="fold 1: the training rows hold class 3 alone"):
        solve_path(replace(problem, train=train))
    train[1] = False
    with pytest.raises(ProbeError, match="fold 1: the training rows hold no row"):
        solve_path(replace(problem, train=train))
    labels = replace(several_labels(problem), targets=np.ones((120, 3), bool))
    with pytest.raises(ProbeError, match="fold 0: each of the 3 labels"):
        solve_path(labels)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"targets": np.zeros(7, int)}, "targets of shape"),
        ({"targets": np.zeros(120)}, "targets of dtype float64"),
        ({"targets": np.full((120, 4), 0.3)}, "do not sum to 1"),
        ({"sample_weight": np.zeros(120)}, "sample_weight"),
        ({"score": np.ones((1, 120), bool)}, "score"),
        ({"smoothing": 1.0}, "smoothing 1.0"),
        ({"memory": 0}, "memory 0"),
        ({"device": "no-such"}, "device 'no-such': not on this machine"),
        ({"n_classes": 3}, "codes outside 0..2"),
        ({"targets": np.zeros((120, 4), bool)}, "use 'logistic'"),
        ({"train": np.ones((2, 5), bool)}, "train of shape"),
        ({"train": np.ones((0, 120), bool)}, "train of shape"),
        ({"grid": np.array([1.0, -1.0])}, "positive values of C"),
        ({"grid": np.array([])}, "positive values of C"),
        ({"tolerance": 0.0}, "tolerance 0.0"),
        (
            {"tolerance": np.full(2, 1e-3)},
            "give a positive number, or one for each of 3 folds",
        ),
        ({"gradient_tolerance": np.array([1.0, 0.0, 1.0])}, "gradient_tolerance .*give a positive"),
        (
            {"features": np.full((120, 20), np.inf, np.float32)},
            "probe: features of training rows are not finite; check the pictures",
        ),
        ({"features": np.zeros(120, np.float32)}, "features of shape"),
    ],
)
def test_arrays_that_disagree_are_refused_at_once(problem, changes, says):
    with pytest.raises(ProbeError, match=says):
        solve_path(replace(problem, **changes))


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
@pytest.mark.parametrize("classes", [2, 3])
def test_balanced_folds_are_scikit_learns(problem, loss, classes):
    """Rows that no fold trains on count for nothing, in the columns of a logistic too."""
    codes = problem.targets % classes
    train = np.arange(len(codes)) % 3 != 0
    rows = replace(
        problem, targets=codes, n_classes=classes, train=train[None], loss=loss, balanced=True
    )
    rows = replace(rows, grid=np.array([0.1]), tolerance=1e-8)
    (fit,) = solve_path(rows)
    X = problem.features[train].astype(np.float64)
    for k in range(classes) if loss == "logistic" else (None,):
        y = codes[train] if k is None else codes[train] == k
        model = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000, class_weight="balanced")
        model.fit(X, y)
        ours = fit.head.coef if k is None else fit.head.coef[k]
        theirs = (
            model.coef_ if k is not None or classes > 2 else np.vstack([-0.5, 0.5]) * model.coef_
        )
        np.testing.assert_allclose(ours, np.squeeze(theirs), atol=2e-4)


@pytest.mark.parametrize("grid", [[1e6], [1e-3, 1e2, 1e6]])
def test_a_large_value_alone_is_reached_by_decades(grid):
    """Separable classes, on which the solution at C = 1e6 is not found from nothing."""
    X, y = load_digits(return_X_y=True)
    train = np.ones((1, 200), np.bool_)
    fits = list(solve_path(PathProblem(X[:200] / 16, y[:200], 10, train, np.array(grid))))
    assert [(fit.C, fit.position) for fit in fits] == [(C, i) for i, C in enumerate(grid)]
    assert all(fit.gap <= 1e-3 for fit in fits)


@pytest.fixture
def steps(monkeypatch):
    """Steps of each walk, and rates that its line searches looked at."""
    counted, step, along = {"steps": 0, "rates": 0}, _Walkers.step, Batch.along

    def one_step(walkers):
        counted["steps"] += len(walkers)
        step(walkers)

    def one_look(batch, Z, changes, rates):
        counted["rates"] += len(Z) * (len(changes) == 1)
        return along(batch, Z, changes, rates)

    monkeypatch.setattr(_Walkers, "step", one_step)
    monkeypatch.setattr(Batch, "along", one_look)
    return counted


def test_a_value_on_the_way_is_not_solved_further_than_it_serves(problem, steps, monkeypatch):
    far = replace(problem, grid=np.array([1e4]), tolerance=1e-7)
    taken = {}
    for enough in (0.02, 1e-7):
        steps["steps"] = 0
        monkeypatch.setattr(walk, "_ON_THE_WAY", enough)
        assert all(fit.status is FitStatus.CONVERGED for fit in solve_path(far))
        taken[enough] = steps["steps"]
    assert taken[0.02] < 0.8 * taken[1e-7]


def test_a_line_search_looks_at_few_rates(problem, steps):
    list(solve_path(replace(problem, tolerance=1e-6)))
    assert steps["steps"] <= steps["rates"] < 1.3 * steps["steps"]


def test_many_weights_are_walked_part_by_part(problem, monkeypatch):
    """To the same optima: one fold's rows are no other's."""
    sizes, made = list[int](), _Walkers.__init__

    def counted(walkers, batch, *rest):
        sizes.append(len(batch))
        made(walkers, batch, *rest)

    monkeypatch.setattr(_Walkers, "__init__", counted)
    whole = {(f.fold, f.C): f for f in solve_path(problem)}
    width = problem.features.shape[1] + 1
    monkeypatch.setattr(solver, "_TOGETHER", 2 * 8 * 4 * width)
    for fit in solve_path(problem):
        other = whole[fit.fold, fit.C]
        assert fit.objective * (1 - fit.gap) <= other.objective
        assert other.objective * (1 - other.gap) <= fit.objective
    assert sizes[0] == 3
    assert sorted(sizes[1:]) == [1, 2]


def test_many_logits_of_few_rows_are_stepped_in_float32(problem, monkeypatch):
    dtypes, made = list[torch.dtype](), _Walkers.__init__

    def noted(walkers, batch, *rest):
        dtypes.append(batch.rows.dtype)
        made(walkers, batch, *rest)

    monkeypatch.setattr(_Walkers, "__init__", noted)
    n, width = problem.features.shape[0], problem.features.shape[1] + 1
    few = replace(problem, grid=problem.grid[::6], train=problem.train[:1])
    many = replace(few, train=np.repeat(problem.train, 10, axis=0))
    monkeypatch.setattr(solver, "_SMALL", n * max(width, 4))
    list(solve_path(few))
    assert all(fit.status is FitStatus.CONVERGED for fit in solve_path(many))
    assert dtypes == [torch.float64, torch.float32]


def drawn_to(problem, C, classes=4, seed=0):
    """A problem with a prior, and its optimum by scipy: weights W (K, D) and bias (K,)."""
    codes = problem.targets % classes
    prior = np.random.default_rng(seed).normal(size=(classes, problem.features.shape[1]))
    train = problem.train[:1]
    asked = replace(
        problem,
        targets=codes,
        n_classes=classes,
        train=train,
        score=~train,
        grid=np.array([C]),
        prior=prior,
        tolerance=1e-9,
    )
    X, Y = problem.features[train[0]].astype(np.float64), np.eye(classes)[codes[train[0]]]

    def value(packed):
        W, b = np.split(packed.reshape(classes, -1), [X.shape[1]], axis=1)
        shift = W - prior  # the objective's penalty is of W: pay for it here instead
        data = objective("softmax", X, Y, W, b[:, 0], 1e300)
        halved = 2 if classes == 2 else 1  # two columns of one vector: see objective.py
        return data + halved * np.square(shift).sum() / (2 * C * len(X))

    start = np.hstack([prior, np.zeros((classes, 1))]).ravel()
    found = minimize(value, start, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    return asked, found


@pytest.mark.parametrize("classes", [2, 4])
def test_a_prior_is_what_weights_are_drawn_to(problem, classes):
    problem = replace(problem, features=problem.features[:, :5])
    asked, found = drawn_to(problem, 0.3, classes)
    (fit,) = solve_path(asked)
    assert fit.objective == pytest.approx(found.fun, rel=1e-7)
    assert fit.objective * (1 - fit.gap) <= found.fun * (1 + 1e-12)
    coef = found.x.reshape(classes, -1)[:, :-1]
    if classes == 2:  # what both columns share is no matter, and is not kept
        coef = coef - coef.mean(axis=0)
    np.testing.assert_allclose(fit.head.coef, coef, atol=1e-3)
    held_out = problem.features[asked.score[0]]
    np.testing.assert_allclose(fit.probabilities, fit.head.probabilities(held_out), atol=1e-5)


def test_a_small_c_gives_the_prior_and_a_large_one_forgets_it(problem):
    prior = np.random.default_rng(0).normal(size=(4, 20))
    grid = np.array([1e-9, 1e6])
    asked = replace(problem, train=problem.train[:1], grid=grid, prior=prior, tolerance=1e-6)
    near, far = solve_path(asked)
    np.testing.assert_allclose(near.head.coef, prior, atol=1e-5)
    _, free = solve_path(replace(asked, prior=None))
    assert far.objective == pytest.approx(free.objective, rel=0.2)
    with pytest.raises(ProbeError, match="give weights of shape"):
        solve_path(replace(asked, prior=prior[:2]))
    with pytest.raises(ProbeError, match="a prior with standardised features"):
        solve_path(replace(asked, standardize=True))


@given(seed=st.integers(0, 10_000), decade=st.floats(-6, 6))
@settings(max_examples=40, deadline=None)
def test_the_bound_holds_with_a_prior(seed, decade):
    """From any prior: no certified gap is below the true one, by a tight solve."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(30, 4)), np.arange(30) % 3
    prior = rng.normal(size=(3, 4)) * 10.0 ** rng.uniform(-2, 2)
    train = np.ones((1, 30), np.bool_)
    asked = PathProblem(X, y, 3, train, np.array([10.0**decade]), prior=prior, tolerance=0.5)
    (loose,) = solve_path(asked)
    (tight,) = solve_path(replace(asked, tolerance=1e-9))
    assert loose.objective * (1 - loose.gap) <= tight.objective * (1 + 1e-12)
    assert loose.objective >= tight.objective * (1 - tight.gap) * (1 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(5, 30),
    D=st.integers(2, 16),
    K=st.sampled_from([3, 5]),
    kind=st.sampled_from(["plain", "imbalanced", "separable", "duplicate", "constant", "offset"]),
    loss=st.sampled_from(["softmax", "logistic"]),
    decade=st.floats(-8, 8),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    spread=st.sampled_from([0.0, 2.0]),
    tolerance=st.sampled_from([0.3, 1e-3, 1e-6]),
    small=st.sampled_from([0, 1 << 18]),
)
@example(0, 5, 16, 5, "plain", "softmax", 8.0, np.float16, 2.0, 1e-3, 0)  # one row a class, n < D
@example(0, 30, 2, 3, "separable", "logistic", 8.0, np.float32, 2.0, 1e-6, 0)
@example(0, 30, 4, 3, "constant", "softmax", -8.0, np.float16, 2.0, 1e-6, 0)
def test_what_is_reported_is_never_below_the_true_gap(
    problem_of, referee, seed, n, D, K, kind, loss, decade, dtype, spread, tolerance, small
):
    """Whatever features and dtypes, those of steps too; the optimum by Newton's method in float64.

    Steps are in float32 where there are more numbers than `small`, and the tolerance is loose.
    """
    X, codes = problem_of(seed, n, D, K, kind)
    X *= 10.0 ** np.random.default_rng(seed).uniform(-spread, spread, size=D)
    X = np.clip(X, -6e4, 6e4).astype(dtype)
    train, C = np.ones((1, n), np.bool_), 10.0**decade
    asked = PathProblem(X, codes, K, train, np.array([C]), loss=loss, tolerance=tolerance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solver, "_SMALL", small)
        (fit,) = solve_path(asked)
    Y, exact = np.eye(K)[codes], X.astype(np.float64)
    optimum = objective(loss, exact, Y, *referee(loss, exact, Y, C), C)
    assert fit.objective * (1 - fit.gap) <= optimum * (1 + 1e-12)
    assert 0 <= fit.gap <= 1
    assert (fit.status is FitStatus.CONVERGED) == (fit.gap <= tolerance)


@pytest.fixture
def in_float32(problem, monkeypatch):
    """A problem whose steps are in float32, as those of large ones are."""
    monkeypatch.setattr(solver, "_SMALL", 0)
    return replace(problem, grid=problem.grid[::6])


@pytest.fixture
def sharpened(monkeypatch):
    """What is counted: walks that turned from float32 to float64."""
    turned, turn = [], _Walkers._sharpen

    def counted(walkers):
        turned.append(walkers)
        turn(walkers)

    monkeypatch.setattr(_Walkers, "_sharpen", counted)
    return turned


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_certificates_of_float32_steps_are_float64s(in_float32, sharpened, loss):
    every = np.ones_like(in_float32.train)
    asked = replace(in_float32, loss=loss, tolerance=1e-4, score=every)
    exact = {(f.fold, f.C): f for f in solve_path(replace(asked, tolerance=1e-9))}
    fits = list(solve_path(asked))
    assert len(fits) == len(exact)
    for fit in fits:
        optimum = exact[fit.fold, fit.C]
        assert fit.status is FitStatus.CONVERGED
        assert fit.objective * (1 - fit.gap) <= optimum.objective
        assert fit.objective >= optimum.objective * (1 - optimum.gap)
        own = fit.head.probabilities(in_float32.features)
        np.testing.assert_allclose(fit.probabilities, own, atol=1e-5)
        np.testing.assert_allclose(fit.probabilities, optimum.probabilities, atol=0.05)
    if loss == "softmax":  # of 12 columns one may ask for float64
        assert not sharpened


def test_where_float32_leads_no_closer_float64_does(in_float32, sharpened):
    asked = replace(in_float32, grid=np.array([1e8]), tolerance=1e-4)
    assert all(fit.status is FitStatus.CONVERGED for fit in solve_path(asked))
    assert sharpened


def test_certificates_are_of_what_was_asked_for_and_of_what_is_near(in_float32, monkeypatch):
    """Not of a C on the way, nor of the problems that are far while others are near."""
    certified = []

    def counted(batch, W, Z, at, strength, travel):
        certified.extend(strength.tolist())
        return bounds(batch, W, Z, at, strength, travel)

    monkeypatch.setattr(walk, "bounds", counted)
    asked = replace(in_float32, grid=np.array([1e4]), tolerance=1e-3)
    fits = list(solve_path(asked))
    rows = asked.train.sum(axis=1)
    assert {fit.fold for fit in fits} == set(range(len(rows)))
    assert sorted(set(certified)) == pytest.approx(sorted({1 / (1e4 * n) for n in rows}))
    assert len(fits) <= len(certified) < 3 * len(fits)


@pytest.mark.parametrize(
    ("tolerance", "kind"),
    [
        *((1e-4, kind) for kind in ("float64", "float32", "streamed")),
        (1e-6, "float64"),
        (1e-6, "float32"),
        pytest.param(1e-6, "streamed", marks=pytest.mark.slow),
    ],
)
def test_certified_logits_are_as_near_as_is_allowed_for(
    in_float32, sharpened, monkeypatch, kind, tolerance
):
    """Before and after a walk turns to float64: what was rounded is not added up."""
    certified = []

    def checked(batch, W, Z, at, strength, travel):
        product = replace(batch, rows=batch.rows.exactly()).rows
        exact = product.forward(product.lift(W), slice(None)).double()
        unit = torch.finfo(torch.float64).eps * (len(product) + product.width)
        if Z.dtype != torch.float64:
            unit += torch.finfo(Z.dtype).eps
        allowed = travel.weights[:, None] * product.norms + travel.bias[:, None]
        certified.append(((Z - exact).abs().amax(dim=1) / (unit * allowed)).max().item())
        return bounds(batch, W, Z, at, strength, travel)

    monkeypatch.setattr(walk, "bounds", checked)
    if kind == "float64":
        monkeypatch.setattr(solver, "_SMALL", 1 << 18)
    grid = 10.0 ** np.arange(-3, 11)
    asked = replace(in_float32, grid=grid, train=in_float32.train[:1], tolerance=tolerance)
    for _ in solve_path(replace(asked, memory=1 << 14) if kind == "streamed" else asked):
        pass
    assert len(certified) >= len(grid)
    assert max(certified) < 1
    assert bool(sharpened) == (kind == "streamed" or (kind, tolerance) == ("float32", 1e-4))


def test_features_beyond_float32_are_solved_in_float64(in_float32):
    asked = replace(in_float32, features=in_float32.features * np.float64(1e30))
    asked = replace(asked, grid=asked.grid * 1e-60)
    assert all(fit.status is FitStatus.CONVERGED for fit in solve_path(asked))


def test_streamed_rows_keep_one_array_of_logits_between_fits():
    """Of 20,000 x 50, 4 MB in float32: neither the first nor those of a solved C stay behind."""
    rng = np.random.default_rng(0)
    y = np.arange(20_000) % 50
    X = (rng.normal(size=(50, 8))[y] + rng.normal(size=(20_000, 8))).astype(np.float32)
    every = np.ones((1, len(y)), np.bool_)
    streamed = PathProblem(X, y, 50, every, default_grid(X, 7)[1:5], tolerance=1e-2, memory=1 << 20)

    def large_arrays():
        gc.collect()
        tensors = (each for each in gc.get_objects() if type(each) is torch.Tensor)
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(size >= 4 * len(y) * 50 for size in storages.values())

    assert [large_arrays() for _ in solve_path(streamed)] == [1, 1, 1, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("kind", ["dense", "streamed", "folds scaled apart", "columns"])
def test_cuda_certifies_the_same_optimum(problem, kind):
    asked = {
        "dense": problem,
        "streamed": replace(problem, memory=1 << 16),
        "folds scaled apart": replace(problem, standardize=True),
        "columns": several_labels(problem),
    }[kind]
    asked = replace(asked, tolerance=1e-6)
    here = {(fit.fold, fit.C): fit for fit in solve_path(asked)}
    there = list(solve_path(replace(asked, device="cuda")))
    assert len(there) == len(here)
    for fit in there:
        other = here[fit.fold, fit.C]
        assert fit.status is FitStatus.CONVERGED
        assert fit.gap <= asked.tolerance
        assert fit.objective == pytest.approx(other.objective, rel=2e-6)
        probabilities = fit.head.probabilities(problem.features)
        np.testing.assert_allclose(
            probabilities, other.head.probabilities(problem.features), atol=0.02
        )
