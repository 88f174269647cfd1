"""Names of splits, and what may be wrong with labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from featcache.images.listing import Sample
from featcache.naming import name_some

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What people call a split (in lower case), and what it is called here."""


def label_warnings(samples: Sequence[Sample], empty: Collection[str] = ()) -> tuple[str, ...]:
    """Sentences about labels that a probe will stumble over.

    Args:
        samples: of any source.
        empty: names of class folders without a picture.
    """
    return tuple(_label_warnings(samples, empty))


def _label_warnings(samples: Sequence[Sample], empty: Collection[str]) -> Iterator[str]:
    training: Counter[str] = Counter()
    held_out: Counter[str] = Counter()
    for sample in samples:
        (training if sample.split in (None, "train") else held_out).update(sample.labels)
    classes = {**training, **held_out}
    if empty:
        yield f"class folders without a picture: {name_some(empty)}"
    if not classes:
        yield "no picture has a label: features can be extracted, but not probed"
        return
    if unlabelled := sum(not sample.labels for sample in samples):
        yield f"pictures without a label, which no probe trains on: {unlabelled}"
    if len(classes) == 1:
        yield f"there is only one class, {name_some(classes)}: a probe needs two or more"
    if not training:
        yield "no labelled picture is in the train split: there is nothing to train on"
        return
    if single := [label for label, count in training.items() if count == 1]:
        yield f"classes with one training picture, which can't be validated: {name_some(single)}"
    if unseen := [label for label in held_out if label not in training]:
        yield f"classes in val or test but not in train, never predicted: {name_some(unseen)}"
