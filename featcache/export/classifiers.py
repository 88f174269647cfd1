"""`export_classifier`: a whole classifier as ONNX, TorchScript or pt2, checked on real pictures."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from featcache.api.requests import PathLike
from featcache.classifier.joined import Classifier, load_classifier
from featcache.errors import ExportError, FeatcacheError
from featcache.export.checking import TOLERANCE, measure, real_pixels, refuse_unlike
from featcache.export.examples import example_of
from featcache.export.graphs import GRAPHS, refuse_missing
from featcache.export.places import format_of, refuse_taken, write_export
from featcache.export.whole import INPUT, OUTPUT, Input, Whole
from featcache.recipe import DRAFT
from featcache.results import ClassifierExport

SUFFIXES = {".onnx": "onnx", ".pt": "torchscript", ".torchscript": "torchscript", ".pt2": "pt2"}
"""Formats of a classifier's export by what a file's name ends with."""


def export_classifier(
    classifier: PathLike,
    file: PathLike,
    *,
    format: str | None = None,
    input: Input = "uint8",
    pictures: PathLike | Sequence[PathLike] = (),
    backbone: str | None = None,
    weights: PathLike | None = None,
    overwrite: bool = False,
) -> ClassifierExport:
    """Write backbone, tuned tail, head and how its logits are read into one file without featcache.

    The file takes any number of pictures, resized and cropped, and gives their probabilities in
    fp32. It is run on real pictures and must say what the classifier says, or does not appear.

    Args:
        classifier: a .fc file.
        file: to be written.
        format: "onnx", "torchscript" or "pt2"; None: as the file's name ends.
        input: "uint8": RGB bytes (N, H, W, 3), normalised within; a type that cannot be mistaken.
            "normalised": float32 (N, 3, H, W), as most published networks take.
        pictures: files, folders and patterns to check it on; none takes two photos of scikit-learn.
        backbone: `package.module:factory`, to vouch for the code of a network of one's own.
        weights: the backbone's, where the file that the classifier names is gone.
        overwrite: what is there already.

    Raises:
        ClassifierError, BackboneError: the classifier cannot be used.
        ExportError: it cannot be written so, or is there already.
        ParityError: the file says something else than the classifier; it is not kept.
    """
    started = time.perf_counter()
    place = Path(file)
    if place.exists() and Path(classifier).exists() and place.samefile(classifier):
        raise ExportError(f"{place}: is the classifier itself; give another name")
    kind = format_of("classifier", place, format, SUFFIXES)
    if input not in get_args(Input):
        raise ExportError(f"input {input!r}: none of {', '.join(get_args(Input))}")
    refuse_missing(kind)
    refuse_taken(place, overwrite=overwrite)
    loaded = load_classifier(Path(classifier), backbone=backbone, weights=weights)
    named = [pictures] if isinstance(pictures, (str, os.PathLike)) else pictures
    pixels = real_pixels(loaded, [os.fspath(picture) for picture in named])
    found: list[float] = []

    def fill(draft: Path) -> None:
        _write(loaded, kind, input, draft)
        found.append(_measured(loaded, kind, input, draft, pixels))
        refuse_unlike(place, found[0], len(pixels))

    write_export(place, fill, overwrite=overwrite)
    return ClassifierExport(
        file=os.fspath(file),
        format=kind,
        bytes=place.stat().st_size,
        classes=loaded.classes,
        input=_input(loaded, input),
        output=_output(loaded),
        checked=len(pixels),
        difference=found[0],
        tolerance=TOLERANCE,
        warnings=_warnings(loaded),
        example=example_of(os.fspath(file), kind, loaded.recipe.preprocessing, input),
        seconds=time.perf_counter() - started,
    )


def _write(classifier: Classifier, kind: str, takes: Input, draft: Path) -> None:
    """Raises: ExportError, where torch cannot."""
    height, width = classifier.recipe.preprocessing.size
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    if takes == "normalised":
        example = torch.zeros((2, 3, height, width))
    try:
        GRAPHS[kind].write(Whole(classifier, takes), example, _described(classifier, takes), draft)
    except OSError:
        raise
    except Exception as error:  # exporters can fail in many ways
        raise ExportError(
            f"torch cannot write this network as {kind} ({_reason(error)}); try --format "
            f"{_others(kind)}"
        ) from error


def _measured(
    classifier: Classifier, kind: str, takes: Input, draft: Path, pixels: npt.NDArray[np.uint8]
) -> float:
    """How far what was written is from the classifier.

    Raises:
        ExportError: it does not run.
    """
    try:
        return measure(classifier, GRAPHS[kind].load(draft), pixels, takes)
    except FeatcacheError:
        raise
    except Exception as error:  # of whatever library runs it
        raise ExportError(
            f"written as {kind}, this network does not run ({_reason(error)}); it is not kept, so "
            f"try --format {_others(kind)}"
        ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _others(kind: str) -> str:
    return " or ".join(name for name in GRAPHS if name != kind)


def _described(classifier: Classifier, takes: Input) -> dict[str, Any]:
    """What a person needs to use the file, as JSON's own types."""
    content = classifier.content
    return {
        "featcache": version("featcache"),
        "classes": list(classifier.classes),
        "multi_label": content.head.multi_label,
        "input": _input(classifier, takes),
        "output": _output(classifier),
        "preprocessing": classifier.recipe.preprocessing.to_dict(),
        "backbone": content.backbone["name"],
        "recipe": classifier.recipe.key,
        "measured": content.measured,
    }


def _input(classifier: Classifier, takes: Input) -> dict[str, str | tuple[str | int, ...]]:
    height, width = classifier.recipe.preprocessing.size
    if takes == "uint8":
        return {"name": INPUT, "dtype": "uint8", "shape": ("N", height, width, 3)}
    return {"name": INPUT, "dtype": "float32", "shape": ("N", 3, height, width)}


def _output(classifier: Classifier) -> dict[str, str | tuple[str | int, ...]]:
    return {"name": OUTPUT, "dtype": "float32", "shape": ("N", len(classifier.classes))}


def _warnings(classifier: Classifier) -> tuple[str, ...]:
    recipe, found = classifier.recipe, []
    if recipe.precision != "fp32":
        found.append(f"measured in {recipe.precision}; the file computes in fp32")
    if recipe.decoder == DRAFT:
        found.append("measured with --fast-decode; the example decodes all pixels of a photo")
    return tuple(found)
