from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from featcache.backbones.registry import load_backbone, load_from_locator
from featcache.errors import BackboneError, WeightsError
from featcache.recipe import Preprocessing

FIELDS = '{"size": [32, 32], "resize": [36], "mean": [0.5] * 3, "std": [0.25] * 3}'
NETWORK = """
from torch import nn

class Zoo:
    @staticmethod
    def small():
        return network()

def network():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of one's own and give its name."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def make(source: str) -> str:
        name = f"own_{tmp_path.name}_{len(made)}"
        Path(tmp_path, f"{name}.py").write_text(source)
        made.append(name)
        return name

    yield make
    for name in made:
        sys.modules.pop(name, None)


def preprocessing(side: int = 32) -> Preprocessing:
    return Preprocessing((side, side), (36,), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@torch.no_grad()
def test_a_network_of_ones_own_with_its_modules_preprocessing(module) -> None:
    name = f"{module(NETWORK + f'preprocessing = {FIELDS}')}:network"
    before = torch.random.get_rng_state()
    backbone = load_backbone(name)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert backbone.preprocessing == preprocessing()
    assert (backbone.name, backbone.width, backbone.locator) == (name, 5, {"kind": "factory"})
    assert backbone.stem(torch.zeros(3, 3, 32, 32)).shape == (3, 5)
    again = load_from_locator(name, backbone.locator, preprocessing=backbone.preprocessing)
    assert again.recipe() == backbone.recipe()


def test_the_preprocessing_given_wins_over_the_returned_over_the_modules(module) -> None:
    pair = f"def pair():\n    return network(), {FIELDS} | dict(size=(16, 16))"
    source = f"{NETWORK}\npreprocessing = {FIELDS}\n{pair}"
    name = f"{module(source)}:pair"
    assert load_backbone(name).preprocessing.size == (16, 16)
    assert load_backbone(name, preprocessing=preprocessing(24)).preprocessing.size == (24, 24)
    assert load_backbone(name, image_size=64).preprocessing == Preprocessing(
        (64, 64), (144,), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    )


def test_a_factory_may_be_an_attribute_of_a_class(module) -> None:
    name = f"{module(NETWORK)}:Zoo.small"
    assert load_backbone(name, preprocessing=preprocessing()).width == 5


def test_another_source_is_another_architecture(module) -> None:
    first, second = module(NETWORK), module(NETWORK + "# changed")
    one = load_backbone(f"{first}:network", preprocessing=preprocessing())
    two = load_backbone(f"{second}:network", preprocessing=preprocessing())
    assert one.weights_sha256 == two.weights_sha256
    assert one.architecture.partition("@")[0] == f"{first}:network"
    assert len(one.architecture.partition("@")[2]) == 16
    assert one.architecture.partition("@")[2] != two.architecture.partition("@")[2]


def test_its_weights_may_come_from_a_file(module, tmp_path) -> None:
    name = f"{module(NETWORK)}:network"
    state = load_backbone(name, preprocessing=preprocessing()).state()
    state["0.bias"] += 1
    torch.save(state, tmp_path / "own.pt")
    backbone = load_backbone(name, weights=tmp_path / "own.pt", preprocessing=preprocessing())
    assert torch.equal(backbone.state()["0.bias"], state["0.bias"])
    again = load_from_locator(name, backbone.locator, preprocessing=backbone.preprocessing)
    assert again.recipe() == backbone.recipe()
    torch.save({"0.bias": state["0.bias"]}, tmp_path / "own.pt")
    with pytest.raises(WeightsError, match="not of this network"):
        load_from_locator(name, backbone.locator, preprocessing=backbone.preprocessing)


@pytest.mark.parametrize(
    ("source", "function", "message"),
    [
        (NETWORK, "network", "nothing says how pictures become its input"),
        (NETWORK + "preprocessing = 3", "network", "its preprocessing is a int; give a Preproc"),
        (NETWORK + "preprocessing = {'size': 3}", "network", "its preprocessing is not usable"),
        (NETWORK, "other", "has no function other"),
        ("raise KeyError('gone')", "network", "cannot be imported.*KeyError.*PYTHONPATH"),
        ("def network():\n    return 3", "network", "the factory returned int"),
        (
            "def network():\n    raise OSError('full')",
            "network",
            "the factory failed.*OSError: full",
        ),
        ("def network(depth):\n    pass", "network", "the factory failed.*without arguments"),
    ],
)
def test_what_is_wrong_with_a_factory_is_said(source, function, message, module) -> None:
    name = f"{module(source)}:{function}"
    with pytest.raises(BackboneError, match=message) as error:
        load_backbone(name)
    assert str(error.value).startswith(f"{name}: ")


def test_a_module_that_is_not_there_is_said() -> None:
    with pytest.raises(BackboneError, match=r"no_such_module cannot be imported.*No module named"):
        load_backbone("no_such_module:network")


def test_a_module_without_source_is_refused() -> None:
    with pytest.raises(BackboneError, match="itertools has no source file"):
        load_backbone("itertools:count", preprocessing=preprocessing())


def test_random_weights_are_the_factorys_business(module) -> None:
    name = f"{module(NETWORK)}:network"
    with pytest.raises(BackboneError, match="random weights are the factory's"):
        load_backbone(name, weights="random", preprocessing=preprocessing())


def test_changing_a_helper_changes_the_architecture(module, tmp_path) -> None:
    helper = module("SCALE = 1\n")
    name = module(f"import {helper}\n{NETWORK}\npreprocessing = {FIELDS}")
    command = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "from featcache.backbones.registry import load_backbone; "
        "print(load_backbone(sys.argv[2]).architecture)"
    )

    def architecture() -> str:
        arguments = [sys.executable, "-B", "-c", command, str(tmp_path), f"{name}:network"]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout

    before = architecture()
    Path(tmp_path, f"{helper}.py").write_text("SCALE = 2\n")
    assert architecture() != before


def test_code_edited_since_it_was_imported_is_refused(module, tmp_path) -> None:
    name = module(f"{NETWORK}\npreprocessing = {FIELDS}")
    load_backbone(f"{name}:network")
    with Path(tmp_path, f"{name}.py").open("a") as file:
        file.write("# edited\n")
    with pytest.raises(BackboneError, match=r"was changed after this process .* restart Python"):
        load_backbone(f"{name}:network")


def test_a_prefix_that_is_the_networks_own_stays(module, tmp_path) -> None:
    wrapped = (
        f"{NETWORK}\npreprocessing = {FIELDS}\n"
        "class Wrapped(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.model = network()\n"
        "    def forward(self, pixels):\n"
        "        return self.model(pixels)\n"
    )
    name = f"{module(wrapped)}:Wrapped"
    saved = load_backbone(name)
    torch.save(saved.state(), tmp_path / "own.pt")
    again = load_backbone(name, weights=tmp_path / "own.pt")
    assert again.weights_sha256 == saved.weights_sha256
