"""Plain torch: the reference engine, on CPU, CUDA and MPS by the same code."""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from featcache.engines import Outputs, available_cores
from featcache.engines.memory import kept_memory
from featcache.errors import EngineError
from featcache.recipe import Precision, Preprocessing

Stem = Callable[[torch.Tensor], Any]

_Begun = tuple[list[torch.Tensor], torch.cuda.Event | None]
"""Activations on their way to the host, and what to wait for; None where they are there."""

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    """Runs a stem, or what goes on from one, with torch.

    Args:
        stem: the network below the cut, in eval mode.
        preprocessing: gives mean and std; None for a module that takes activations.
        device: where it runs.
        threads: CPU threads of the forward pass; None takes all cores, or one where something else
            computes: threads that wait for more to copy would keep cores from decoding.
        precision: "fp32" with TF32 off, "tf32" (CUDA), "bf16" or "fp16" by autocast.

    Raises:
        EngineError: not that precision on this device.
    """

    name = "torch"

    def __init__(
        self,
        stem: torch.nn.Module,
        preprocessing: Preprocessing | None,
        device: torch.device,
        threads: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        _refuse_precision(precision, device)
        self.device = str(device)
        self.threads = threads or (available_cores() if device.type == "cpu" else 1)
        self._device, self._precision = device, precision
        own = (
            stem if device.type == "cpu" else copy.deepcopy(stem)
        )  # the caller's stays where it is
        self._layout = _layout(device, precision)
        placed: torch.nn.Module = own.to(device).to(memory_format=self._layout)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        self._stem = self._ready(placed)
        self._scale = means_and_deviations(preprocessing, device) if preprocessing else None
        self._settings = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as settings:
            if self._device.type == "cpu":
                settings.enter_context(kept_memory())
            settings.enter_context(self.turn())
            self._settings = settings.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._settings.close()

    @contextlib.contextmanager
    def turn(self) -> Generator[None, None, None]:
        """Within it threads and precision are in force; restored afterwards."""
        with contextlib.ExitStack() as settings:
            settings.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(self.threads)
            settings.enter_context(torch.inference_mode())
            settings.enter_context(full_precision(tf32=self._precision == "tf32"))
            settings.enter_context(_autocast(self._device, _AUTOCAST.get(self._precision)))
            yield

    def _ready(self, stem: torch.nn.Module) -> Stem:
        """What runs the batches of a stem that is on its device."""
        return stem

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(B, H, W, 3) pixels to (B, *shape) float32 activations; raises as `run_all` does."""
        (activations,) = self.run_all(batch)
        return activations

    def run_all(self, batch: npt.NDArray[Any]) -> Outputs:
        """(B, H, W, 3) pixels to (B, *shape) float32 for each activation the stem gives.

        Raises:
            EngineError: the batch does not fit the device's memory.
        """
        return self._finished(self._started(batch))

    def run_each(self, batches: Iterable[npt.NDArray[Any]]) -> Iterator[Outputs]:
        """The same for many batches, in order; on CUDA one is made while another is computed.

        Raises:
            EngineError: a batch does not fit the device's memory.
        """
        begun = deque[_Begun]()
        for batch in batches:
            begun.append(self._started(batch))
            if len(begun) > (self._device.type == "cuda"):
                yield self._finished(begun.popleft())
        while begun:
            yield self._finished(begun.popleft())

    def _started(self, batch: npt.NDArray[Any]) -> _Begun:
        """Ask for a batch; on CUDA nothing waits for it yet."""
        try:
            given = self._stem(self._prepared(self._sent(torch.from_numpy(batch))))
            several = given if isinstance(given, tuple) else (given,)
            return self._fetched([activation.float() for activation in several])
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"{self.device}: a batch of {len(batch)} pictures does not fit its memory; "
                "give a smaller --batch-size, or --device cpu"
            ) from error

    def _sent(self, batch: torch.Tensor) -> torch.Tensor:
        """On the device; from pinned memory the copy waits for nothing."""
        if self._device.type == "cuda":
            return batch.pin_memory().to(self._device, non_blocking=True)
        return batch.to(self._device)

    def _fetched(self, activations: list[torch.Tensor]) -> _Begun:
        """Copies to the host, and what to wait for before they are read."""
        if self._device.type != "cuda":
            return [activation.cpu() for activation in activations], None
        pinned = [torch.empty(a.shape, dtype=a.dtype, pin_memory=True) for a in activations]
        for host, activation in zip(pinned, activations, strict=True):
            host.copy_(activation, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(self._device))
        return pinned, copied

    def _finished(self, begun: _Begun) -> Outputs:
        activations, copied = begun
        if copied is not None:
            copied.synchronize()
        return tuple(activation.numpy() for activation in activations)

    def _prepared(self, batch: torch.Tensor) -> torch.Tensor:
        """What the stem takes: normalised pixels, or activations as they are."""
        if self._scale is None:
            return batch.float()
        return normalised(batch, *self._scale).contiguous(memory_format=self._layout)


class CompiledEngine(TorchEngine):
    """The same, compiled for one size of batch; a minute or more before the first one."""

    name = "torch-compile"

    def _ready(self, stem: torch.nn.Module) -> Stem:
        frozen: dict[str, str | int | bool | Callable[..., Any]] = {"freezing": True}
        compiled = torch.compile(stem, dynamic=False, options=frozen)

        def run(batch: torch.Tensor) -> Any:
            try:
                return compiled(batch)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # compiling, at the first batch, can fail in many ways
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                raise EngineError(
                    f"torch cannot compile this network ({reason}); take --engine torch"
                ) from error

        return run


def _layout(device: torch.device, precision: Precision) -> torch.memory_format:
    """Channels last, but for float32 on CUDA.

    There, on an H100, channels last took seconds longer to begin with depthwise convolutions, and a
    sixth longer for each batch of ResNet-50.
    """
    first = device.type == "cuda" and precision == "fp32"
    return torch.contiguous_format if first else torch.channels_last


def _refuse_precision(precision: Precision, device: torch.device) -> None:
    if precision == "int8":
        raise EngineError("precision 'int8' is OpenVINO's; take --engine openvino, or fp32")
    if precision == "tf32" and device.type != "cuda":
        raise EngineError(
            f"precision 'tf32' is CUDA's, and this is {device}; use a CUDA device, or extract in "
            "fp32"
        )


def _autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    try:
        return torch.autocast(device.type, dtype, enabled=dtype is not None)
    except RuntimeError as error:
        raise EngineError(f"{device} does not compute in {dtype}; extract in fp32") from error


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
def full_precision(*, tf32: bool = False) -> Generator[None, None, None]:
    """Float32 arithmetic in all its bits, whatever was set before; restored afterwards.

    It matters on CPUs too: what is set for CUDA's matrix products becomes bfloat16 in oneDNN's.

    Args:
        tf32: CUDA's products and convolutions may take TF32.
    """
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    per_operation: list[Any] = []
    if hasattr(torch.backends, "fp32_precision"):  # since torch 2.9, over the general settings
        per_operation = [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]  # type: ignore[attr-defined]
    general: list[tuple[Callable[[], Any], Callable[[Any], None], Any]] = [
        (partial(getattr, cudnn, name), partial(setattr, cudnn, name), value)
        for name, value in (("benchmark", False), ("deterministic", True), ("allow_tf32", tf32))
    ]
    general.append(
        (
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
            "high" if tf32 else "highest",
        )
    )
    with contextlib.ExitStack() as before:
        for operation in per_operation:  # restored last, since the general settings reach into them
            before.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
        for read, write, value in general:
            with contextlib.suppress(RuntimeError):  # torch names no general value for a mix
                before.callback(write, read())
                write(value)
        for operation in per_operation:
            on_cuda = operation not in (mkldnn.matmul, mkldnn.conv, mkldnn.rnn)
            operation.fp32_precision = "tf32" if tf32 and on_cuda else "ieee"
        yield
