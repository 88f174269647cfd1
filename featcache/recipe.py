"""What decides a value: preprocessing, recipe and stream, their canonical JSON and their hashes.

A *recipe* (one a cache) says which network turns which pixels into numbers, and how exactly. A
*stream* (many a cache) says which of those numbers are kept. Whatever is in neither must not change
a value beyond rounding; versions and engines are provenance and stand elsewhere (store.manifest).
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from types import UnionType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

FORMAT = 1
"""Version of the identity scheme; part of every key, so that a changed rule changes every key."""

DRAFT = "pillow-draft"
"""The decoder that leaves out pixels of large JPEGs."""

PENULTIMATE = "penultimate"
"""The cut of depth 0: the input of the last linear layer."""

ResizeMode = Literal["shorter", "exact", "longer"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Precision = Literal["fp32", "tf32", "bf16", "fp16", "int8"]
StoredDtype = Literal["float32", "float16"]
Decoder = Literal["pillow", "pillow-draft"]
Pooling = Literal["none", "avg", "cls", "flatten"]


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_json(value: Any) -> str:
    """Hex sha256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


_LARGEST_WHOLE = 1 << 62
"""No count, size or seed is larger."""


def refuse_misfits(record: Any) -> None:
    """Refuse a dataclass of which a field does not hold what it is declared to.

    What is read from a file may hold anything: whatever uses it later relies on this.

    Raises:
        ValueError: names the field and the value.
    """
    for name, kind in _declared(type(record)).items():
        value = getattr(record, name)
        if not _fits(value, kind):
            raise ValueError(f"{type(record).__name__}: {name} is {_short(value)}")


@cache
def _declared(record: type) -> dict[str, Any]:
    hints = get_type_hints(record)
    return {f.name: hints[f.name] for f in fields(record)}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a declared type; numbers are finite, and no larger than any count."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is UnionType:
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            isinstance(key, str) and _fits(item, inner[1]) for key, item in value.items()
        )
    if kind is int:
        return type(value) is int and abs(value) < _LARGEST_WHOLE
    return kind is Any or type(value) is kind


class _Record:
    """Strict conversion between a frozen dataclass and a plain dictionary."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON's own types."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        if set(data) != known:
            raise ValueError(
                f"{cls.__name__}: expected the fields {sorted(known)}, found {sorted(data)}"
            )
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


@dataclass(frozen=True)
class Preprocessing(_Record):
    """How a decoded picture becomes the network's input; every field decides a value.

    Attributes:
        size: (height, width) in pixels of the network's input, cut from the centre.
        resize: side or sides in pixels before the crop.
        resize_mode: "shorter" scales the shorter side to `resize[0]`, "longer" the longer side (and
            pads the crop with the mean), "exact" scales to (height, width) = `resize` whatever the
            aspect.
        interpolation: filter of the resize. antialias: on in every published transform.
        mean, std: per channel, on the 0-1 scale.
        exif: "apply" turns the picture upright; alpha: the background it is laid on.
        cmyk: "adobe" reads inverted CMYK where the file says so.
        deep: how 16-bit samples become 8-bit; frame: which one of an animation.
    """

    size: tuple[int, int]
    resize: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_mode: ResizeMode = "shorter"
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    exif: Literal["apply"] = "apply"
    alpha: Literal["white"] = "white"
    cmyk: Literal["adobe"] = "adobe"
    deep: Literal["scale"] = "scale"
    frame: Literal["first"] = "first"

    @classmethod
    def given(cls, given: Mapping[str, Any]) -> Self:
        """What a person wrote as a dictionary; what is left out is as published networks have it.

        Raises:
            ValueError: a field is missing, unknown or wrong.
        """
        try:
            values: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in given.items()
            }
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"preprocessing: {error}") from error

    def __post_init__(self) -> None:
        self._normalise()
        problems = [
            (len(self.size) != 2 or min(self.size) < 1, f"size {self.size} is not (height, width)"),
            (
                len(self.resize) != (2 if self.resize_mode == "exact" else 1)
                or min(self.resize, default=0) < 1,
                f"resize {self.resize} does not fit resize_mode {self.resize_mode!r}: "
                "one side for 'shorter' and 'longer', (height, width) for 'exact'",
            ),
            (len(self.mean) != 3 or len(self.std) != 3, "mean and std need three values each"),
            (min(self.std, default=0) <= 0, f"std {self.std} must be positive"),
            (
                not all(map(math.isfinite, (*self.mean, *self.std))),
                f"mean {self.mean} and std {self.std} must be finite",
            ),
            (
                max(*self.size, *self.resize) > _LARGEST_SIDE,
                f"size {self.size} and resize {self.resize} have at most {_LARGEST_SIDE} pixels",
            ),
            (not self.antialias, "antialias=False is not supported"),
            *(
                (getattr(self, name) not in get_args(kind), _one_of(name, get_args(kind)))
                for name, kind in _CHOICES.items()
            ),
        ]
        for wrong, message in problems:
            if wrong:
                raise ValueError(f"preprocessing: {message}")

    def _normalise(self) -> None:
        """Give equal values one form, so that equal preprocessings have one key."""
        try:
            for name, kind in _NUMBERS.items():
                object.__setattr__(self, name, tuple(kind(v) for v in getattr(self, name)))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"preprocessing: size {self.size} and resize {self.resize} must be whole numbers, "
                f"mean {self.mean} and std {self.std} numbers ({error})"
            ) from error


_LARGEST_SIDE = 8192
"""Pixels of a side: no network's, and all that a file may ask of memory."""

_NUMBERS: dict[str, Callable[[Any], float]] = {
    "size": operator.index,
    "resize": operator.index,
    "mean": float,
    "std": float,
}

