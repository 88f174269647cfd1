"""Engines run a stem on batches of pixels, or what goes on from it on batches of activations.

One engine a file, one small protocol. An engine decides no value beyond rounding: which one ran is
provenance, not part of a key.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from featcache.errors import EngineError
from featcache.recipe import Preprocessing

if TYPE_CHECKING:
    import torch

ENGINES = ("torch",)
"""Names of the engines there are, the reference first."""


class Engine(Protocol):
    """Runs a stem; used as a context, inside which its threads and precision are in force."""

    name: str
    device: str
    threads: int

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(B, H, W, 3) uint8 pixels, resized and cropped, to (B, *shape) activations.

        What goes on from a stem takes that stem's activations, of any stored dtype, instead.
        """
        ...

    def run_all(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], ...]:
        """The same for a stem that gives several activations, in its order; one gives one."""
        ...


def make_engine(
    name: str,
    stem: torch.nn.Module,
    preprocessing: Preprocessing | None,
    *,
    device: str = "auto",
    threads: int | None = None,
) -> Engine:
    """An engine by name ("auto" takes the reference, plain torch).

    Args:
        name: one of `ENGINES` or "auto".
        stem: the network below the cut, in eval mode.
        preprocessing: gives mean and std; resizing has happened by then. None for a module that
            takes activations, not pixels.
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:1", "mps".
        threads: CPU threads of the forward pass; None takes all cores.

    Raises:
        EngineError: no such engine, or the device is not there.
    """
    if name not in ("auto", *ENGINES):
        raise EngineError(f"engine {name!r}: unknown; there are: auto, {', '.join(ENGINES)}")
    from featcache.engines.torch import TorchEngine, resolve_device

    return TorchEngine(stem, preprocessing, resolve_device(device), threads)


def versions() -> dict[str, Any]:
    """Versions of the libraries that compute values, by name."""
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "pillow", "timm", "torch", "torchvision")}


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
