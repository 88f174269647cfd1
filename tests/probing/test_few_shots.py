"""Few shots: whose rows train, choose and measure, and that nothing else does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from featcache.errors import ProbeError
from featcache.evaluation.shots import support_rows
from featcache.probing import LabelledRows, ProbeSpec, few_shots, fit_probe
from featcache.probing.solving import Solving

SPEC = ProbeSpec(folds=3, grid=(0.01, 1.0, 100.0), tolerance=1e-6)


def run(data: LabelledRows, counts: tuple[int | None, ...], seeds: int = 3) -> Any:
    return few_shots(data, SPEC, counts, seeds, fit_probe(data, SPEC))


def test_a_shot_is_scikit_learns_fit_of_the_support_set(rows_of: Any, pixels: Any) -> None:
    """At one shot C is the middle of the grid, and all other rows are measured on."""
    X, y = pixels[0][:300], pixels[1][:300]
    data = rows_of(X, y)
    (found,) = run(data, (1,)).shots
    everything = np.ones(300, bool)
    for seed, scores in enumerate(found.scores):
        support = support_rows(y, data.groups, data.hashes, everything, 1, seed)
        assert support.sum() == 10
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(X[support], y[support])
        assert scores.accuracy == pytest.approx(model.score(X[~support], y[~support]), abs=1e-9)
        assert scores.n == 290
    assert found.chosen == (1.0, 1.0, 1.0)


def test_validation_chooses_and_never_trains(rows_of: Any, few: Any, splits_of: Any) -> None:
    X, y = few
    data = rows_of(X, y, splits_of(90, train=3, val=2, test=1))
    (found,) = run(data, (2,)).shots
    train, val, test = (data.splits == k for k in range(3))
    for seed, (scores, chosen) in enumerate(zip(found.scores, found.chosen, strict=True)):
        support = support_rows(y, data.groups, data.hashes, train, 2, seed)
        models = {
            C: LogisticRegression(C=C, tol=1e-10, max_iter=5000).fit(X[support], y[support])
            for C in SPEC.grid or ()
        }
        given = {
            C: m.predict_proba(X[val])[np.arange(val.sum()), y[val]] for C, m in models.items()
        }
        best = min(given, key=lambda C: -np.log(given[C]).mean())
        assert chosen == best
        assert scores.accuracy == pytest.approx(models[best].score(X[test], y[test]))


def test_what_is_measured_on_changes_no_choice(rows_of: Any, few: Any, splits_of: Any) -> None:
    data = rows_of(*few, splits_of(90, train=2, test=1))
    noisy = data.features.copy()
    noisy[data.splits == 2] = np.random.default_rng(0).random(noisy[data.splits == 2].shape)
    before, after = (run(d, (3,)).shots[0] for d in (data, replace(data, features=noisy)))
    assert after.chosen == before.chosen
    assert np.mean([s.accuracy for s in after.scores]) < np.mean(
        [s.accuracy for s in before.scores]
    )


def test_the_order_of_rows_and_other_classes_draw_nothing_else(rows_of: Any, pixels: Any) -> None:
    X, y = pixels[0][:200], pixels[1][:200]
    order = np.random.default_rng(1).permutation(200)
    (found,), (shuffled,) = (
        run(d, (2,)).shots for d in (rows_of(X, y), rows_of(X[order], y[order]))
    )
    for a, b in zip(found.scores, shuffled.scores, strict=True):
        assert a.accuracy == pytest.approx(b.accuracy)


def test_all_is_the_default_estimate_where_nothing_is_split(rows_of: Any, few: Any) -> None:
    data = rows_of(*few)
    whole = fit_probe(data, SPEC)
    (found,) = few_shots(data, SPEC, (None,), 5, whole).shots
    assert found.scores == (whole.scores,)
    assert found.method == whole.method


def test_all_of_a_train_split_leaves_validation_out(rows_of: Any, few: Any, splits_of: Any) -> None:
    X, y = few
    data = rows_of(X, y, splits_of(90, train=3, val=2, test=1))
    (found,) = run(data, (None,)).shots
    train, test = data.splits == 0, data.splits == 2
    model = LogisticRegression(C=found.chosen[0], tol=1e-10, max_iter=5000)
    model.fit(X[train], y[train])
    assert found.scores[0].accuracy == pytest.approx(model.score(X[test], y[test]))


def test_groups_of_the_support_set_are_not_measured_on(rows_of: Any, few: Any) -> None:
    groups = np.arange(90) // 3
    data = rows_of(*few, groups=groups)
    (found,) = run(data, (2,), seeds=1).shots
    support = support_rows(data.targets, groups, data.hashes, np.ones(90, bool), 2, 0)
    assert found.scores[0].n == 90 - np.isin(groups, groups[support]).sum()


def test_small_classes_are_named_and_too_many_shots_refused(rows_of: Any, few: Any) -> None:
    X, y = few
    keep = np.flatnonzero((y != 2) | (np.cumsum(y == 2) <= 4))
    data = rows_of(X[keep], y[keep])
    assert "'digit 2' (4); they give all they have" in run(data, (6,)).warnings[0]
    with pytest.raises(ProbeError, match="leaves none to measure on"):
        run(data, (1000,))


def test_several_labels_are_refused(rows_of: Any, few: Any) -> None:
    labels = np.eye(3, dtype=bool)[few[1]]
    labels[:3] = True
    data = rows_of(few[0], labels)
    spec = replace(SPEC, loss="logistic")
    with pytest.raises(ProbeError, match="counted of one label a picture, these have several"):
        few_shots(data, spec, (1,), 2, fit_probe(data, spec))


def test_progress_counts_to_the_end(rows_of: Any, few: Any) -> None:
    data, seen = rows_of(*few), []
    few_shots(data, SPEC, (1, 3), 2, fit_probe(data, SPEC), lambda *a: seen.append(a))
    total = 2 * 1 + 2 * 3 * (3 + 1)
    assert seen == [("fit", i, total) for i in range(1, total + 1)]


@pytest.mark.parametrize("split", [False, True], ids=["folds", "val"])
def test_little_memory_takes_fewer_support_sets_at_once(
    rows_of: Any, few: Any, splits_of: Any, split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the scores are those of all at once, in the order of the seeds."""
    data = rows_of(*few, splits_of(90, train=3, val=2, test=1)) if split else rows_of(*few)
    asked = list[int]()
    each = Solving.solve_each

    def spy(self: Solving, heads: Any) -> Any:
        asked.append(len(heads))
        return each(self, heads)

    monkeypatch.setattr(Solving, "solve_each", spy)
    whole, found = fit_probe(data, SPEC), []
    for memory in (2 << 30, 4 * 8 * len(data) * 3 * len(SPEC.grid or ())):
        asked.clear()
        (scored,) = few_shots(data, replace(SPEC, memory=memory), (2,), 5, whole).shots
        found.append((asked.copy(), scored))
    (at_once, together), (in_turn, parts) = found
    assert (at_once, in_turn) == ([5], [2, 2, 1])
    assert parts.chosen == together.chosen
    for a, b in zip(parts.scores, together.scores, strict=True):
        assert a.accuracy == pytest.approx(b.accuracy)
