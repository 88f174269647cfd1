"""The .fc file: one safetensors file, its header a JSON description with a digest of its own.

Holds the head (any standardisation folded in), the classes, the recipe, where the backbone's
weights come from, and what was measured; what training changed of the backbone, and new hidden
units before the head, if there are any; the backbone's own tensors only if asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors
import safetensors.torch
import torch

from featcache.backbones.identity import tensors_sha256
from featcache.errors import ClassifierError
from featcache.heads.hidden import HiddenUnits
from featcache.heads.linear import LinearHead, Loss
from featcache.recipe import Recipe, Stream, canonical_json, sha256_json
from featcache.store.files import make_folder, remove_abandoned, write_durably

FORMAT, TUNED_FORMAT = 1, 2
"""Versions of the file: with a head alone, and with a tuned tail or hidden units beside it."""

_HEADER = "featcache"
_BACKBONE, _TAIL = "backbone.", "tail."
_HEAD, _HIDDEN = "head.", "hidden."
_WEIGHT, _BIAS = "weight", "bias"
_LAYERS = {f"{layer}{part}" for layer in (_HEAD, _HIDDEN) for part in (_WEIGHT, _BIAS)}

_MOST_BYTES = 32 << 20
"""Of the JSON at a file's beginning: classes, recipe, and a line for each tensor."""


