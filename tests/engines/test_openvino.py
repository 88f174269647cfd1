"""OpenVINO gives what torch gives, in order, however batches are cut, and from what it kept."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.backbones.pooling import pooled_stem
from featcache.backbones.registry import Backbone, load_backbone
from featcache.backbones.tracing import trace
from featcache.engines import Kept, make_engine, versions
from featcache.engines.parity import relative_differences
from featcache.errors import EngineError

openvino = pytest.importorskip("openvino")


def engine_of(backbone: Backbone, **options: Any):
    return make_engine("openvino", backbone.stem, backbone.preprocessing, **options)


def reference(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    with make_engine("torch", backbone.stem, backbone.preprocessing, device="cpu") as engine:
        return engine.run(pixels)


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit", "timm/test_efficientnet"])
def test_features_are_torchs(name: str) -> None:
    backbone = load_backbone(name, weights="random")
    size = backbone.preprocessing.size
    pixels = np.random.default_rng(1).integers(0, 256, (5, *size, 3), dtype=np.uint8)
    expected = reference(backbone, pixels)
    with engine_of(backbone) as engine:
        found = engine.run(pixels)
    assert found.dtype == np.float32
    assert relative_differences(found, expected).max() < 1e-5


def test_a_row_depends_on_nothing_beside_it(backbone: Backbone, pixels: np.ndarray) -> None:
    with engine_of(backbone, threads=2) as engine:
        whole = engine.run(pixels)
        alone = np.concatenate([engine.run(pixels[i : i + 1]) for i in range(len(pixels))])
        turned = engine.run(pixels[::-1].copy())[::-1]
    assert np.array_equal(whole, alone)
    assert np.array_equal(whole, turned)


def test_batches_come_back_in_order_and_are_taken_no_further_ahead_than_requests_need(
    backbone: Backbone, pixels: np.ndarray
) -> None:
    batches = [np.roll(pixels, i, axis=0) for i in range(7)]
    expected = reference(backbone, pixels)
    taken = 0

    def given():
        nonlocal taken
        for batch in batches:
            taken += 1
            yield batch

    with engine_of(backbone, threads=2) as engine:
        for i, (found,) in enumerate(engine.run_each(given())):
            assert taken <= i + 3  # 4 requests take 4 pictures each, a batch has 10
            assert relative_differences(found, np.roll(expected, i, axis=0)).max() < 1e-5
    assert taken == i + 1 == 7


def test_a_run_that_is_given_up_leaves_the_engine_usable(
    backbone: Backbone, pixels: np.ndarray
) -> None:
    engine = engine_of(backbone, threads=1)
    with engine:
        next(engine.run_each([pixels, pixels[::-1].copy()]))
    with engine:
        assert np.array_equal(engine.run(pixels), engine.run(pixels))


def test_several_activations_come_in_their_order(backbone: Backbone, pixels: np.ndarray) -> None:
    traced = trace(backbone.stem, backbone.preprocessing.size)
    stem = pooled_stem(traced, [("penultimate", "none"), ("layer3.0", "none"), ("layer2.0", "avg")])
    outputs = []
    for name in ("torch", "openvino"):
        with make_engine(name, stem, backbone.preprocessing, device="cpu") as engine:
            outputs.append(engine.run_all(pixels))
    for ours, theirs in zip(*outputs, strict=True):
        assert ours.shape == theirs.shape
        assert relative_differences(theirs, ours).max() < 1e-5


def test_a_second_start_takes_what_was_kept_and_what_is_damaged_is_made_anew(
    backbone: Backbone, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.engines import openvino as ours

    converted = ours._converted
    made: list[object] = []
    monkeypatch.setattr(ours, "_converted", lambda *a: made.append(a) or converted(*a))
    kept = Kept(tmp_path / "compiled", "a stem")

    def run() -> np.ndarray:
        with engine_of(backbone, kept=kept) as engine:
            return engine.run(pixels)

    first = run()
    assert np.array_equal(run(), first)
    assert len(made) == 1
    (file,) = kept.folder.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert np.array_equal(run(), first)
    assert np.array_equal(run(), first)
    assert len(made) == 2
    with engine_of(backbone, kept=Kept(kept.folder, "another stem")) as engine:
        assert np.array_equal(engine.run(pixels), first)
    assert len(made) == 3
    assert len(list(kept.folder.iterdir())) == 2


def test_the_oldest_of_what_is_kept_goes(backbone: Backbone, tmp_path: Path) -> None:
    for number in range(10):
        engine_of(backbone, kept=Kept(tmp_path, str(number)))
    assert len(list(tmp_path.iterdir())) == 8


def test_where_nothing_can_be_kept_it_runs_all_the_same(
    backbone: Backbone, pixels: np.ndarray, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with engine_of(backbone, kept=Kept(blocked / "compiled", "a stem")) as engine:
        assert engine.run(pixels).shape == (len(pixels), backbone.width)


def test_what_it_cannot_do_is_said(backbone: Backbone) -> None:
    with pytest.raises(EngineError, match=r"does not run on cuda; take --engine torch"):
        engine_of(backbone, device="cuda")
    with pytest.raises(EngineError, match="does not run on activations; take --engine torch"):
        make_engine("openvino", backbone.stem, None)
    with pytest.raises(
        EngineError, match="precision 'tf32': engine 'openvino' has fp32, bf16, fp16"
    ):
        engine_of(backbone, precision="tf32")
    with pytest.raises(EngineError, match=r"precision 'int4': no engine has it"):
        engine_of(backbone, precision="int4")
    with pytest.raises(EngineError, match=r"'int8' runs where its pictures of calibration are"):
        engine_of(backbone, precision="int8")


def test_a_precision_is_what_was_asked_for_or_refused(
    backbone: Backbone, pixels: np.ndarray
) -> None:
    expected = reference(backbone, pixels)
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with engine_of(backbone, precision="bf16") as engine:
            assert relative_differences(engine.run(pixels), expected).max() > 1e-4
    else:
        with pytest.raises(EngineError, match="OpenVINO would compute in f32 on this processor"):
            engine_of(backbone, precision="bf16")


def test_a_network_stays_where_another_engine_runs_it(backbone: Backbone) -> None:
    import torch

    stem = copy.deepcopy(backbone.stem).to("meta")
    with pytest.raises(EngineError):  # there is nothing to convert there
        make_engine("openvino", stem, backbone.preprocessing)
    assert {tensor.device for tensor in stem.parameters()} == {torch.device("meta")}


def test_a_network_that_it_cannot_read_is_an_error_that_says_so(backbone: Backbone) -> None:
    import torch

    class Odd(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(batch.mean(dim=1)).real

    with pytest.raises(
        EngineError, match=r"OpenVINO cannot run this network \(.*take --engine tor"
    ):
        make_engine("openvino", Odd(), backbone.preprocessing)


def test_what_fails_while_it_runs_is_an_error_that_says_so(backbone: Backbone) -> None:
    says = r"OpenVINO failed \(.*\); take --engine torch"
    with engine_of(backbone) as engine, pytest.raises(EngineError, match=says):
        engine.run(np.zeros((2, 7, 7, 3), np.uint8))


def test_where_it_is_not_installed_the_error_says_how(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    import featcache.engines

    monkeypatch.setattr(featcache.engines, "has_openvino", lambda: False)
    with pytest.raises(EngineError, match=r"not installed; run: pip install 'featcache\[cpu\]'"):
        engine_of(backbone)


def test_its_version_is_provenance() -> None:
    assert versions("openvino") == versions() | {"openvino": openvino.__version__.split("-")[0]}


def test_weights_of_a_network_go_with_it(pixels: np.ndarray) -> None:
    backbone = load_backbone("timm/test_vit", weights="random", image_size=pixels.shape[1])
    weights = [weakref.ref(p) for p in backbone.stem.parameters()]
    with engine_of(backbone) as engine:
        engine.run(pixels)
    assert all(ref() is not None for ref in weights)
    del backbone, engine
    gc.collect()
    assert [ref() for ref in weights] == [None] * len(weights)


def test_a_network_that_is_trained_stays_so(backbone: Backbone, pixels: np.ndarray) -> None:
    stem = copy.deepcopy(backbone.stem).requires_grad_()
    with make_engine("openvino", stem, backbone.preprocessing) as engine:
        found = engine.run(pixels)
    with engine_of(backbone) as engine:
        assert np.array_equal(found, engine.run(pixels))
    assert all(p.requires_grad and p.grad is None for p in stem.parameters())


def scripted(part: str) -> Backbone:
    """A network of which a part is a script already."""
    import torch

    backbone = load_backbone("timm/test_resnet", weights="random", image_size=32)
    network = backbone.stem.get_submodule("network")
    setattr(network, part, torch.jit.script(network.get_submodule(part)))
    return backbone


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_network_with_scripts_in_it_runs(backbone: Backbone, pixels: np.ndarray) -> None:
    with engine_of(scripted("layer2")) as engine, engine_of(backbone) as plain:
        found, expected = engine.run(pixels), plain.run(pixels)
    assert relative_differences(found, expected).max() < 1e-5


def test_weights_of_a_network_that_it_cannot_read_go_too(backbone: Backbone) -> None:
    import torch

    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 1, 1), requires_grad=False)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(batch * self.weight)

    stem = Odd()
    weight = weakref.ref(stem.weight)
    with pytest.raises(EngineError, match="OpenVINO cannot run this network"):
        make_engine("openvino", stem, backbone.preprocessing)
    del stem
    gc.collect()
    assert weight() is None
