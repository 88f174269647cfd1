"""OpenVINO on a CPU: one stream a core, each with one thread, fed part by part of a batch.

Streams of one thread have no barriers: they share the cores with decoding threads without waiting
for one another. Normalisation is part of the compiled model, which takes uint8 pixels.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import os
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from openvino.preprocess import PrePostProcessor

from featcache.backbones.threads import one_thread_if_light
from featcache.engines import Kept, Outputs, available_cores, versions
from featcache.engines.quantising import quantised
from featcache.errors import EngineError
from featcache.recipe import Precision, Preprocessing

PART = 4
"""Pictures a request: few enough that all streams have work in every batch."""

_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""What is not in 8 bits of an int8 network is in float32."""

_MOST_KEPT = 8
_DIGEST = 32  # bytes of sha256 in front of what is kept


class OpenvinoEngine:
    """Runs a stem by OpenVINO; float32 is asked for by name, since newer CPUs default to less.

    Args:
        stem: the network below the cut, in eval mode.
        preprocessing: gives the input's size, mean and std.
        threads: streams; None takes a stream a core.
        precision: "fp32", "bf16", "fp16" or "int8".
        kept: where the compiled model is kept.
        calibration: (N, H, W, 3) uint8 pixels on which the scales of "int8" are measured.

    Raises:
        EngineError: OpenVINO cannot run the network, or not at that precision.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        stem: torch.nn.Module,
        preprocessing: Preprocessing,
        threads: int | None = None,
        precision: Precision = "fp32",
        kept: Kept | None = None,
        calibration: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self.threads = threads or available_cores()
        if precision not in _PRECISIONS:
            known = ", ".join(_PRECISIONS)
            raise EngineError(
                f"precision {precision!r}: engine 'openvino' has {known}; take --engine torch"
            )
        if (precision == "int8") != (calibration is not None):
            raise EngineError(
                "precision 'int8' runs where its pictures of calibration are, in a cache; "
                "extract in fp32 for what is to run elsewhere"
            )
        self._calibration = calibration
        self._core = openvino.Core()
        self._config = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": self.threads,
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        }
        try:
            compiled = self._made(stem, preprocessing, kept)
        except EngineError:
            raise
        except Exception as error:  # tracing and conversion can raise anything
            raise EngineError(
                f"OpenVINO cannot run this network ({_first_line(error)}); take --engine torch"
            ) from error
        _refuse_other_precision(compiled, precision)
        self._requests = [compiled.create_infer_request() for _ in range(2 * self.threads)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for request in self._requests:
            with contextlib.suppress(RuntimeError):  # of a batch that nobody asks for any more
                request.wait()

    def turn(self) -> contextlib.AbstractContextManager[object]:
        """Nothing of the process is set: threads and precision are the compiled model's."""
        return contextlib.nullcontext()

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(B, H, W, 3) pixels to (B, *shape) float32 activations."""
        (activations,) = self.run_all(batch)
        return activations

    def run_all(self, batch: npt.NDArray[Any]) -> Outputs:
        """(B, H, W, 3) pixels to (B, *shape) float32 for each activation the stem gives."""
        (outputs,) = self.run_each([batch])
        return outputs

    def run_each(self, batches: Iterable[npt.NDArray[Any]]) -> Iterator[Outputs]:
        """The same for many batches, in order; requests of the next run beside those of the last.

        Raises:
            EngineError: OpenVINO failed on a batch.
        """
        return _Flight(self._requests).carried(batches)

    def _made(
        self, stem: torch.nn.Module, preprocessing: Preprocessing, kept: Kept | None
    ) -> openvino.CompiledModel:
        """The compiled model: the kept one, or a new one, which is kept."""
        if kept is None:
            return self._compile(stem, preprocessing)
        path = self._place(kept)
        compiled = self._read(path)
        if compiled is None:
            compiled = self._compile(stem, preprocessing)
            _keep(path, compiled)
        return compiled

    def _compile(
        self, stem: torch.nn.Module, preprocessing: Preprocessing
    ) -> openvino.CompiledModel:
        model = _converted(stem, preprocessing)
        if self._calibration is not None:
            attends = any(isinstance(m, torch.nn.LayerNorm) for m in stem.modules())
            model = quantised(model, self._calibration, PART, attends=attends)
        return self._core.compile_model(model, "CPU", self._config)

    def _place(self, kept: Kept) -> Path:
        """The file of what is compiled for this machine by this version."""
        machine = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        libraries = versions(self.name, quantised=self._calibration is not None)
        decisive = (kept.identity, libraries, machine, PART)
        text = repr((decisive, sorted(self._config.items())))
        return kept.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.openvino"

    def _read(self, path: Path) -> openvino.CompiledModel | None:
        """What is kept; None where there is nothing, or where it is damaged."""
        with contextlib.suppress(OSError, RuntimeError):
            content = path.read_bytes()
            blob = content[_DIGEST:]
            if hashlib.sha256(blob).digest() == content[:_DIGEST]:
                return self._core.import_model(io.BytesIO(blob), "CPU", self._config)
        return None


class _Flight:
    """Parts of batches in requests, started in order and landed in order."""

    def __init__(self, requests: list[openvino.InferRequest]) -> None:
        self._requests, self._idle = requests, deque(requests)
        self._flying = deque[tuple[openvino.InferRequest, slice, list[np.ndarray]]]()
        self._begun = deque[tuple[list[np.ndarray], int]]()

    def carried(self, batches: Iterable[npt.NDArray[Any]]) -> Iterator[Outputs]:
        """What is given of each batch, in order."""
        for batch in batches:
            outputs: list[np.ndarray] = []
            self._begun.append((outputs, len(batch)))
            for start in range(0, len(batch), PART):
                if not self._idle:
                    self._land()
                self._start(batch[start : start + PART], slice(start, start + PART), outputs)
            ahead = -(-len(self._requests) * PART // len(batch))
            yield from self._complete(leave=max(1, ahead))
        yield from self._complete(leave=0)

    def _start(self, part: npt.NDArray[Any], rows: slice, outputs: list[np.ndarray]) -> None:
        if len(part) < PART:
            missing = np.zeros((PART - len(part), *part.shape[1:]), part.dtype)
            part = np.concatenate([part, missing])
        request = self._idle.popleft()
        with _naming():
            request.start_async({0: part})
        self._flying.append((request, rows, outputs))

    def _land(self) -> None:
        """Wait for the part that was started first, and put its rows where they belong."""
        request, rows, outputs = self._flying.popleft()
        with _naming():
            request.wait()
        given = [tensor.data for tensor in request.output_tensors]
        if not outputs:
            (count,) = (n for begun, n in self._begun if begun is outputs)
            outputs += (np.empty((count, *data.shape[1:]), np.float32) for data in given)
        for whole, data in zip(outputs, given, strict=True):
            here = whole[rows]
            here[:] = data[: len(here)]
        self._idle.append(request)

    def _complete(self, leave: int) -> Iterator[Outputs]:
        """Land batches until so many are in flight."""
        while len(self._begun) > leave:
            outputs = self._begun[0][0]
            while any(flown is outputs for _, _, flown in self._flying):
                self._land()
            self._begun.popleft()
            yield tuple(outputs)


def _converted(stem: torch.nn.Module, preprocessing: Preprocessing) -> openvino.Model:
    """(PART, H, W, 3) uint8 to what the stem gives, with normalisation inside.

    The front end is called directly: `openvino.convert_model` reports every use to its makers.
    torch would trace twice and compare, which takes longest of all; results are compared anyway.
    """
    height, width = preprocessing.size
    example = torch.zeros(PART, 3, height, width)
    if any(p.device.type != "cpu" or p.requires_grad for p in stem.parameters()):
        stem = copy.deepcopy(stem).cpu()  # another engine runs it where it is
        stem.requires_grad_(requires_grad=False)
    with warnings.catch_warnings(), torch.no_grad(), one_thread_if_light(stem):
        warnings.simplefilter("ignore")  # tracing warns of what is constant at one size
        decoder = TorchScriptPythonDecoder(
            _as_a_whole(stem), example_input=example, trace_kwargs={"check_trace": False}
        )
        try:
            front_end = FrontEndManager().load_by_framework("pytorch")
            model = front_end.convert(front_end.load(decoder))
        finally:
            _let_go(decoder.pt_module)
    model.reshape([PART, 3, height, width])
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    scaled = steps.input().preprocess().convert_element_type(openvino.Type.f32)
    scaled.mean([255 * value for value in preprocessing.mean])
    scaled.scale([255 * value for value in preprocessing.std])
    return steps.build()


def _as_a_whole(stem: torch.nn.Module) -> torch.nn.Module:
    """What of a stem is traced: the stem itself, where torch must see scripts that it has."""
    scripted = any(isinstance(module, torch.jit.ScriptModule) for module in stem.modules())
    return stem if scripted else _Whole(stem)


class _Whole(torch.nn.Module):
    """A network of which torch sees no modules; it would make a script of each, to trace them.

    Its weights, which must not require gradients, are constants of what is traced.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, images: torch.Tensor) -> Any:
        """What the network gives."""
        (network,) = self._network
        return network(images)


