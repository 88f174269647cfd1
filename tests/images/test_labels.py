"""Warnings about labels."""

from __future__ import annotations

from featcache.images.labels import label_warnings
from featcache.images.listing import Sample


def _samples(*pairs: tuple[str, str | None]) -> list[Sample]:
    return [
        Sample(str(number), tuple(labels.split()), split, None, None)
        for number, (labels, split) in enumerate(pairs)
    ]


def test_nothing_to_say() -> None:
    good = _samples(("a", None), ("a b", None), ("b", None))
    assert label_warnings(good) == ()


def test_pictures_without_a_label_are_counted() -> None:
    (warning,) = label_warnings(_samples(*[("a", None), ("b", None)] * 2, ("", None), ("", "test")))
    assert warning == "pictures without a label, which no probe trains on: 2"


def test_no_labels() -> None:
    (warning,) = label_warnings(_samples(("", None)))
    assert "no picture has a label" in warning


def test_several_labels_count_for_each_class() -> None:
    (warning,) = label_warnings(_samples(("a b", None), ("a", None)))
    assert "one training picture" in warning
    assert warning.endswith(": b")


def test_nothing_in_train() -> None:
    (warning,) = label_warnings(_samples(("a", "test"), ("b", "test")))
    assert "nothing to train on" in warning


def test_test_pictures_are_no_training_pictures() -> None:
    samples = _samples(("a", "train"), ("a", "train"), ("b", "train"), ("b", "test"), ("c", "val"))
    single, unseen = label_warnings(samples)
    assert single.endswith(": b")
    assert unseen.endswith(": c")
