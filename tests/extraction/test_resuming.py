"""Whatever happens between runs, rows are those of a direct computation, none stale or missing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.store.cache import Cache
from featcache.store.upkeep import prune_files, verify_files

numbers = st.integers(0, 14)
pictures = st.dictionaries(
    st.sampled_from([f"{i:02d}.png" for i in range(12)]),
    numbers | numbers.map(lambda n: b"no picture %d" % n) | st.just(-1),
    min_size=1,
)
steps = st.lists(
    st.tuples(
        pictures,
        st.none() | st.integers(1, 8),  # the batch at which the run is interrupted
        st.booleans(),  # whether prune is run afterwards
        st.sampled_from([(1, 1), (2, 2), (2, 4), (3, 6)]),  # batch size, slots a shard
    ),
    min_size=1,
    max_size=6,
)


@given(steps)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_of_changes_and_interruptions_gives_the_rows_of_a_direct_computation(
    make_lab, steps
) -> None:
    lab = make_lab({})
    for present, interruption, pruned, (batch_size, shard_rows) in steps:
        lab.source.pictures = present
        options = {"batch_size": batch_size, "shard_rows": shard_rows}
        lab.stem.batches, lab.stem.fail_at = 0, interruption or -1
        try:
            done = lab.run(**options)
        except lab.Interrupted:
            lab.stem.fail_at = -1
            done = lab.run(**options)
        lab.assert_right()
        assert len(done.index) == len(present)
        assert done.computed + done.reused + len(done.skipped) == len(present)
        assert {path for path, _ in done.skipped} == set(present) - set(lab.expected())
        if pruned:
            prune_files(lab.folder)
            lab.assert_right()
            usable = {n for n in present.values() if isinstance(n, int) and n >= 0}
            assert len(Cache(lab.folder).stream()) == len(usable)
        assert lab.run(**options).processed == 0
    assert verify_files(lab.folder)[2] == []


@given(st.lists(st.integers(1, 14), max_size=8), st.sampled_from([1, 2, 5]))
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_interruptions_and_threads_change_no_byte(
    make_lab, interruptions: list[int], threads: int
) -> None:
    present = {f"{i:02d}.png": i for i in range(25)} | {"x.png": b"no picture", "y.png": -1}
    whole, torn = make_lab(present), make_lab(present)
    whole.run()
    for batch in interruptions:
        torn.stem.batches, torn.stem.fail_at = 0, batch
        try:
            torn.run(threads=threads)
        except torn.Interrupted:
            continue
    torn.stem.fail_at = -1
    torn.run(threads=threads)
    assert torn.bytes() == whole.bytes()


def test_an_interruption_costs_the_shard_in_hand_only(make_lab) -> None:
    lab = make_lab(range(20))
    lab.interrupt(batch=6)  # in the third shard of two batches
    assert len(Cache(lab.folder).stream()) == 8
    again = lab.run()
    assert (again.computed, again.reused) == (12, 8)
    lab.assert_right()


def test_a_resumed_run_keeps_the_plan_it_began_with(make_lab) -> None:
    lab = make_lab(range(20))
    lab.interrupt(batch=3, batch_size=3, shard_rows=6)
    lab.run(batch_size=None, shard_rows=None)
    (plan,) = Cache(lab.folder).stream().entry.plans
    assert (plan.batch_size, plan.shard_rows, plan.finished) == (3, 6, True)


def test_another_batch_size_begins_a_new_plan(make_lab) -> None:
    lab = make_lab(range(20))
    lab.interrupt(batch=3)
    lab.run(batch_size=5)
    before, after = Cache(lab.folder).stream().entry.plans
    assert (before.batch_size, after.batch_size) == (2, 5)
    assert after.first >= before.first + before.shard_count
    lab.assert_right()


def test_shards_asked_for_hold_whole_batches(make_lab) -> None:
    lab = make_lab(range(20))
    lab.run(batch_size=4, shard_rows=5)
    entry = Cache(lab.folder).stream().entry
    assert entry.plans[0].shard_rows == 8
    assert [shard.rows for shard in entry.shards] == [8, 8, 4]


def test_a_picture_is_decoded_once_however_often_it_lies_there(make_lab) -> None:
    lab = make_lab({f"{i}.png": i % 3 for i in range(9)})
    done = lab.run()
    assert (done.computed, done.reused) == (3, 6)
    assert Counter(lab.source.reads).most_common(1)[0][1] == 2  # hashed, and decoded
    assert len(lab.source.reads) == 9 + 3
    lab.assert_right()


def test_a_new_source_keeps_the_rows_it_shares(make_lab) -> None:
    lab = make_lab(range(10))
    lab.run()
    lab.source.locator = {"kind": "folder", "location": "/elsewhere"}
    lab.source.pictures["new.png"] = 99
    done = lab.run(replace_source=True)
    assert (done.computed, done.reused) == (1, 10)
    assert Cache(lab.folder).manifest.source["location"] == "/elsewhere"


def test_progress_ends_where_it_said_it_would(make_lab) -> None:
    from featcache.extraction.running import run

    lab = make_lab(range(20))
    lab.interrupt(batch=6)
    calls: list[tuple[str, int, int]] = []
    run(lab.job(), lambda *call: calls.append(call))
    assert [c for c in calls if c[0] == "hash"] == [("hash", i, 20) for i in range(1, 21)]
    assert [c for c in calls if c[0] == "extract"] == [
        ("extract", done, 12) for done in (2, 4, 6, 8, 10, 12)
    ]


def test_a_few_pictures_more_are_a_batch_of_that_size(make_lab: Any) -> None:
    lab = make_lab(range(40))
    lab.run(batch_size=None)
    lab.source.pictures |= {"40": 40, "41": 41, "42": 42}
    lab.run(batch_size=None)
    assert [plan.batch_size for plan in Cache(lab.folder).stream().entry.plans] == [32, 3]
    lab.assert_right()
