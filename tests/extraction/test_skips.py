"""What cannot be used is told by path and reason, and remembered only if that is its own."""

from __future__ import annotations

import pytest

from featcache.errors import PictureError, SourceError, SourceMissingError
from featcache.extraction.shards import NOT_FINITE
from featcache.store.cache import Cache


def test_a_broken_picture_is_skipped_with_its_reason_and_remembered(make_lab) -> None:
    lab = make_lab({"a.png": 1, "b.png": b"no picture", "c.png": 2})
    first = lab.run()
    ((path, reason),) = first.skipped
    assert path == "b.png"
    assert reason == "truncated: a few bytes only"
    assert (first.computed, first.processed) == (2, 3)
    again = lab.run()
    assert again.skipped == first.skipped
    assert again.processed == 0
    assert list(Cache(lab.folder).stream().skips.values()) == [reason]


def test_features_that_are_not_finite_are_a_skip(make_lab) -> None:
    lab = make_lab({"a.png": 1, "white.png": -1})
    assert lab.run().skipped == [("white.png", NOT_FINITE)]
    assert lab.run().processed == 0
    lab.assert_right()


def test_strict_names_the_picture_and_leaves_it_missing(make_lab) -> None:
    lab = make_lab({"a.png": 1, "b.png": b"no picture"})
    with pytest.raises(
        PictureError, match=r"b\.png: truncated.*; mend or remove it, or leave out --strict"
    ):
        lab.run(strict=True)
    assert lab.run().skipped[0][0] == "b.png"
    with pytest.raises(PictureError, match=r"b\.png"):  # remembered, and an error still
        lab.run(strict=True)


def test_strict_refuses_what_the_scan_could_not_read(make_lab) -> None:
    lab = make_lab({"a.png": 1, "gone.png": None})
    with pytest.raises(PictureError, match=r"gone\.png: missing"):
        lab.run(strict=True)


def test_what_cannot_be_read_at_the_scan_is_tried_at_the_next(make_lab) -> None:
    lab = make_lab({"a.png": 1, "gone.png": None})
    first = lab.run()
    assert first.skipped == [("gone.png", "missing: there is no such file")]
    assert len(first.index) == 1
    lab.source.pictures["gone.png"] = 2
    again = lab.run()
    assert (again.computed, again.skipped) == (1, [])
    lab.assert_right()


def meddle_at_second_read(lab, path: str, change) -> None:
    """Change a picture after it was hashed and before it is decoded."""
    seen = []

    def before_read(name: str) -> None:
        if name == path:
            seen.append(name)
            if len(seen) == 2:
                change()

    lab.source.before_read = before_read


def test_a_picture_that_vanishes_before_it_is_decoded_is_not_remembered(make_lab) -> None:
    lab = make_lab(range(6))
    meddle_at_second_read(lab, "03", lambda: lab.source.pictures.update({"03": None}))
    first = lab.run()
    assert first.skipped == [("03", "missing: there is no such file")]
    assert (first.computed, first.reused) == (5, 0)
    assert Cache(lab.folder).stream().skips == {}
    lab.source.pictures["03"] = 3
    again = lab.run()
    assert (again.computed, again.reused, again.skipped) == (1, 5, [])
    lab.assert_right()


def test_a_picture_that_changes_before_it_is_decoded_gives_no_row(make_lab) -> None:
    lab = make_lab(range(6))
    meddle_at_second_read(lab, "03", lambda: lab.source.pictures.update({"03": 77}))
    assert lab.run().skipped == [("03", "it changed while it was read; run extract again")]
    assert (lab.run().computed, lab.run().computed) == (1, 0)
    lab.assert_right()


def test_a_resumed_run_tries_again_what_failed_before_the_interruption(make_lab) -> None:
    lab = make_lab(range(20))
    by_hash = sorted(range(20), key=lambda n: content(lab, f"{n:02d}"))
    path = f"{by_hash[0]:02d}"  # stands in the first shard
    number = lab.source.pictures[path]
    meddle_at_second_read(lab, path, lambda: lab.source.pictures.update({path: None}))
    lab.interrupt(batch=6)
    lab.source.pictures[path] = number
    again = lab.run()
    assert (again.computed, again.skipped) == (20 - 7, [])
    lab.assert_right()


def content(lab, path: str) -> bytes:
    from featcache.images.sources import content_hash

    value = content_hash(lab.source.read(path))
    lab.source.reads.clear()
    return value


def test_a_source_that_is_gone_is_an_error_and_changes_nothing(make_lab) -> None:
    lab = make_lab(range(6))
    lab.run()
    before = lab.bytes()

    def gone(path: str) -> None:
        raise SourceMissingError("/memory: the pictures are no longer there")

    lab.source.before_read = gone
    with pytest.raises(SourceMissingError):
        lab.run()
    assert lab.bytes() == before


def test_not_one_readable_picture_is_an_error_and_changes_nothing(make_lab) -> None:
    lab = make_lab(range(3))
    lab.run()
    before = Cache(lab.folder).manifest
    lab.source.pictures = {"x.png": None, "y.png": None}
    with pytest.raises(
        SourceError,
        match=r"none of its 2 pictures can be read, the first is x\.png \(missing.* mend",
    ):
        lab.run()
    assert Cache(lab.folder).manifest == before


def test_pictures_that_all_fail_to_decode_leave_a_cache_of_skips(make_lab) -> None:
    lab = make_lab({"x.png": b"no", "y.png": b"nor this"})
    done = lab.run()
    assert (done.computed, len(done.skipped)) == (0, 2)
    assert len(Cache(lab.folder).stream()) == 0
    assert lab.run().processed == 0


def test_too_little_memory_says_nothing_of_a_picture(
    make_lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(range(4))
    with monkeypatch.context() as patch:

        def starving(*_: object) -> None:
            raise MemoryError

        patch.setattr("featcache.images.loading.view_pixels", starving)
        starved = lab.run()
    assert [reason for _, reason in starved.skipped] == [
        "too little memory to decode it; run extract again"
    ] * 4
    assert lab.run().computed == 4
    lab.assert_right()
