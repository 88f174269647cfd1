from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from featcache.errors import ProbeError
from featcache.heads.knn import NeighbourProblem, knn_votes

K = 4
NEIGHBOURS = (1, 3, 10, 50)


def rows(n=60, D=8, dtype=np.float64):
    rng = np.random.default_rng(0)
    codes = rng.integers(K, size=n)
    return (rng.normal(size=(n, D)) + 0.8 * rng.normal(size=(K, D))[codes]).astype(dtype), codes


@pytest.fixture
def problem():
    X, codes = rows()
    train = np.random.default_rng(1).random(len(X)) < 0.6
    return NeighbourProblem(X, codes, K, train=train, neighbours=NEIGHBOURS)


def brute(problem):
    """Row by row, sorted in full, from the definition."""
    X = problem.features.astype(np.float64)
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    X = X / np.where(norms > 0, norms, 1)
    n = len(X)
    train = np.ones(n, bool) if problem.train is None else problem.train
    groups = np.arange(n) if problem.groups is None else problem.groups
    Y = problem.targets if problem.targets.ndim == 2 else np.eye(problem.n_classes)[problem.targets]
    votes = np.empty((len(problem.neighbours), n, problem.n_classes))
    for i in range(n):
        seen = np.flatnonzero(train & ~(train[i] & (groups == groups[i])))
        s = X[seen] @ X[i]
        order = np.argsort(-s.round(7), kind="stable")
        for j, k in enumerate(problem.neighbours):
            nearest = order[:k]
            w = np.exp((s[nearest] - s.max()) / problem.temperature)
            votes[j, i] = w @ Y[seen[nearest]] / w.sum()
    return votes


def agrees(problem):
    found = knn_votes(problem)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, brute(problem), rtol=0, atol=1e-11)
    return found


def test_votes_are_scikit_learns_with_the_same_weights(problem):
    votes = knn_votes(problem)
    train = problem.train
    X, y = problem.features[train], problem.targets[train]
    for k, found in zip((1, 3, 10, len(X)), votes, strict=True):
        referee = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
        ).fit(X, y)
        expected = referee.predict_proba(problem.features[~train])
        np.testing.assert_allclose(found[~train], expected, atol=1e-11)


def test_votes_are_dinov2s_softmax_weights_over_their_sum(problem):
    """`KnnModule`: softmax over the largest k, cut at each k; the classes have the same order."""
    train = problem.train
    X = torch.nn.functional.normalize(torch.from_numpy(problem.features), dim=1)
    top = (X[~train] @ X[train].T).topk(10, dim=1)
    labels = torch.from_numpy(problem.targets[train])[top.indices]
    weighted = torch.nn.functional.one_hot(labels, K) * (top.values / 0.07).softmax(1)[..., None]
    votes = knn_votes(problem)
    for at, k in enumerate((1, 3, 10)):
        expected = weighted[:, :k].sum(1)
        expected /= expected.sum(1, keepdim=True)
        np.testing.assert_allclose(votes[at, ~train], expected, atol=1e-12)


def test_every_row_is_asked_by_default_and_training_rows_leave_themselves_out(problem):
    votes = agrees(problem)
    assert votes.shape == (4, 60, K)
    np.testing.assert_allclose(votes.sum(axis=2), 1, rtol=1e-14)
    agrees(replace(problem, train=None))


def test_folds_as_groups_are_cross_validation(problem):
    folds = np.arange(60) % 3
    votes = agrees(replace(problem, train=None, groups=folds))
    for fold in range(3):
        apart = replace(problem, train=folds != fold, queries=folds == fold)
        np.testing.assert_allclose(knn_votes(apart), votes[:, folds == fold], atol=1e-14)


def test_groups_apply_among_training_rows_alone(problem):
    groups = np.arange(60) % 5
    votes = agrees(replace(problem, groups=groups))
    outside = ~problem.train
    np.testing.assert_array_equal(votes[:, outside], knn_votes(problem)[:, outside])


def test_queries_are_those_rows_of_all(problem):
    asked = np.arange(60) % 4 == 1
    some, every = knn_votes(replace(problem, queries=asked)), knn_votes(problem)
    np.testing.assert_allclose(some, every[:, asked], atol=1e-14)
    assert knn_votes(replace(problem, queries=np.zeros(60, bool))).shape == (4, 0, K)


@pytest.mark.parametrize("targets", ["labels", "soft rows"])
def test_several_labels_and_soft_rows_take_the_same_vote(problem, targets):
    rng = np.random.default_rng(3)
    labels = rng.random((60, K)) < 0.3
    agrees(replace(problem, targets=labels if targets == "labels" else rng.random((60, K))))


def test_codes_are_one_hot_labels(problem):
    one_hot = replace(problem, targets=np.eye(K, dtype=bool)[problem.targets])
    np.testing.assert_allclose(knn_votes(one_hot), knn_votes(problem), atol=1e-14)


def test_rows_outside_train_have_no_influence(problem):
    train, outside = problem.train, ~problem.train
    spoiled = replace(problem, features=problem.features.copy(), targets=problem.targets.copy())
    spoiled.features[outside] = np.nan
    spoiled.targets[outside] = -1
    found = knn_votes(replace(spoiled, queries=train))
    np.testing.assert_array_equal(found, knn_votes(replace(problem, queries=train)))


