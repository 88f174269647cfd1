"""Engines give what the network gives, and leave every setting as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from featcache.backbones.registry import Backbone, load_backbone
from featcache.engines import available_cores, make_engine, versions
from featcache.errors import EngineError


def engine_of(backbone: Backbone, **options: Any):
    return make_engine("auto", backbone.stem, backbone.preprocessing, **options)


def settings() -> dict[str, Any]:
    backends = torch.backends
    found = {
        "threads": torch.get_num_threads(),
        "inference": torch.is_inference_mode_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "benchmark": backends.cudnn.benchmark,
        "deterministic": backends.cudnn.deterministic,
        "cudnn": backends.cudnn.enabled,
        "autocast": torch.is_autocast_enabled("cpu"),
    }
    if hasattr(backends, "fp32_precision"):
        for name in ("cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv"):
            library, operation = name.split(".")
            found[name] = getattr(getattr(backends, library), operation).fp32_precision
    return found


@pytest.fixture
def own_settings() -> Iterator[dict[str, Any]]:
    """Settings that a person made, none of which a feature may depend on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", torch.bfloat16):
        yield settings()
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(threads)


def test_features_are_the_networks(backbone: Backbone, pixels: np.ndarray) -> None:
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.inference_mode():
        expected = backbone.stem(batch).numpy()
    with engine_of(backbone) as engine:
        features = engine.run(pixels)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


def test_no_setting_of_the_callers_reaches_a_feature_or_is_lost(
    backbone: Backbone, pixels: np.ndarray, own_settings: dict[str, Any]
) -> None:
    with torch.autocast("cpu", enabled=False), engine_of(backbone, threads=2) as engine:
        expected = engine.run(pixels)
    with engine_of(backbone, threads=2) as engine:
        inside = settings()
        features = engine.run(pixels)
    assert np.array_equal(features, expected)
    assert (inside["threads"], inside["inference"], inside["autocast"]) == (2, True, False)
    assert (inside["matmul"], inside["deterministic"]) == ("highest", True)
    assert inside["cudnn"] == own_settings["cudnn"]
    assert all(inside[name] == "ieee" for name in inside if "." in name)
    assert settings() == own_settings


def test_settings_are_restored_after_an_error(backbone: Backbone) -> None:
    before = settings()
    with pytest.raises(ZeroDivisionError), engine_of(backbone, threads=1):
        _ = 1 / 0
    assert settings() == before


def test_an_engine_can_be_entered_again(backbone: Backbone, pixels: np.ndarray) -> None:
    engine, before = engine_of(backbone, threads=1), settings()
    runs = []
    for _ in range(2):
        with engine:
            runs.append(engine.run(pixels))
    assert np.array_equal(*runs)
    assert settings() == before


def test_a_default_dtype_reaches_no_feature(backbone: Backbone, pixels: np.ndarray) -> None:
    with engine_of(backbone) as engine:
        expected = engine.run(pixels)
    torch.set_default_dtype(torch.float64)
    try:
        with engine_of(backbone) as engine:
            features = engine.run(pixels)
    finally:
        torch.set_default_dtype(torch.float32)
    assert features.dtype == np.float32
    assert np.array_equal(features, expected)


def test_threads_are_those_asked_for_or_all(backbone: Backbone) -> None:
    assert engine_of(backbone, threads=3).threads == 3
    assert engine_of(backbone).threads == available_cores() >= 1


def test_unknown_names_are_refused_and_the_known_ones_told(backbone: Backbone) -> None:
    with pytest.raises(EngineError, match="engine 'tpu': unknown; there are: auto, torch"):
        make_engine("tpu", backbone.stem, backbone.preprocessing)
    with pytest.raises(EngineError, match="device 'fast': unknown; try auto, cpu, cuda"):
        engine_of(backbone, device="fast")
    with pytest.raises(EngineError, match="device 'cuda:99' is not on this machine"):
        engine_of(backbone, device="cuda:99")
    with pytest.raises(EngineError, match="device 'meta' is not on this machine"):
        engine_of(backbone, device="meta")


def test_a_batch_too_large_for_the_device_says_what_to_do(backbone: Backbone) -> None:
    class Large(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with (
        make_engine("torch", Large(), backbone.preprocessing, device="cpu") as engine,
        pytest.raises(EngineError, match=r"cpu: a batch of 2 pictures.*smaller --batch-size"),
    ):
        engine.run(np.zeros((2, 32, 32, 3), np.uint8))


def test_versions_name_what_computes() -> None:
    found = versions()
    assert set(found) == {"numpy", "pillow", "timm", "torch", "torchvision"}
    assert found["numpy"] == np.__version__


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cuda_gives_the_cpus_features(pixels: np.ndarray) -> None:
    for name in ("timm/test_resnet", "timm/test_vit", "resnet18"):
        rows = []
        for device in ("cpu", "cuda"):
            backbone = load_backbone(name, weights="random")
            size = backbone.preprocessing.size
            batch = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
            with engine_of(backbone, device=device) as engine:
                assert torch.backends.cudnn.enabled
                rows.append(engine.run(batch))
        cpu, cuda = rows
        distance = np.linalg.norm(cuda - cpu, axis=1) / np.linalg.norm(cpu, axis=1)
        assert distance.max() < 1e-3, name
