"""Plain torch: the reference engine, on CPU, CUDA and MPS by the same code."""

from __future__ import annotations

import contextlib
import os
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

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
    """Runs a stem with torch, channels last, in float32 with TF32 off."""

    name = "torch"

    def __init__(
        self,
        stem: torch.nn.Module,
        preprocessing: Preprocessing,
        device: torch.device,
        threads: int | None = None,
    ) -> None:
        self.device = str(device)
        self.threads = threads or os.cpu_count() or 1
        self._device = device
        self._stem = stem.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)
        self._settings = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._settings.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(self.threads)
        self._settings.enter_context(torch.inference_mode())
        if self._device.type == "cuda":
            self._settings.callback(
                torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()
            )
            torch.set_float32_matmul_precision("highest")
            self._settings.enter_context(torch.backends.cudnn.flags(allow_tf32=False))
        return self

    def __exit__(self, *exception: object) -> None:
        self._settings.close()

    def run(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, H, W, 3) pixels to (B, *shape) float32 activations.

        (x / 255 - mean) / std in this order is what published transforms compute, bit for bit.
        """
        batch = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        batch = batch.float().div_(255).sub_(self._mean).div_(self._std)
        return self._stem(batch).float().cpu().numpy()
