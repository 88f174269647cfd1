"""ONNX, TorchScript and torch.export's pt2: written from the module, and run from the file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from featcache.export.whole import INPUT, OUTPUT, Whole
from featcache.extras import require_extra

DESCRIPTION = "featcache.json"
"""Name of the description within a TorchScript or pt2 file."""

Run = Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]
"""Pictures to (N, K) probabilities."""


@dataclass(frozen=True)
class Graph:
    """One format.

    Attributes:
        write: a module, an example of its input (2 pictures) and the description, into a file.
        load: what runs such a file.
        needs: packages beside torch.
    """

    write: Callable[[Whole, torch.Tensor, dict[str, Any], Path], None]
    load: Callable[[Path], Run]
    needs: tuple[str, ...] = ()


def refuse_missing(name: str) -> None:
    """Refuse a format whose packages are not installed.

    Raises:
        MissingExtraError: says what to install.
    """
    require_extra(f"format {name!r}", GRAPHS[name].needs, "onnx")


def _exported(whole: Whole, example: torch.Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    return torch.export.export(whole, (example,), dynamic_shapes=({0: batch},))


def _write_onnx(
    whole: Whole, example: torch.Tensor, description: dict[str, Any], path: Path
) -> None:
    program: Any = torch.onnx.export(
        _exported(whole, example),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    for name, value in description.items():
        program.model.metadata_props[name] = json.dumps(value)
    program.save(path, external_data=False)


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pictures: session.run([OUTPUT], {INPUT: pictures})[0]


def _write_torchscript(
    whole: Whole, example: torch.Tensor, description: dict[str, Any], path: Path
) -> None:
    with torch.no_grad(), _quiet_torchscript():
        traced: Any = torch.jit.trace(whole, (example,), check_trace=False)
        torch.jit.save(traced, path, {DESCRIPTION: json.dumps(description)})


def _load_torchscript(path: Path) -> Run:
    with _quiet_torchscript():
        return _torch_run(torch.jit.load(path, map_location="cpu"))


@contextmanager
def _quiet_torchscript() -> Generator[None, None, None]:
    """TorchScript is deprecated, and tracing warns of shapes in Python; the file is checked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage] - documented
        yield


def _write_pt2(
    whole: Whole, example: torch.Tensor, description: dict[str, Any], path: Path
) -> None:
    program = _exported(whole, example)
    with path.open("xb") as file:
        torch.export.save(program, file, extra_files={DESCRIPTION: json.dumps(description)})


def _load_pt2(path: Path) -> Run:
    with path.open("rb") as file:
        return _torch_run(torch.export.load(file).module())


def _torch_run(module: Any) -> Run:
    def run(pictures: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return module(torch.from_numpy(pictures)).numpy()

    return run


GRAPHS: dict[str, Graph] = {
    "onnx": Graph(_write_onnx, _load_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torchscript": Graph(_write_torchscript, _load_torchscript),
    "pt2": Graph(_write_pt2, _load_pt2),
}
"""What a classifier can be exported as."""
