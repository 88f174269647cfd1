"""Views: streams of their own, from one decode of a picture, with a cache's every guarantee."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache import api
from featcache.errors import CacheMismatchError, CacheMissingError
from featcache.extraction import computing
from featcache.images.decode import decode
from featcache.images.policies import tta_views, views_of
from featcache.images.sources import content_hash
from featcache.images.views import view_pixels
from featcache.recipe import View
from featcache.store.cache import Cache
from featcache.store.upkeep import prune_files, verify_files

FOUR = views_of("standard", 4)
SPLITS = {"00": "train", "01": "test", "02": "val", "03": "test", "04": "train"}


def rows_of(lab, view: View) -> dict[str, np.ndarray]:
    """What a cache holds of a view, by path."""
    cache = Cache(lab.folder)
    reader = cache.stream(view=view)
    positions = reader.positions(cache.index.hashes)
    there = np.flatnonzero(positions >= 0)
    rows = reader.read(positions[there])
    return {cache.index.paths[int(i)]: row for i, row in zip(there, rows, strict=True)}


def by_hand(lab, number: int, view: View) -> np.ndarray:
    """What the network gives for a view of a picture."""
    picture = lab.picture(number)
    pixels = view_pixels(decode(picture), lab.backbone.preprocessing, view, content_hash(picture))
    return pixels.reshape(-1)[:6].astype(np.float32) / np.float32(255)


def shards_of(lab, view: View) -> dict[str, bytes]:
    stream = Cache(lab.folder).stream(view=view).entry.stream
    return {p.name: p.read_bytes() for p in (lab.folder / "shards" / stream.key[:16]).iterdir()}


@pytest.mark.parametrize("policy", ["flip", "standard", "randaugment:2,9", "trivial"])
def test_every_view_holds_what_its_pixels_give(make_lab, policy: str) -> None:
    lab = make_lab(range(9))
    views = (*views_of(policy, 2, seed=3), *tta_views(1))
    done = lab.run(views=views)
    assert (done.computed, done.processed, done.reused) == (9, 9, 0)
    for view in views:
        rows = rows_of(lab, view)
        assert set(rows) == set(lab.source.pictures)
        for path, row in rows.items():
            expected = by_hand(lab, lab.source.pictures[path], view)
            assert np.array_equal(row, expected), (path, view)


def test_each_picture_is_decoded_once_whatever_the_number_of_views(make_lab) -> None:
    lab = make_lab(range(9))
    lab.run(views=FOUR)
    assert len(lab.source.reads) == 2 * 9  # hashed, and decoded


def test_the_plain_view_is_byte_for_byte_that_of_an_extraction_without_views(make_lab) -> None:
    plain, viewed = make_lab(range(9)), make_lab(range(9))
    plain.run()
    viewed.run(views=FOUR)
    assert shards_of(plain, View()) == shards_of(viewed, View())
    one = make_lab(range(9))
    one.run(views=views_of("none", 1))
    assert one.bytes() == plain.bytes()


def test_neither_threads_nor_the_views_beside_it_change_a_view(make_lab) -> None:
    together, alone = make_lab(range(9)), make_lab(range(9))
    together.run(views=FOUR, threads=4)
    alone.run(threads=1)
    for view in reversed(FOUR[1:]):
        alone.run(views=(View(), view), threads=1)
    for view in FOUR:
        assert shards_of(together, view) == shards_of(alone, view)


def test_other_pictures_and_paths_change_no_row(make_lab) -> None:
    few, many = make_lab({"b": 3, "a": 5}), make_lab({"z/5": 5, "z/3": 3, "q": 9, "r": 11})
    for lab in (few, many):
        lab.run(views=FOUR)
    for view in FOUR:
        ours, theirs = rows_of(few, view), rows_of(many, view)
        assert np.array_equal(ours["a"], theirs["z/5"])
        assert np.array_equal(ours["b"], theirs["z/3"])


def test_test_pictures_have_the_plain_view_alone(make_lab) -> None:
    lab = make_lab(range(5), splits=SPLITS)
    views = (*views_of("standard", 3), *tta_views(2))
    done = lab.run(views=views)
    assert (done.computed, done.reused, done.skipped) == (5, 0, [])
    for view in views:
        kept = {path for path, split in SPLITS.items() if split != "test" or not view.only_trains}
        assert set(rows_of(lab, view)) == kept
    assert all(not entry.open_plans for entry in Cache(lab.folder).manifest.streams.values())
    again = lab.run(views=views)
    assert (again.computed, again.processed, again.reused) == (0, 0, 5)


def test_info_calls_no_row_of_a_test_picture_missing(tmp_path, class_folders, light) -> None:
    lines = ["path,label,split"] + [
        f"{p.relative_to(class_folders)},{p.parent.name},{('train', 'test')[i % 2]}"
        for i, p in enumerate(sorted(class_folders.rglob("*.jpg")))
    ]
    table = class_folders / "pictures.csv"
    table.write_text("\n".join(lines))
    cache = api.extract(table, out=tmp_path / "c", views=2, augment="flip", **light)
    told = api.info(cache)
    assert told.staleness.fresh
    assert {(s.view["policy"], s.rows, s.missing) for s in told.streams} == {
        ("none", 36, 0),
        ("flip", 18, 0),
    }
    lines.append(lines.pop().replace("test", "train"))
    table.write_text("\n".join(lines))
    api.extract(table, out=tmp_path / "c", **light)
    assert sorted(s.missing for s in api.info(cache).streams) == [0, 1]
    assert not api.info(cache).staleness.fresh


def test_more_views_later_are_all_that_is_computed(make_lab) -> None:
    lab, whole = make_lab(range(9)), make_lab(range(9))
    lab.run(views=FOUR[:2])
    before = {view: shards_of(lab, view) for view in FOUR[:2]}
    lab.stem.batches = 0
    done = lab.run(views=FOUR)
    assert (done.computed, done.processed) == (9, 9)
    assert lab.stem.batches == 2 * 5, "two new views of five batches"
    assert before == {view: shards_of(lab, view) for view in FOUR[:2]}
    whole.run(views=FOUR)
    for view in FOUR:
        assert shards_of(lab, view) == shards_of(whole, view)


def test_another_policy_or_seed_is_other_streams_and_the_old_ones_stay(make_lab) -> None:
    lab = make_lab(range(5))
    asked = [views_of("standard", 2), views_of("standard", 2, 1), views_of("trivial", 2)]
    for views in asked:
        assert lab.run(views=views).processed == 5
    cache = Cache(lab.folder)
    others = cache.views_of(cache.stream().entry.stream)
    assert tuple(others) == tuple(views[1] for views in asked)
    rows = [rows_of(lab, views[1]) for views in asked]
    assert not any(np.array_equal(rows[0]["00"], other["00"]) for other in rows[1:])
    with pytest.raises(CacheMissingError, match=r"view 1 of 'flip'.*standard"):
        cache.stream(view=views_of("flip", 2)[1])


def test_a_picture_added_without_views_lacks_them_until_they_are_asked_for(make_lab) -> None:
    lab = make_lab(range(5))
    lab.run(views=FOUR)
    lab.source.pictures["new"] = 40
    assert lab.run().computed == 1
    assert "new" not in rows_of(lab, FOUR[1])
    assert lab.run(views=FOUR).processed == 1
    assert np.array_equal(rows_of(lab, FOUR[1])["new"], by_hand(lab, 40, FOUR[1]))


def test_prune_drops_views_of_what_is_gone_and_of_what_became_a_test_picture(make_lab) -> None:
    lab = make_lab(range(5), splits=dict(SPLITS))
    lab.run(views=FOUR[:2])
    del lab.source.pictures["00"]
    lab.source.splits["02"] = "test"
    lab.run(views=FOUR[:2])
    assert prune_files(lab.folder).rows == 2 + 1  # two views of 00, one of 02
    assert set(rows_of(lab, FOUR[1])) == {"04"}
    assert verify_files(lab.folder)[2] == []
    assert lab.run(views=FOUR[:2]).processed == 0


def test_a_set_of_test_pictures_alone_has_no_views(make_lab) -> None:
    lab = make_lab(range(3), splits={f"{i:02d}": "test" for i in range(3)})
    done = lab.run(views=FOUR)
    assert (done.computed, len(done.streams)) == (3, 1)
    assert lab.run(views=FOUR).reused == 3


def test_an_unusable_picture_is_skipped_in_every_view(make_lab) -> None:
    lab = make_lab({"a": 1, "broken": b"no picture", "b": 2})
    done = lab.run(views=FOUR)
    assert dict(done.skipped) == {"broken": "truncated: a few bytes only"}
    again = lab.run(views=FOUR)
    assert (again.processed, again.reused, again.skipped) == (0, 2, done.skipped)
    for view in FOUR:
        assert set(rows_of(lab, view)) == {"a", "b"}


def test_views_are_compared_too_before_they_are_extended_by_other_versions(
    make_lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(range(5))
    lab.run(views=FOUR[:2])
    lab.source.pictures["new"] = 40
    monkeypatch.setattr(computing, "versions", lambda engine="torch", **_: {"torchvision": "99"})
    drawn = computing.stream_pixels
    lab.run(views=FOUR[:2])
    assert np.array_equal(rows_of(lab, FOUR[1])["new"], by_hand(lab, 40, FOUR[1]))
    lab.source.pictures["newer"] = 41
    monkeypatch.setattr(computing, "versions", lambda engine="torch", **_: {"torchvision": "100"})

    def other_draws(image, preprocessing, view, content):
        return view_pixels(image, preprocessing, replace(view, seed=view.seed + 1), content)

    monkeypatch.setattr("featcache.images.loading.view_pixels", other_draws)
    with pytest.raises(CacheMismatchError, match="rows computed again differ"):
        lab.run(views=FOUR[:2])
    assert computing.stream_pixels is drawn


@given(st.lists(st.integers(1, 16), max_size=5), st.sampled_from([FOUR[:2], FOUR, FOUR[1:]]))
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_interruptions_change_no_byte_of_any_view(make_lab, interruptions, views) -> None:
    views = (View(), *(v for v in views if v != View()), *tta_views(1))
    present = {f"{i:02d}": i for i in range(13)} | {"x": b"no picture", "y": -1}
    whole, torn = (make_lab(dict(present), splits=dict(SPLITS)) for _ in range(2))
    whole.run(views=views)
    for batch in interruptions:
        torn.stem.batches, torn.stem.fail_at = 0, batch
        try:
            torn.run(views=views)
        except torn.Interrupted:
            continue
        finally:
            torn.stem.fail_at = -1
        break
    torn.run(views=views)
    assert torn.bytes() == whole.bytes()


steps = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 9), min_size=1),
        st.sets(st.sampled_from("abcdefgh")),
        st.none() | st.integers(1, 9),
    ),
    min_size=1,
    max_size=5,
)


@given(steps)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_of_views_changes_splits_and_interruptions_leaves_no_row_missing(
    make_lab, steps
) -> None:
    lab = make_lab({})
    for count, present, marked, interruption in steps:
        lab.source.pictures = present
        lab.source.splits = dict.fromkeys(marked, "test")
        views = FOUR[:count]
        if interruption:
            lab.stem.batches, lab.stem.fail_at = 0, interruption
            try:
                lab.run(views=views)
            except lab.Interrupted:
                pass
            finally:
                lab.stem.fail_at = -1
        done = lab.run(views=views)
        assert done.computed + done.reused == len(present)
        assert lab.run(views=views).processed == 0
        kept = set(present) - marked
        for view in views[1:] if kept else ():
            rows = rows_of(lab, view)
            assert kept <= set(rows)
            for path, row in rows.items():
                assert np.array_equal(row, by_hand(lab, present[path], view))
    assert verify_files(lab.folder)[2] == []
