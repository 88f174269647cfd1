"""The .fc file: one safetensors file, its header a JSON description with a digest of its own.

Holds the head (any standardisation folded in), the classes, the recipe, where the backbone's
weights come from, and what was measured; the backbone's tensors only if asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from featcache.backbones.identity import tensors_sha256
from featcache.errors import ClassifierError
from featcache.heads.linear import LinearHead
from featcache.recipe import Recipe, Stream, canonical_json, sha256_json
from featcache.store.files import make_folder, write_durably

FORMAT = 1
_HEADER = "featcache"
_BACKBONE = "backbone."
_WEIGHT, _BIAS = "head.weight", "head.bias"


@dataclass(frozen=True, eq=False)
class ClassifierFile:
    """What a .fc file holds.

    Attributes:
        head: takes the stream's features as they are.
        classes: K names.
        recipe, stream: what the head was fitted on.
        backbone: name and weights locator.
        measured: the probe's estimate, for people.
        backbone_tensors: the whole network's tensors if embedded, else empty.
    """

    head: LinearHead
    classes: tuple[str, ...]
    recipe: Recipe
    stream: Stream
    backbone: dict[str, Any]
    measured: dict[str, Any]
    backbone_tensors: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])


def encode(content: ClassifierFile) -> bytes:
    """The bytes of a .fc file; the same content gives the same bytes."""
    head = {
        _WEIGHT: torch.from_numpy(np.ascontiguousarray(content.head.coef)),
        _BIAS: torch.from_numpy(np.ascontiguousarray(content.head.bias)),
    }
    description = {
        "format": FORMAT,
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
    header = canonical_json({**description, "digest": sha256_json(description)})
    embedded = {
        _BACKBONE + name: t.clone().contiguous() for name, t in content.backbone_tensors.items()
    }
    return safetensors.torch.save(head | embedded, {_HEADER: header})


def write(path: Path, content: bytes) -> None:
    """Put a .fc file in place, durably.

    Raises:
        StoreError, DiskSpaceError: by path.
    """
    make_folder(path.absolute().parent)
    write_durably(path, content)


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
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise ClassifierError(f"{path}: not a classifier file, or damaged ({error})") from error
    if header is None:
        raise ClassifierError(
            f"{path}: a safetensors file, but no classifier of featcache; "
            "`featcache probe CACHE --save` makes one"
        )
    try:
        return _parse(json.loads(header), tensors)
    except ClassifierError as error:
        raise ClassifierError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClassifierError(
            f"{path}: its description cannot be read ({error}); save it again"
        ) from error


def _parse(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> ClassifierFile:
    digest = description.pop("digest")
    if description["format"] != FORMAT:
        raise ClassifierError(
            f"format {description['format']!r}, this featcache reads {FORMAT}; save it again"
        )
    if digest != sha256_json(description):
        raise ClassifierError(
            "its digest does not match: it was changed after it was saved; save it again"
        )
    head_tensors = {name: tensors[name] for name in (_WEIGHT, _BIAS)}
    if tensors_sha256(head_tensors) != description["head_sha256"]:
        raise ClassifierError("the head's tensors are not those that were saved; save it again")
    classes = tuple(description["classes"])
    head = LinearHead(
        description["loss"],
        tensors[_WEIGHT].numpy(),
        tensors[_BIAS].numpy(),
        multi_label=description["multi_label"],
    )
    if len(head.bias) != len(classes):
        raise ClassifierError(f"{len(classes)} classes and a head of {len(head.bias)} outputs")
    backbone = description["backbone"]
    backbone = {"name": str(backbone["name"]), "locator": dict(backbone["locator"])}
    return ClassifierFile(
        head=head,
        classes=classes,
        recipe=Recipe.from_dict(description["recipe"]),
        stream=Stream.from_dict(description["stream"]),
        backbone=backbone,
        measured=description["measured"],
        backbone_tensors={
            name.removeprefix(_BACKBONE): t
            for name, t in tensors.items()
            if name.startswith(_BACKBONE)
        },
    )