@dataclass(frozen=True, eq=False)
class ClassifierFile:
    """What a .fc file holds.

    Attributes:
        head: takes the features as they are, or what the hidden units make of them.
        classes: K names.
        recipe, stream: what the head, and the tail where there is one, were fitted on; so
            `stream.cut` is where the tail begins, but `PENULTIMATE` in float32 where it was trained
            from pixels: then nothing was rounded on the way.
        backbone: name and weights locator.
        measured: the probe's estimate, for people.
        backbone_tensors: the whole network's tensors if embedded, else empty; untuned.
        tail: tensors that training changed, by the network's own names.
        hidden: new units before the head.
    """

    head: LinearHead
    classes: tuple[str, ...]
    recipe: Recipe
    stream: Stream
    backbone: dict[str, Any]
    measured: dict[str, Any]
    backbone_tensors: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    tail: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    hidden: HiddenUnits | None = None

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(n, K) float32 logits of (n, D) penultimate features of the (tuned) network."""
        below = features if self.hidden is None else self.hidden.activations(features)
        return self.head.logits(below)


def encode(content: ClassifierFile) -> bytes:
    """The bytes of a .fc file; the same content gives the same bytes."""
    head, tail = _layer(_HEAD, content.head), _prefixed(_TAIL, content.tail)
    hidden = {} if content.hidden is None else _layer(_HIDDEN, content.hidden)
    description = {
        "format": TUNED_FORMAT if tail or hidden else FORMAT,
        "loss": content.head.loss,
        "multi_label": content.head.multi_label,
        "classes": list(content.classes),
        "recipe": content.recipe.to_dict(),
        "stream": content.stream.to_dict(),
        "backbone": content.backbone,
        "measured": content.measured,
        "head_sha256": tensors_sha256(head),
        "embedded": bool(content.backbone_tensors),
    }
    if tail or hidden:
        description["tail_sha256"] = tensors_sha256(tail)
        description["hidden_sha256"] = tensors_sha256(hidden)
    header = canonical_json({**description, "digest": sha256_json(description)})
    embedded = _prefixed(_BACKBONE, content.backbone_tensors)
    return safetensors.torch.save(head | tail | hidden | embedded, {_HEADER: header})


def _layer(prefix: str, layer: LinearHead | HiddenUnits) -> dict[str, torch.Tensor]:
    return {
        prefix + _WEIGHT: torch.from_numpy(np.ascontiguousarray(layer.coef)),
        prefix + _BIAS: torch.from_numpy(np.ascontiguousarray(layer.bias)),
    }


def _prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def write(path: Path, content: bytes, check: Callable[[Path], None] | None = None) -> None:
    """Put a .fc file in place, durably, once a check of it under another name raises nothing.

    Raises:
        StoreError, DiskSpaceError: by path.
    """
    make_folder(path.absolute().parent)
    remove_abandoned(path)
    write_durably(path, content, check)


def read(path: Path) -> ClassifierFile:
    """Read and check a .fc file. The embedded backbone's tensors are checked when they are used.

    Raises:
        ClassifierError: missing, not a .fc file, damaged, or of another version.
    """
    if path.is_dir():
        raise ClassifierError(f"{path}: is a folder; give the file `probe --save` made")
    if not path.is_file():
        raise ClassifierError(
            f"{path}: no such classifier; make one with `featcache probe CACHE --save {path}`"
        )
    try:
        _refuse_long_header(path)
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ClassifierError(f"{path}: not a classifier file, or damaged ({error})") from error
    if header is None:
        raise ClassifierError(
            f"{path}: a safetensors file, but no classifier of featcache; "
            "`featcache probe CACHE --save` makes one"
        )
    try:
        return _parse(_described(header), tensors)
    except ClassifierError as error:
        raise ClassifierError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ClassifierError(
            f"{path}: its description cannot be read ({error}); save it again"
        ) from error


def verify(path: Path) -> None:
    """Check every byte of a .fc file, the embedded backbone's too.

    Raises:
        ClassifierError: as `read`, or the backbone is another one.
    """
    content = read(path)
    held = content.backbone_tensors
    if held and tensors_sha256(held) != content.recipe.weights:
        raise ClassifierError(
            f"{path}: the backbone's tensors are not those that were saved; save it again"
        )


def _refuse_long_header(path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _MOST_BYTES:
        raise ValueError(f"its header says it has {length} bytes")


def _described(header: str) -> dict[str, Any]:
    """What a header says, if it says it as `encode` writes it."""
    description: Any = json.loads(header)
    if not isinstance(description, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - of a file
    if canonical_json(description) != header:
        raise ClassifierError("its description was changed after it was saved; save it again")
    return description


def _parse(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> ClassifierFile:
    _check(description, tensors)
    classes, loss, measured = (description[k] for k in ("classes", "loss", "measured"))
    several = description["multi_label"]
    typed = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    typed &= loss in get_args(Loss) and isinstance(several, bool) and isinstance(measured, dict)
    if not typed:
        raise ClassifierError("its classes or its loss are none; save it again")
    head = LinearHead(
        loss,
        tensors[_HEAD + _WEIGHT].numpy(),
        tensors[_HEAD + _BIAS].numpy(),
        multi_label=several,
    )
    if not classes or len(head.bias) != len(classes):
        raise ClassifierError(f"{len(classes)} classes and a head of {len(head.bias)} outputs")
    backbone = description["backbone"]
    backbone = {"name": str(backbone["name"]), "locator": dict(backbone["locator"])}
    return ClassifierFile(
        head=head,
        classes=tuple(classes),
        recipe=Recipe.from_dict(description["recipe"]),
        stream=Stream.from_dict(description["stream"]),
        backbone=backbone,
        measured=measured,
        backbone_tensors=_without(_BACKBONE, tensors),
        tail=_without(_TAIL, tensors),
        hidden=_hidden(head, tensors),
    )


def _check(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Refuse another version, and whatever is not as it was saved."""
    digest, version = description.pop("digest"), description["format"]
    if version not in (FORMAT, TUNED_FORMAT):
        raise ClassifierError(
            f"format {version!r}, this featcache reads {FORMAT} and {TUNED_FORMAT}; save it again"
        )
    if digest != sha256_json(description):
        raise ClassifierError(
            "its digest does not match: it was changed after it was saved; save it again"
        )
    for name, tensor in tensors.items():
        if name in _LAYERS and tensor.dtype != torch.float32:
            raise ClassifierError(f"{name} is {tensor.dtype}, not torch.float32; save it again")
        if name not in _LAYERS and not name.startswith((_TAIL, _BACKBONE)):
            raise ClassifierError(f"it holds a tensor {name!r:.80}, which is none of its parts")
    for part, prefix in (("head", _HEAD), ("tail", _TAIL), ("hidden", _HIDDEN)):
        held = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        expected = description.get(f"{part}_sha256", tensors_sha256({}))
        if tensors_sha256(held) != expected:
            raise ClassifierError(
                f"the {part}'s tensors are not those that were saved; save it again"
            )


def _hidden(head: LinearHead, tensors: dict[str, torch.Tensor]) -> HiddenUnits | None:
    if _HIDDEN + _WEIGHT not in tensors:
        return None
    hidden = HiddenUnits(tensors[_HIDDEN + _WEIGHT].numpy(), tensors[_HIDDEN + _BIAS].numpy())
    if len(hidden.bias) != head.coef.shape[1]:
        raise ClassifierError(
            f"{len(hidden.bias)} hidden units and a head for {head.coef.shape[1]}; save it again"
        )
    return hidden


def _without(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