def _let_go(traced: Any) -> None:
    """Take the weights out of a trace, which torch keeps for as long as the process lives."""
    for node in traced.graph.findAllNodes("prim::Constant"):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            node.t_("value", torch.empty(0))


def _keep(path: Path, compiled: openvino.CompiledModel) -> None:
    """Write what was compiled beside the others, of which the oldest go."""
    temporary = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError, RuntimeError):  # a second start is slower then, nothing else
        blob = compiled.export_model()
        content = blob if isinstance(blob, bytes) else blob.getbuffer()
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        temporary.replace(path)
        there = sorted(path.parent.glob("*.openvino"), key=lambda kept: kept.stat().st_mtime)
        for old in there[:-_MOST_KEPT]:
            old.unlink()


def _refuse_other_precision(compiled: openvino.CompiledModel, precision: Precision) -> None:
    """OpenVINO takes fp32 without a word where a processor lacks what was asked for."""
    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if used != _PRECISIONS[precision]:
        raise EngineError(
            f"precision {precision!r}: OpenVINO would compute in {used} on this processor; take "
            "--precision fp32, or --engine torch"
        )


@contextlib.contextmanager
def _naming() -> Generator[None, None, None]:
    try:
        yield
    except RuntimeError as error:
        raise EngineError(f"OpenVINO failed ({_first_line(error)}); take --engine torch") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
