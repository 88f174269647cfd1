"""Compiled by torch: the same features, from batches of one size."""

from __future__ import annotations

import numpy as np
import pytest

from featcache.backbones.registry import Backbone
from featcache.engines import make_engine
from featcache.engines.choosing import _can_compile
from featcache.engines.parity import relative_differences
from featcache.errors import EngineError


@pytest.mark.slow
@pytest.mark.skipif(
    not _can_compile(), reason="torch-compile needs g++ or clang++, which this machine has not"
)
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own parts
def test_features_are_torchs_and_no_batch_compiles_again(
    backbone: Backbone, pixels: np.ndarray
) -> None:
    import torch

    batches = [pixels, pixels[::-1].copy(), np.zeros_like(pixels)]
    runs = []
    torch._dynamo.utils.counters.clear()
    for name in ("torch", "torch-compile"):
        engine = make_engine(name, backbone.stem, backbone.preprocessing, device="cpu", threads=2)
        with engine:
            runs.append([rows for (rows,) in engine.run_each(batches)])
    for ours, theirs in zip(*runs, strict=True):
        assert relative_differences(theirs, ours).max() < 1e-5
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own parts
def test_a_network_that_cannot_be_compiled_says_so(backbone: Backbone, pixels: np.ndarray) -> None:
    import torch

    class Broken(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.linalg.cholesky(batch, no_such_option=True)

    engine = make_engine("torch-compile", Broken(), backbone.preprocessing, device="cpu")
    with (
        engine,
        pytest.raises(
            EngineError, match=r"torch cannot compile this network \(.*\); take --engine torch"
        ),
    ):
        engine.run(pixels)
