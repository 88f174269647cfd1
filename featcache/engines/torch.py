"""Plain torch: the reference engine, on CPU, CUDA and MPS by the same code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from featcache.engines import available_cores
from featcache.errors import EngineError
from featcache.recipe import Preprocessing


def resolve_device(device: str) -> torch.device:
    """The device of a name; "auto" is CUDA, then MPS, then CPU.

    Raises:
        EngineError: unknown, or not on this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise EngineError(
            f"device {device!r}: unknown; try auto, cpu, cuda, cuda:1 or mps"
        ) from error
    there = {
        "cpu": True,
        "cuda": (resolved.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(resolved.type, False):
        raise EngineError(f"device {device!r} is not on this machine; --device auto takes what is")
    return resolved


class TorchEngine:
    """Runs a stem, or what goes on from one, with torch in float32 with TF32 off."""

    name = "torch"

    def __init__(
        self,
        stem: torch.nn.Module,
        preprocessing: Preprocessing | None,
        device: torch.device,
        threads: int | None = None,
    ) -> None:
        self.device = str(device)
        self.threads = threads or available_cores()
        self._device = device
        self._stem = stem.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        self._scale = means_and_deviations(preprocessing, device) if preprocessing else None
        self._settings = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._settings.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(self.threads)
        self._settings.enter_context(torch.inference_mode())
        self._settings.enter_context(full_precision())
        self._settings.enter_context(torch.autocast(self._device.type, enabled=False))
        return self

    def __exit__(self, *exception: object) -> None:
        self._settings.close()

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(B, H, W, 3) pixels to (B, *shape) float32 activations; raises as `run_all` does."""
        (activations,) = self.run_all(batch)
        return activations

    def run_all(self, batch: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], ...]:
        """(B, H, W, 3) pixels to (B, *shape) float32 for each activation the stem gives.

        Raises:
            EngineError: the batch does not fit the device's memory.
        """
        try:
            given = self._stem(self._prepared(torch.from_numpy(batch).to(self._device)))
            several = given if isinstance(given, tuple) else (given,)
            return tuple(activation.float().cpu().numpy() for activation in several)
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"{self.device}: a batch of {len(batch)} pictures does not fit its memory; "
                "give a smaller --batch-size, or --device cpu"
            ) from error

    def _prepared(self, batch: torch.Tensor) -> torch.Tensor:
        """What the stem takes: normalised pixels, or activations as they are."""
        return batch.float() if self._scale is None else normalised(batch, *self._scale)


def means_and_deviations(
    preprocessing: Preprocessing, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """What pixels are normalised by, each (1, 3, 1, 1)."""
    mean, deviation = (
        torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    return mean, deviation


def normalised(pixels: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32, channels last in memory.

    (x / 255 - mean) / std in this order is what published transforms compute, bit for bit.
    """
    return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(deviation)


@contextlib.contextmanager
def full_precision() -> Generator[None, None, None]:
    """Float32 arithmetic in all its bits, whatever was set before; restored afterwards.

    It matters on CPUs too: what is set for CUDA's matrix products becomes bfloat16 in oneDNN's.
    """
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    per_operation: list[Any] = []
    if hasattr(torch.backends, "fp32_precision"):  # since torch 2.9, over the general settings
        per_operation = [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]  # type: ignore[attr-defined]
    general: list[tuple[Callable[[], Any], Callable[[Any], None], Any]] = [
        (partial(getattr, cudnn, name), partial(setattr, cudnn, name), value)
        for name, value in (("benchmark", False), ("deterministic", True), ("allow_tf32", False))
    ]
    general.append(
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")
    )
    with contextlib.ExitStack() as before:
        for operation in per_operation:  # restored last, since the general settings reach into them
            before.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
        for read, write, value in general:
            with contextlib.suppress(RuntimeError):  # torch names no general value for a mix
                before.callback(write, read())
                write(value)
        for operation in per_operation:
            operation.fp32_precision = "ieee"
        yield
