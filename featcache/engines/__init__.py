"""Engines run a stem on batches of pixels, or what goes on from it on batches of activations.

    torch       the reference, on CPU, CUDA and MPS; also compiled for long jobs on a CPU
    openvino    on a CPU, where the extra `cpu` is installed
    parity      whether another engine gives what the reference gives
    choosing    which engine a job is worth, by a short measured trial
    quantising  int8 for OpenVINO, by NNCF, where the extra `int8` is installed

One engine a file, one small protocol. An engine decides no value beyond rounding: which one ran is
provenance, not part of a key. The precision of the arithmetic does, and is part of the recipe.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from featcache.errors import EngineError
from featcache.recipe import Precision, Preprocessing

if TYPE_CHECKING:
    import torch

ENGINES = ("torch", "torch-compile", "openvino")
"""Names of the engines there are, the reference first."""

PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16", "fp16", "int8")
"""Of the forward pass's arithmetic."""

Outputs = tuple[npt.NDArray[np.float32], ...]
"""What a stem gives of one batch: (B, *shape) for each of its activations, in its order."""


class Engine(Protocol):
    """Runs a stem; used as a context, inside which its threads and precision are in force.

    Several engines that take turns are not entered: each batch is asked for within a `turn`, and
    `__exit__` ends them.
    """

    name: str
    device: str
    threads: int

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

    def turn(self) -> AbstractContextManager[object]:
        """Within it threads and precision are in force; what was begun goes on after it."""
        ...

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(B, H, W, 3) uint8 pixels, resized and cropped, to (B, *shape) activations.

        What goes on from a stem takes that stem's activations, of any stored dtype, instead.
        """
        ...

    def run_all(self, batch: npt.NDArray[Any]) -> Outputs:
        """The same for a stem that gives several activations, in its order; one gives one."""
        ...

    def run_each(self, batches: Iterable[npt.NDArray[Any]]) -> Iterator[Outputs]:
        """The same for batches of one size, in order.

        A batch may be taken before what the one before it gave is handed out, so that its making
        and its transfer overlap with the forward pass.
        """
        ...


@dataclass(frozen=True)
class Kept:
    """Where an engine may keep what it compiled, for a second start.

    Attributes:
        folder: of files that may be removed at any time; never one that came from others, since
            what is compiled is run.
        identity: names the stem and its weights.
    """

    folder: Path
    identity: str


def make_engine(
    name: str,
    stem: torch.nn.Module,
    preprocessing: Preprocessing | None,
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    kept: Kept | None = None,
    calibration: npt.NDArray[np.uint8] | None = None,
) -> Engine:
    """An engine by name ("auto" takes the reference, plain torch).

    Args:
        name: one of `ENGINES` or "auto".
        stem: the network below the cut, in eval mode.
        preprocessing: gives mean and std; resizing has happened by then. None for a module that
            takes activations, not pixels.
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:1", "mps".
        threads: CPU threads of the forward pass; None takes all cores.
        precision: of the arithmetic.
        kept: where what is compiled is kept; None keeps nothing.
        calibration: (N, H, W, 3) pixels on which the scales of "int8" are measured.

    Raises:
        EngineError: no such engine, the device is not there, or not that precision on it.
    """
    if name not in ("auto", *ENGINES):
        raise EngineError(f"engine {name!r}: unknown; there are: auto, {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise EngineError(f"precision {precision!r}: no engine has it; there are: {known}")
    if name == "openvino":
        return _openvino(stem, preprocessing, device, threads, precision, kept, calibration)
    from featcache.engines.torch import CompiledEngine, TorchEngine, resolve_device

    kind = CompiledEngine if name == "torch-compile" else TorchEngine
    return kind(stem, preprocessing, resolve_device(device), threads, precision)


def _openvino(
    stem: torch.nn.Module,
    preprocessing: Preprocessing | None,
    device: str,
    threads: int | None,
    precision: Precision,
    kept: Kept | None,
    calibration: npt.NDArray[np.uint8] | None,
) -> Engine:
    if not has_openvino():
        raise EngineError(
            "engine 'openvino' is not installed; run: pip install 'featcache[cpu]', or take "
            "--engine torch"
        )
    if device not in ("auto", "cpu") or preprocessing is None:
        what = f"on {device}" if preprocessing else "on activations"
        raise EngineError(f"engine 'openvino' does not run {what}; take --engine torch")
    from featcache.engines.openvino import OpenvinoEngine

    return OpenvinoEngine(stem, preprocessing, threads, precision, kept, calibration)


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def versions(engine: str = "torch", *, quantised: bool = False) -> dict[str, Any]:
    """Versions of the libraries that compute values with an engine, in int8 or not, by name."""
    from importlib.metadata import version

    names = ["numpy", "pillow", "timm", "torch", "torchvision"]
    if engine == "openvino" and has_openvino():
        names.insert(1, "openvino")
    if quantised:
        names.insert(0, "nncf")
    return {name: version(name) for name in names}


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
