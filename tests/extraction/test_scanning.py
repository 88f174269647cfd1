"""What is new, changed, moved or relabelled; and which files need not be read to know."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.extraction import scanning
from featcache.extraction.scanning import SETTLED_NS, Changes, compare, path_counts, scan
from featcache.images.sources import StatKey

NOW = 10**18
OLD = StatKey(100, NOW - 10 * SETTLED_NS, NOW - 10 * SETTLED_NS, 7)
LATER = NOW + 100 * SETTLED_NS


@pytest.fixture
def lab(make_lab):
    return make_lab({"a": 1, "b": 2, "c": 3}, stats=dict.fromkeys("abc", OLD))


def rescan(lab, settled: int | None = NOW, known=None):
    known = known or scan(lab.source).index
    lab.source.reads.clear()
    return known, scan(lab.source, known, settled_before_ns=settled)


def test_settled_files_are_not_read(lab) -> None:
    known, found = rescan(lab)
    assert (found.hashed, lab.source.reads) == (0, [])
    assert compare(known, found.index) == Changes()


def test_without_a_clock_everything_is_read(lab) -> None:
    _, found = rescan(lab, settled=None)
    assert found.hashed == 3


@pytest.mark.parametrize(
    "stat",
    [
        OLD._replace(size=101),
        OLD._replace(mtime_ns=OLD.mtime_ns + 1),
        OLD._replace(ctime_ns=OLD.ctime_ns + 1),
        OLD._replace(inode=8),
        None,
    ],
)
def test_a_file_with_another_stat_key_is_read(lab, stat: StatKey | None) -> None:
    known = scan(lab.source).index
    lab.source.stats["b"] = stat
    lab.source.pictures["b"] = 99
    known, found = rescan(lab, known=known)
    assert lab.source.reads == ["b"]
    assert compare(known, found.index).changed == ("b",)


@pytest.mark.parametrize("field", ["mtime_ns", "ctime_ns"])
def test_a_file_changed_around_the_last_scan_is_read_whatever_its_stat_key(lab, field) -> None:
    fresh = OLD._replace(**{field: NOW - SETTLED_NS // 2})
    lab.source.stats["b"] = fresh
    known = scan(lab.source).index
    lab.source.pictures["b"] = 99  # under the same stat key, as coarse clocks allow
    known, found = rescan(lab, known=known)
    assert lab.source.reads == ["b"]
    assert compare(known, found.index).changed == ("b",)
    _, later = rescan(lab, settled=LATER, known=found.index)
    assert later.hashed == 0


def test_the_clock_is_of_before_the_listing(lab, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1000, 2000])
    monkeypatch.setattr(scanning.time, "time_ns", lambda: next(times))
    listed = lab.source.scan
    monkeypatch.setattr(lab.source, "scan", lambda: (scanning.time.time_ns(), listed())[1])
    assert scan(lab.source).started_ns == 1000


def test_each_kind_of_change_is_told(make_lab) -> None:
    lab = make_lab({"kept": 0, "changed": 1, "gone": 2, "old": 3, "relabelled": 4})
    known = scan(lab.source).index
    lab.source.pictures = {"kept": 0, "changed": 9, "new": 8, "at": 3, "relabelled": 4}
    lab.source.labels["relabelled"] = ("b",)
    changes = compare(known, scan(lab.source).index)
    assert changes == Changes(("new",), ("changed",), ("gone",), ("relabelled",), (("old", "at"),))
    assert changes
    assert path_counts(changes) == dict.fromkeys(
        ("new", "changed", "missing", "relabelled", "moved"), 1
    )


def test_a_changed_split_is_a_relabelling(make_lab) -> None:
    lab = make_lab({"a": 1, "b": 2})
    known = scan(lab.source).index
    lab.source.splits["b"] = "test"
    assert compare(known, scan(lab.source).index).relabelled == ("b",)


contents = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 4), max_size=8)


@given(contents, contents)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changes_account_for_every_path(make_lab, before, now) -> None:
    old, new = scan(make_lab(before).source).index, scan(make_lab(now).source).index
    changes = compare(old, new)
    left, came = ({pair[i] for pair in changes.moved} for i in (0, 1))
    assert set(before) - set(now) == set(changes.missing) | left
    assert set(now) - set(before) == set(changes.new) | came
    assert all(before[a] == now[b] for a, b in changes.moved)
    assert not any(now[p] in [before[q] for q in changes.missing] for p in changes.new)
    assert set(changes.changed) == {p for p in before if p in now and before[p] != now[p]}
    assert bool(changes) == (before != now)


def test_twins_under_two_labels_and_in_two_splits_are_named(make_lab) -> None:
    lab = make_lab(
        {"cat/1": 1, "dog/1": 1, "dog/2": 2, "test/dog": 2, "dog/3": 3, "also": 3, "none": 3},
        labels={"cat/1": ("cat",), "dog/1": ("dog",), "none": ()},
        splits={"dog/2": "train", "test/dog": "test"},
    )
    labels, splits = scan(lab.source).warnings
    assert "1 picture(s) stand under different labels" in labels
    assert "cat/1 = dog/1;" in labels
    assert "1 picture(s) stand in two splits" in splits
    assert "dog/2 = test/dog;" in splits


def test_the_same_labels_in_another_order_are_no_contradiction(make_lab) -> None:
    lab = make_lab({"a": 1, "b": 1}, labels={"a": ("x", "y"), "b": ("y", "x")})
    assert scan(lab.source).warnings == ()


def test_many_twins_are_counted_and_some_are_named(make_lab) -> None:
    twins = {f"{label}/{i}": i for label in "ab" for i in range(9)}
    lab = make_lab(twins, labels={path: (path[0],) for path in twins})
    (warning,) = scan(lab.source).warnings
    assert warning.startswith("9 picture(s)")
    assert "and 4 more" in warning
