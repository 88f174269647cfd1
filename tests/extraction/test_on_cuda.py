"""A CUDA device computes what the processor computes, and a run on it can be stopped anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from featcache import api
from featcache.engines import make_engine
from featcache.engines.torch import TorchEngine
from featcache.store.cache import Cache

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

CROP, COUNT = 120, 70


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 x 70 crops of photos, more than two batches, and one file that is no picture."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for label, photo in {"cat": data.chelsea(), "coffee": data.coffee()}.items():
        (root / label).mkdir()
        for number in range(COUNT):
            y, x = (rng.integers(side - CROP) for side in photo.shape[:2])
            crop = Image.fromarray(photo[y : y + CROP, x : x + CROP])
            crop.save(root / label / f"{number:02}.jpg", quality=92)
    (root / "cat" / "broken.jpg").write_bytes(b"no picture")
    return root


def rows(cache: Any, cut: str | None = None) -> np.ndarray:
    """(n, D) of all pictures that have a row, by path."""
    opened = Cache(Path(cache))
    stream = opened.stream(cut) if cut else opened.stream()
    found = stream.positions(opened.index.hashes)
    kept = np.asarray(stream.read(found[found >= 0]), np.float64)
    return kept.reshape(len(kept), -1)


def off_by(a: np.ndarray, b: np.ndarray) -> float:
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())


def files(folder: Path) -> dict[str, bytes]:
    """All that is compared: not the log, which has clocks."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != "log.jsonl")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


NETWORKS: list[dict[str, Any]] = [
    {"backbone": "efficientnet_lite0"},
    {"backbone": "resnet18", "weights": "random", "image_size": 64},
    {"backbone": "timm/test_vit.r160_in1k", "weights": "random"},
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n["backbone"])
def test_features_are_the_processors(photos: Path, tmp_path: Path, network: Any) -> None:
    here = api.extract(photos, out=tmp_path / "cpu", device="cpu", engine="torch", **network)
    there = api.extract(photos, out=tmp_path / "cuda", device="cuda", **network)
    assert there.engine["device"] == "cuda"
    assert there.computed == here.computed == 2 * COUNT
    assert [skip.reason for skip in there.skipped] == [skip.reason for skip in here.skipped]
    assert off_by(rows(there), rows(here)) < 1e-3


def test_a_cache_of_the_processor_is_extended_on_cuda(photos: Path, tmp_path: Path) -> None:
    network = NETWORKS[1]
    first = api.extract(photos / "cat", out=tmp_path / "cpu", device="cpu", **network)
    more = api.extract(photos, out=tmp_path / "cpu", device="cuda", replace_source=True, **network)
    assert (more.computed, more.engine["device"]) == (COUNT, "cuda")
    assert first.computed == COUNT
    whole = api.extract(photos, out=tmp_path / "whole", device="cpu", **network)
    assert off_by(rows(more), rows(whole)) < 1e-3


class StoppedError(Exception):
    """Stands for the end of a run."""


def test_a_stopped_run_goes_on_to_the_same_bytes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"device": "cuda", "batch_size": 16, **NETWORKS[1]}
    api.extract(photos, out=tmp_path / "whole", **given)
    finished, stops = TorchEngine._finished, iter([3, 5])
    for stop in stops:
        seen = []

        def fail_at(self: Any, begun: Any, stop: int = stop, seen: list[int] = seen) -> Any:
            seen.append(stop)
            if len(seen) == stop:
                raise StoppedError
            return finished(self, begun)

        with monkeypatch.context() as patched:
            patched.setattr(TorchEngine, "_finished", fail_at)
            with pytest.raises(StoppedError):
                api.extract(photos, out=tmp_path / "stopped", **given)
    api.extract(photos, out=tmp_path / "stopped", **given)
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_precisions_below_fp32_are_near_and_say_how_near(
    photos: Path, tmp_path: Path, precision: Any
) -> None:
    network = NETWORKS[0]
    full = api.extract(photos, out=tmp_path / "fp32", device="cuda", **network)
    less = api.extract(
        photos, out=tmp_path / precision, device="cuda", precision=precision, **network
    )
    assert full.precision_change is None
    change = less.precision_change
    assert change is not None
    assert change.precision == precision
    assert 0.99 < change.least_cosine <= change.mean_cosine <= 1 + 1e-6
    assert 0 < off_by(rows(less), rows(full)) < 0.2


def test_inner_cuts_and_views_in_one_pass(photos: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        **NETWORKS[1],
        "cuts": ("layer4.1", "layer3.1"),
        "views": 2,
        "augment": "standard",
    }
    here = api.extract(photos, out=tmp_path / "cpu", device="cpu", **given)
    there = api.extract(photos, out=tmp_path / "cuda", device="cuda", **given)
    assert {c: f.shape for c, f in there.features.items()} == {
        c: f.shape for c, f in here.features.items()
    }
    for cut in ("layer4.1", "layer3.1"):
        assert off_by(rows(there, cut), rows(here, cut)) < 1e-3


def test_batches_in_flight_are_those_computed_alone(photos: Path) -> None:
    from featcache.backbones.registry import load_backbone

    backbone = load_backbone("resnet18", weights="random")
    side = backbone.preprocessing.size
    drawn = np.random.default_rng(0).integers(0, 256, (5, 8, *side, 3), dtype=np.uint8)
    with make_engine("torch", backbone.stem, backbone.preprocessing, device="cuda") as engine:
        together = [np.array(out[0]) for out in engine.run_each(iter(drawn))]
        alone = [engine.run(batch) for batch in drawn]
    np.testing.assert_array_equal(together, alone)


def test_a_batch_too_large_is_named() -> None:
    from featcache.backbones.registry import load_backbone
    from featcache.errors import EngineError

    backbone = load_backbone("resnet18", weights="random")
    free, _ = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2e9 / free))
    try:
        with make_engine("torch", backbone.stem, backbone.preprocessing, device="cuda") as engine:
            batch = np.zeros((2048, 224, 224, 3), np.uint8)
            with pytest.raises(
                EngineError, match=r"a batch of 2048 pictures.*smaller --batch-size"
            ):
                engine.run(batch)
            assert engine.run(batch[:2]).shape == (2, 512)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_probe_sweep_and_predict_on_cuda(photos: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {**NETWORKS[1], "cuts": ("layer3.1",), "pooling": "none"}
    cache = api.extract(photos, out=tmp_path / "cache", device="cuda", **given)
    here, there = (api.probe(cache, device=device) for device in ("cpu", "cuda"))
    assert there.best_C == here.best_C
    assert there.estimate.accuracy == here.estimate.accuracy
    assert there.converged
    training = api.TrainingOptions(epochs=2, rates=(1e-3,), batch_size=16)
    saved = tmp_path / "tuned.fc"
    swept = [
        api.probe(cache, unfreeze="0-2", device=device, training=training, save=saved)
        for device in ("cpu", "cuda")
    ]
    for cpu, cuda in zip(swept[0].unfreeze, swept[1].unfreeze, strict=True):
        assert cuda.accuracy == pytest.approx(cpu.accuracy, abs=0.05)
        assert cuda.log_loss == pytest.approx(cpu.log_loss, abs=0.1)
    pictures = sorted(map(str, photos.glob("*/0*.jpg")))
    found = {device: api.predict(saved, pictures, device=device) for device in ("cpu", "cuda")}
    for cpu, cuda in zip(found["cpu"], found["cuda"], strict=True):
        assert (cuda.label, cuda.error) == (cpu.label, None)
        assert cuda.probability == pytest.approx(cpu.probability, abs=1e-3)
