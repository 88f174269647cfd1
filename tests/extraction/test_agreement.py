"""A cache is extended by other versions only where a few rows, computed again, agree."""

from __future__ import annotations

import numpy as np
import pytest

from featcache.errors import CacheMismatchError
from featcache.extraction import computing
from featcache.extraction.agreement import ROWS
from featcache.store.cache import Cache


@pytest.fixture
def lab(make_lab):
    """A cache of 20 pictures, whose source has 3 more by now."""
    lab = make_lab(range(20))
    lab.run()
    lab.source.pictures |= {"20": 20, "21": 21, "22": 22}
    lab.source.reads.clear()
    return lab


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "versions", lambda engine="torch", **_: {"torch": "99"})


def test_rows_that_agree_let_the_cache_grow(lab, upgraded) -> None:
    assert lab.run().computed == 3
    assert len(lab.source.reads) == 23 + ROWS + 3  # hashed, checked, decoded
    before, after = Cache(lab.folder).stream().entry.plans
    assert before.versions != after.versions == {"torch": "99"}
    lab.assert_right()


def test_without_a_change_nothing_is_checked(lab) -> None:
    lab.run()
    assert len(lab.source.reads) == 23 + 3


def test_rows_that_differ_refuse_it_and_leave_the_cache_as_it_was(lab, upgraded) -> None:
    before = Cache(lab.folder).manifest
    lab.stem.shift = 0.01
    with pytest.raises(CacheMismatchError) as caught:
        lab.run()
    for part in (str(lab.folder), "rows computed again differ by 0.0", "versions.torch: 99 here"):
        assert part in str(caught.value)
    assert Cache(lab.folder).manifest == before


def test_rounding_is_no_difference(lab, upgraded) -> None:
    lab.stem.shift = 1e-5
    assert lab.run().computed == 3


def test_a_backbone_that_fails_where_it_did_not_is_refused(lab, upgraded) -> None:
    lab.stem.shift = float("nan")
    with pytest.raises(CacheMismatchError, match=r"has a cached row and gives none now.*NaN"):
        lab.run()


def test_rows_that_cannot_be_computed_again_prove_nothing(lab, upgraded) -> None:
    hashed = set()

    def vanish(path: str) -> None:
        if path in hashed and int(path) < 20:
            lab.source.pictures[path] = None
        hashed.add(path)

    lab.source.before_read = vanish
    with pytest.raises(CacheMismatchError, match="not one of a few cached rows"):
        lab.run()


def test_rows_that_no_picture_has_any_more_need_no_check(lab, upgraded) -> None:
    lab.source.pictures = {"20": 20, "21": 21}
    assert lab.run().computed == 2
    lab.assert_right()


def test_an_interrupted_run_is_not_continued_by_other_versions(
    make_lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(range(20))
    lab.interrupt(batch=6)
    monkeypatch.setattr(computing, "versions", lambda engine="torch", **_: {"torch": "99"})
    assert lab.run().computed == 12
    before, after = Cache(lab.folder).stream().entry.plans
    assert before.finished
    assert after.versions == {"torch": "99"}
    lab.assert_right()


def test_another_recipe_is_refused_and_names_what_differs(lab) -> None:
    lab.weights = "0" * 64
    with pytest.raises(CacheMismatchError, match=r"weights: 000.*here, fff.*there.*--out"):
        lab.run()


def test_rows_nobody_can_vouch_for_do_not_come_back_beside_others(lab, upgraded) -> None:
    first = dict(lab.source.pictures)
    lab.source.pictures = {"30": 30, "31": 31}
    lab.stem.shift = 0.25
    assert lab.run().computed == 2
    lab.source.pictures = first | {"30": 30}
    again = lab.run()
    assert (again.computed, again.reused) == (len(first), 1)
    rows = lab.rows()
    expected = {path: row + np.float32(0.25) for path, row in lab.expected().items()}
    assert all(np.allclose(rows[path], expected[path]) for path in rows)
