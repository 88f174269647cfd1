"""How a result is had again, as command lines: what was asked, and what the cache was made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.api.kept_results import KeptResult
from featcache.naming import command_line
from featcache.recipe import DRAFT, PENULTIMATE

_ALL = "all"

_OPTIONS = {
    "head": "--head",
    "hidden": "--hidden",
    "dropout": "--dropout",
    "protocol": "--protocol",
    "cut": "--cut",
    "views": "--views",
    "augment": "--augment",
    "augment_seed": "--augment-seed",
    "tta": "--tta",
    "shots": "--shots",
    "seeds": "--seeds",
    "suspects": "--suspects",
    "against": "--against",
    "init_from_source": "--init-from-source",
    "unfreeze": "--unfreeze",
    "margin": "--margin",
    "folds": "--cv",
    "seed": "--seed",
    "standardize": "--standardize",
    "tolerance": "--tol",
    "class_weight": "--class-weight",
    "label_smoothing": "--label-smoothing",
    "backbone": "--backbone",
}
"""Of `featcache probe`, by field of the request."""

_TRAINING_OPTIONS = {
    "epochs": "--epochs",
    "rates": "--rates",
    "optimizer": "--optimizer",
    "schedule": "--schedule",
    "batch_size": "--batch-size",
    "head_factor": "--head-lr-factor",
    "solved_start": "--no-lp-init",
    "mixup": "--mixup",
    "cutmix": "--cutmix",
    "batchnorm_moves": "--batchnorm-moves",
    "seeds": "--training-seeds",
    "data_sizes": "--data-sizes",
    "live": "--live",
    "image_sizes": "--image-size",
    "compare_scratch": "--compare-scratch",
}
"""Of its training options."""


@dataclass(frozen=True)
class Reproduction:
    """What to run.

    Attributes:
        commands: for a shell, in order.
        python: the probe in Python, where no command line can ask for it; else "".
        notes: what else it takes.
    """

    commands: tuple[str, ...]
    python: str
    notes: tuple[str, ...]


def reproduction(kept: KeptResult) -> Reproduction:
    """How to have a kept result again."""
    extract, notes = _extraction(kept)
    options, cache = kept.result.asked, kept.result.cache
    commands, python = [command_line(*extract)], ""
    try:
        commands.append(probe_command(cache, options))
    except KeyError as error:
        python = _python(cache, options)
        notes = (*notes, f"{error.args[0]} is an option of Python's only.")
    commands.append(command_line("featcache", "report", Path(cache)))
    return Reproduction(tuple(commands), python, notes)


def probe_command(cache: str, options: Mapping[str, Any]) -> str:
    """The command line of a probe.

    Args:
        cache: its folder.
        options: `ProbeResult.asked`.

    Raises:
        KeyError: names an option that the command line has not.
    """
    words: list[str | Path] = ["featcache", "probe", Path(cache)]
    training = dict(options.get("training", {}))
    smoothing = training.pop("label_smoothing", 0.0)
    if smoothing != options.get("label_smoothing", 0.0):  # the command line has one for both
        raise KeyError("training.label_smoothing")
    for name, value in options.items():
        if name != "training":
            words += _option(_OPTIONS[name], value)
    for name, value in training.items():
        if name not in _TRAINING_OPTIONS:
            raise KeyError(f"training.{name}")
        words += _option(_TRAINING_OPTIONS[name], value)
    return command_line(*words)


def _option(option: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option]  # given where it is not what it is unless given
    if isinstance(value, Mapping):
        return [word for label, number in value.items() for word in (option, f"{label}={number}")]
    if isinstance(value, list):
        return [option, ",".join(map(_listed, value))]
    return [option, str(value)]


def _listed(value: Any) -> str:
    """One of several: a number, all, or a side and its epochs."""
    if value is None:
        return _ALL
    return ":".join(map(str, value)) if isinstance(value, list) else str(value)


def _python(cache: str, options: Mapping[str, Any]) -> str:
    arguments = [f"{name}={value!r}" for name, value in options.items() if name != "training"]
    training = ", ".join(f"{name}={_tupled(v)!r}" for name, v in options["training"].items())
    arguments.append(f"training=fc.TrainingOptions({training})")
    return f"import featcache as fc\nfc.probe({cache!r}, {', '.join(arguments)})"


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def _extraction(kept: KeptResult) -> tuple[list[str | Path], tuple[str, ...]]:
    """The words of the extraction, and what cannot be said in them."""
    manifest, result = kept.cache.manifest, kept.result
    recipe, backbone = manifest.recipe, manifest.backbone
    data = Path(manifest.source["location"])
    words: list[str | Path] = ["featcache", "extract", data, "--backbone", backbone["name"]]
    words += _weights(backbone["locator"])
    height, width = recipe.preprocessing.size
    notes = [f"--preprocessing FILE with the fields below gives {height} x {width} pixels anyhow."]
    if height == width:
        words += ["--image-size", str(height)]
        notes = []
    if recipe.precision != "fp32":
        words += ["--precision", recipe.precision]
    if recipe.decoder == DRAFT:
        words += ["--fast-decode"]
    words += [*_cuts(kept), *_views(kept), "--out", result.cache]
    if backbone["locator"].get("kind") == "given":
        notes.append("The weights were given as tensors in Python.")
    return words, tuple(notes)


def _weights(locator: Mapping[str, Any]) -> list[str]:
    match dict(locator):
        case {"kind": "file", "path": path}:
            return ["--weights", str(path)]
        case {"kind": "random", "seed": seed}:
            return ["--weights", f"random:{seed}"]
        case _:
            return []


def _cuts(kept: KeptResult) -> Iterator[str]:
    cuts = dict.fromkeys((kept.result.cut, *(layer.cut for layer in kept.result.layers)))
    inner = [cut for cut in cuts if cut != PENULTIMATE]
    for cut in inner:
        yield from ("--cut", cut)
    if inner:
        yield from ("--pool", kept.cache.stream(inner[0]).entry.stream.pooling)


def _views(kept: KeptResult) -> Iterator[str]:
    """The views that trained, and the crops that were predicted."""
    for made in kept.result.views[:1]:
        yield from ("--views", str(made.count + 1), "--augment", made.policy)
        if made.seed:
            yield from ("--augment-seed", str(made.seed))
    if kept.result.tta is not None:
        yield from ("--tta", str(kept.result.tta.crops))
