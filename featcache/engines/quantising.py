"""int8 for OpenVINO: weights and activations in 8 bits, by NNCF's post-training quantisation.

Scales of activations are those of some pictures, so these are part of the recipe. One bit of the
weights stays unused (`OverflowFix.ENABLE`): products of full 8 bits overflow on processors
without VNNI, which would make values hang on the machine.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import os
from collections.abc import Generator
from types import ModuleType

import numpy as np
import numpy.typing as npt
import openvino

from featcache.errors import EngineError

_NEEDED = "precision 'int8' needs NNCF; run: pip install 'featcache[int8]', or extract in fp32"
_CHATTY = "torch.utils.cpp_extension"  # warns of a missing CUDA when it is imported


def quantised(
    model: openvino.Model, pixels: npt.NDArray[np.uint8], part: int, *, attends: bool
) -> openvino.Model:
    """A model with its scales measured on some pictures.

    Args:
        model: (part, H, W, 3) uint8 to activations.
        pixels: (N, H, W, 3) uint8, N >= 1; the last part is filled up from the first pictures.
        part: pictures a run of the model.
        attends: whether the network is made of attention, whose scales NNCF measures otherwise.

    Raises:
        EngineError: NNCF is not installed.
    """
    if importlib.util.find_spec("nncf") is None:
        raise EngineError(_NEEDED)
    count = -(-len(pixels) // part)
    filled = pixels[np.arange(count * part) % len(pixels)].reshape(count, part, *pixels.shape[1:])
    with _quiet():
        nncf = _imported()
        return nncf.quantize(
            model,
            nncf.Dataset(list(filled)),
            subset_size=count,
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE
            ),
        )


def _imported() -> ModuleType:
    """NNCF, which reports its uses to its makers unless this is set when it is imported."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        return importlib.import_module("nncf")
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """NNCF prints progress to standard output, where a command's JSON belongs."""
    logger = logging.getLogger(_CHATTY)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
