"""What decides a value has one form, and one key."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass, replace
from typing import Any

import pytest

from featcache.recipe import FORMAT, Preprocessing, Recipe, Stream, View, differing_fields

PLAIN = Preprocessing((32, 24), (36,), (0.0, 0.5, 1.0), (1.0, 0.5, 0.25))
RECIPE = Recipe("f" * 64, "test/net", PLAIN)
STREAM = Stream(RECIPE.key)

OTHER: dict[type, dict[str, Any]] = {
    Recipe: {
        "weights": "e" * 64,
        "architecture": "test/other",
        "preprocessing": replace(PLAIN, size=(32, 32)),
        "decoder": "pillow-draft",
        "precision": "bf16",
        "calibration": "d" * 64,
    },
    Stream: {
        "recipe": "0" * 64,
        "cut": "layer4.2",
        "pooling": "avg",
        "dtype": "float16",
        "view": View("flip", 1, 2),
        "parent": "1" * 64,
    },
    Preprocessing: {
        "size": (32, 25),
        "resize": (37,),
        "mean": (0.0, 0.5, math.nextafter(1, 0)),
        "std": (1.0, 0.5, math.nextafter(0.25, 1)),
        "resize_mode": "longer",
        "interpolation": "bicubic",
        "antialias": False,
        "exif": "ignore",
        "alpha": "black",
        "cmyk": "plain",
        "deep": "clip",
        "frame": "last",
    },
    View: {"policy": "flip", "seed": 1, "number": 1},
}
"""Another value of every field of what decides a value; a field that is not here fails."""


KEYS: dict[type, Callable[[Any], str]] = {
    Recipe: lambda recipe: recipe.key,
    Stream: lambda stream: stream.key,
    Preprocessing: lambda preprocessing: replace(RECIPE, preprocessing=preprocessing).key,
    View: lambda view: replace(STREAM, view=view).key,
}


@pytest.mark.faults
@pytest.mark.parametrize("record", [RECIPE, STREAM, PLAIN, View()], ids=lambda r: type(r).__name__)
def test_every_field_alone_changes_the_key(record: Any, tried: Callable[..., None]) -> None:
    others, key = OTHER[type(record)], KEYS[type(record)]
    assert set(others) == {f.name for f in fields(record)}
    keys = {key(with_field(record, name, value)) for name, value in others.items()}
    assert len(keys | {key(record)}) == len(others) + 1
    tried("a field of the key", len(others), sees="another key")


def with_field(record: Any, name: str, value: Any) -> Any:
    """A copy with another value, which need not be one that this version takes."""
    changed = copy.copy(record)
    vars(changed).pop("key", None)  # it was computed of the other value
    object.__setattr__(changed, name, value)
    return changed


def test_what_is_within_a_key_is_itself_tried() -> None:
    nested = {f.name for record in (RECIPE, STREAM) for f in fields(record) if is_record(record, f)}
    assert nested == {"preprocessing", "view"}


def is_record(record: Any, field: Field[Any]) -> bool:
    return is_dataclass(getattr(record, field.name))


def test_a_changed_rule_changes_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = RECIPE.key, STREAM.key
    monkeypatch.setattr("featcache.recipe.FORMAT", FORMAT + 1)
    assert not {replace(RECIPE).key, replace(STREAM).key} & set(before)


def test_a_calibration_is_in_the_key_of_int8_and_in_no_other() -> None:
    ours, theirs = (replace(RECIPE, precision="int8", calibration=name * 64) for name in ("a", "b"))
    assert len({ours.key, theirs.key, RECIPE.key}) == 3
    assert Recipe.from_dict(ours.to_dict()) == ours
    assert "calibration" not in RECIPE.to_dict()
    for wrong in ({"precision": "int8"}, {"calibration": "a" * 64}):
        with pytest.raises(ValueError, match=r"precision .* with calibration .*; 'int8' has one"):
            replace(RECIPE, **wrong)


def test_a_round_trip_is_whole() -> None:
    assert Recipe.from_dict(RECIPE.to_dict()) == RECIPE
    assert Stream.from_dict(STREAM.to_dict()) == STREAM


def test_equal_preprocessings_have_one_key() -> None:
    given: Any = {"size": [32, 24], "resize": [36], "mean": [0, 0.5, 1], "std": [1, 0.5, 0.25]}
    same = Preprocessing.given(given)
    assert same == PLAIN
    assert replace(RECIPE, preprocessing=same).key == RECIPE.key


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (32.5, 32)},
        {"size": (0, 32)},
        {"mean": ("a", 0.5, 0.5)},
        {"mean": (float("nan"), 0.5, 0.5)},
        {"std": (0.0, 0.5, 0.5)},
        {"resize": (36, 36)},
        {"interpolation": "cubic"},
        {"alpha": "black"},
        {"unknown": 1},
        {"size": (1 << 20, 1 << 20)},
    ],
)
def test_a_wrong_field_is_refused_by_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"preprocessing: .*{name}"):
        Preprocessing.given(PLAIN.to_dict() | wrong)


def test_differences_are_named_by_field() -> None:
    other = replace(RECIPE, preprocessing=replace(PLAIN, size=(48, 48)))
    assert differing_fields(RECIPE.to_dict(), other.to_dict()) == [
        "preprocessing.size: [32, 24] here, [48, 48] there"
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cut": 3},
        {"pooling": "max"},
        {"pooling": ["avg"]},
        {"dtype": "float64"},
        {"view": {"policy": "none", "seed": True, "number": 0}},
        {"view": {"policy": "none", "seed": 1 << 62, "number": 0}},
        {"parent": 0},
        {"recipe": None},
    ],
    ids=str,
)
def test_a_stream_holds_what_it_declares_or_is_refused_by_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    inner = "seed" if name == "view" else name
    with pytest.raises(ValueError, match=f"(Stream|View): {inner} is "):
        Stream.from_dict(Stream(RECIPE.key).to_dict() | wrong)
    assert Stream.from_dict(Stream(RECIPE.key).to_dict()) == Stream(RECIPE.key)
