"""The published evaluation transform of a network, as a `Preprocessing`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from featcache.errors import BackboneError
from featcache.lean import compiler_deferred
from featcache.recipe import Interpolation, Preprocessing, ResizeMode

with compiler_deferred():
    from timm.data.config import resolve_data_config

_RESIZE_MODES: dict[str, ResizeMode] = {"center": "shorter", "squash": "exact", "border": "longer"}


def from_timm(config: Mapping[str, Any], image_size: int | None = None) -> Preprocessing:
    """What `timm.data.create_transform` does to a picture for evaluation.

    Args:
        config: a timm `pretrained_cfg`.
        image_size: side of the input in pixels, instead of the published one.

    Raises:
        BackboneError: the transform has no place in a `Preprocessing`.
    """
    data = resolve_data_config(pretrained_cfg=dict(config))
    size = data["input_size"][1:] if image_size is None else (image_size, image_size)
    sides = tuple(math.floor(side / data["crop_pct"]) for side in size)
    mode = _RESIZE_MODES[data["crop_mode"]]
    if len(set(size)) > 1 and mode != "exact":
        raise BackboneError(
            f"its published input of {size[0]} x {size[1]} pixels is not square: give an image "
            "size, or a preprocessing of your own"
        )
    return Preprocessing(
        size=(size[0], size[1]),
        resize=sides if mode == "exact" else sides[:1],
        mean=_three(data["mean"]),
        std=_three(data["std"]),
        resize_mode=mode,
        interpolation=data["interpolation"],
    )


def from_torchvision(preset: Any) -> Preprocessing:
    """What the `ImageClassification` preset of torchvision weights does to a picture."""
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    interpolation: Interpolation = preset.interpolation.value
    return Preprocessing(
        size=(crop, crop),
        resize=(resize,),
        mean=_three(preset.mean),
        std=_three(preset.std),
        interpolation=interpolation,
        antialias=bool(preset.antialias),
    )


def scaled(preprocessing: Preprocessing, image_size: int) -> Preprocessing:
    """The same transform for an input of `image_size` x `image_size` pixels.

    The side before the crop keeps its ratio to the crop, rounded down as timm does.
    """
    size = preprocessing.size
    sides = {"exact": size, "shorter": (min(size),), "longer": (max(size),)}
    resize = tuple(
        before * image_size // after
        for before, after in zip(
            preprocessing.resize, sides[preprocessing.resize_mode], strict=True
        )
    )
    return replace(preprocessing, size=(image_size, image_size), resize=resize)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