_CHOICES = {
    "resize_mode": ResizeMode,
    "interpolation": Interpolation,
    "exif": Literal["apply"],
    "alpha": Literal["white"],
    "cmyk": Literal["adobe"],
    "deep": Literal["scale"],
    "frame": Literal["first"],
}


def _one_of(name: str, choices: tuple[str, ...]) -> str:
    return f"{name} must be {' or '.join(map(repr, choices))}"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a cache's values (one a cache).

    Attributes:
        weights: hex sha256 of the network's tensors (names, dtypes, shapes, bytes).
        architecture: which code runs them, e.g. `timm/tf_efficientnet_lite0`.
        preprocessing: see `Preprocessing`.
        decoder: what turns a file into pixels: "pillow" decodes all of them, "pillow-draft" large
            JPEGs at 1/2, 1/4 or 1/8 of their size; see `images.decode`.
        precision: arithmetic of the forward pass.
        calibration: hex sha256 of the pixels that the scales of "int8" were measured on; None for
            every other precision.
    """

    weights: str
    architecture: str
    preprocessing: Preprocessing
    decoder: Decoder = "pillow"
    precision: Precision = "fp32"
    calibration: str | None = None

    def __post_init__(self) -> None:
        if self.decoder not in get_args(Decoder):
            known = _one_of("decoder", get_args(Decoder))
            raise ValueError(f"recipe: {known}, not {self.decoder!r}")
        refuse_misfits(self)
        if (self.precision == "int8") != (self.calibration is not None):
            raise ValueError(
                f"recipe: precision {self.precision!r} with calibration {self.calibration!r}; "
                "'int8' has one, and no other has"
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON's own types; a calibration only where there is one."""
        given = {
            "format": FORMAT,
            "weights": self.weights,
            "architecture": self.architecture,
            "preprocessing": self.preprocessing.to_dict(),
            "decoder": self.decoder,
            "precision": self.precision,
        }
        return given if self.calibration is None else given | {"calibration": self.calibration}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave; ValueError if a field is missing, unknown or wrong."""
        rest = dict(data)
        if rest.pop("format", None) != FORMAT:
            raise ValueError(
                f"recipe of format {data.get('format')!r}; this version reads {FORMAT}"
            )
        expected = {f.name for f in fields(cls)}
        if not expected - {"calibration"} <= set(rest) <= expected:
            raise ValueError(f"recipe: expected {sorted(expected)}, found {sorted(rest)}")
        rest["preprocessing"] = Preprocessing.from_dict(rest["preprocessing"])
        return cls(**rest)

    @cached_property
    def key(self) -> str:
        """Hex sha256 that names this recipe."""
        return sha256_json(self.to_dict())


PLAIN = "none"
"""The policy of the picture itself."""

TTA = "tta"
"""The policy of views that are predicted beside the plain one (test-time augmentation)."""


@dataclass(frozen=True)
class View(_Record):
    """Which augmented copy of a picture: number 0 of policy "none" is the picture itself."""

    policy: str = PLAIN
    seed: int = 0
    number: int = 0

    def __post_init__(self) -> None:
        refuse_misfits(self)

    @property
    def only_trains(self) -> bool:
        """Whether nothing is predicted from it, so that no picture marked test has it."""
        return self.policy not in (PLAIN, TTA)

    @property
    def sort_key(self) -> tuple[bool, str, int, int]:
        """Orders views: the plain one first, then by policy, seed and number."""
        return self != View(), self.policy, self.seed, self.number

    def __str__(self) -> str:
        if self == View():
            return "plain view"
        return f"view {self.number} of {self.policy!r}, seed {self.seed}"


@dataclass(frozen=True)
class Stream:
    """Which numbers are kept (many a cache).

    Attributes:
        recipe: key of the recipe.
        cut: name of the cut; `PENULTIMATE` is the input of the last linear layer.
        pooling: how an activation map becomes a vector ("none" keeps it as it is).
        dtype: stored dtype.
        view: the augmented copy.
        parent: key of the stream this one was derived from, or None when it came from pixels.
    """

    recipe: str
    cut: str = PENULTIMATE
    pooling: Pooling = "none"
    dtype: StoredDtype = "float32"
    view: View = View()
    parent: str | None = None

    def __post_init__(self) -> None:
        refuse_misfits(self)

    def to_dict(self) -> dict[str, Any]:
        """As JSON's own types."""
        return {
            "format": FORMAT,
            "recipe": self.recipe,
            "cut": self.cut,
            "pooling": self.pooling,
            "dtype": self.dtype,
            "view": self.view.to_dict(),
            "parent": self.parent,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave; ValueError if a field is missing, unknown or wrong."""
        rest = dict(data)
        if rest.pop("format", None) != FORMAT:
            raise ValueError(
                f"stream of format {data.get('format')!r}; this version reads {FORMAT}"
            )
        expected = {f.name for f in fields(cls)}
        if set(rest) != expected:
            raise ValueError(f"stream: expected {sorted(expected)}, found {sorted(rest)}")
        rest["view"] = View.from_dict(rest["view"])
        return cls(**rest)

    @cached_property
    def key(self) -> str:
        """Hex sha256 that names this stream."""
        return sha256_json(self.to_dict())


def differing_fields(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """One line for each field in which two dictionaries differ, nested fields by dotted name.

    >>> differing_fields({"a": {"b": 1}}, {"a": {"b": 2}})
    ['a.b: 1 here, 2 there']
    """
    return [f"{name}: {_short(a)} here, {_short(b)} there" for name, a, b in _walk(ours, theirs)]


def _walk(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(set(ours) | set(theirs)):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _walk(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}", a, b


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:12] + "…"