def test_lengths_of_rows_do_not_matter(problem):
    lengths = 2.0 ** np.random.default_rng(0).integers(-40, 40, size=(60, 1))
    scaled = replace(problem, features=problem.features * lengths)
    np.testing.assert_allclose(knn_votes(scaled), knn_votes(problem), atol=1e-12)


def test_k_above_the_rows_that_are_seen_lets_all_of_them_vote(problem):
    few = replace(problem, train=np.arange(60) < 5, neighbours=(4, 5, 200))
    votes = agrees(few)
    np.testing.assert_array_equal(votes[0, :5], votes[2, :5])  # a training row sees four
    np.testing.assert_array_equal(votes[1], votes[2])


def test_neighbours_in_any_order_and_twice(problem):
    votes = agrees(replace(problem, neighbours=(10, 1, 10, 3)))
    np.testing.assert_array_equal(votes[0], votes[2])


def test_hot_votes_are_shares_and_cold_ones_the_nearest(problem):
    hot = knn_votes(replace(problem, temperature=1e9, neighbours=(10,)))[0]
    np.testing.assert_allclose(hot, (10 * hot).round() / 10, atol=1e-8)
    cold = knn_votes(replace(problem, temperature=1e-6))
    np.testing.assert_allclose(cold[1:], cold[:1].repeat(3, axis=0), atol=1e-12)


@pytest.mark.parametrize("memory", [1, 20_000, 100_000])
def test_exact_copies_are_ties_that_the_earlier_row_wins(memory):
    rng = np.random.default_rng(0)
    once = rng.normal(size=(7, 33)).astype(np.float32)
    X, codes = np.tile(once, (9, 1)), np.repeat(np.arange(9), 7)  # copy c of a row has the code c
    train = codes > 0
    problem = NeighbourProblem(X, codes, 9, train=train, neighbours=(1, 3), memory=memory)
    votes = knn_votes(problem)
    np.testing.assert_allclose(votes[0, ~train], np.eye(9)[np.full(7, 1)], atol=1e-12)
    np.testing.assert_allclose(votes[1, ~train, 1:4], 1 / 3, atol=1e-12)
    np.testing.assert_allclose(votes[0, 7:14], np.eye(9)[np.full(7, 2)], atol=1e-12)  # not itself


def test_a_row_of_zeros_is_like_no_other(problem):
    problem.features[[2, 9, 20]] = 0
    assert problem.train[[2, 9, 20]].any()
    assert np.isfinite(agrees(problem)).all()


class Watched(np.ndarray):
    """Rows that note the size of what is read of them."""

    largest = 0

    def __getitem__(self, key):
        read = super().__getitem__(key)
        if isinstance(key, np.ndarray):
            Watched.largest = max(Watched.largest, read.size)
        return read


@pytest.mark.parametrize("memory", [1, 10_000, 60_000])
@pytest.mark.parametrize("grouped", [False, True])
def test_blocks_stay_within_the_budget_and_change_nothing(problem, memory, grouped):
    problem = replace(problem, groups=np.arange(60) % 3 if grouped else None)
    small = replace(problem, features=problem.features.view(Watched), memory=memory)
    Watched.largest = 0
    np.testing.assert_allclose(knn_votes(small), knn_votes(problem), rtol=0, atol=1e-13)
    assert small.block < 36  # of 36 training rows
    assert Watched.largest <= max(8, memory / 48)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_read_only_memory_map_of_any_float_is_its_float64(tmp_path, dtype):
    X, codes = rows(dtype=dtype)
    X.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype, "r", shape=X.shape)
    problem = NeighbourProblem(mapped, codes, K, neighbours=NEIGHBOURS)
    found = agrees(problem)
    np.testing.assert_array_equal(found, knn_votes(replace(problem, features=X.astype(float))))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same(problem):
    there = knn_votes(replace(problem, device="cuda"))
    np.testing.assert_allclose(there, knn_votes(problem), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"features": np.zeros(60)}, "give \\(n, D\\)"),
        (
            {"features": np.full((60, 8), np.nan)},
            "knn: features are not finite; check the pictures",
        ),
        ({"targets": np.zeros(59, int)}, "give \\(n,\\) or \\(n, 4\\)"),
        ({"targets": np.zeros(60)}, "codes of dtype float64"),
        ({"targets": np.full(60, 4)}, "outside 0..3"),
        (
            {"targets": np.full((60, 4), np.inf)},
            "knn: targets of training rows are not finite; give",
        ),
        ({"train": np.ones(60)}, "train for 60 rows must be \\(60,\\) bool"),
        ({"train": np.zeros(60, bool)}, "no training row"),
        ({"queries": np.ones(59, bool)}, "queries for 60 rows must be \\(60,\\) bool"),
        ({"groups": np.ones(59)}, "groups for 60 rows must be \\(60,\\)"),
        ({"groups": np.ones(60)}, "group, and its rows see none of them; add"),
        ({"train": np.arange(60) == 3}, "1 training rows are one group"),
        ({"neighbours": ()}, "values of k from 1"),
        ({"neighbours": (0, 1)}, "values of k from 1"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"memory": 0}, "memory of 0 bytes"),
    ],
)
def test_problems_that_have_no_votes(problem, changes, says):
    with pytest.raises(ProbeError, match=says):
        knn_votes(replace(problem, **changes))


def test_one_training_row_votes_on_the_rows_outside(problem):
    train = np.arange(60) == 3
    votes = knn_votes(replace(problem, train=train, queries=~train))
    assert (votes[:, :, problem.targets[3]] == 1).all()
