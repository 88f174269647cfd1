"""What was derived from cached activations is told apart from what came from pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from featcache import api
from featcache.api.activations import ensure_cuts
from featcache.backbones.registry import load_backbone
from featcache.store.cache import Cache
from featcache.store.steps import Steps


def test_info_names_what_is_derived_and_prune_the_sweeps_it_forgets(
    invoke: Any, pictures: Path, tmp_path: Path
) -> None:
    light: dict[str, Any] = {"weights": "random", "image_size": 32}
    api.extract(
        pictures,
        out=tmp_path / "c",
        backbone="timm/test_resnet",
        cuts=("layer2.0",),
        pooling="none",
        **light,
    )
    assert "derived" not in invoke("info", tmp_path / "c").stdout
    backbone = load_backbone("timm/test_resnet", **light)
    ensure_cuts(Cache(tmp_path / "c"), ("layer3.0", "layer4.0"), backbone=backbone)
    told = " ".join(invoke("info", tmp_path / "c").stdout.split())
    assert "derived from the activations at layer2.0, not from pixels: " in told
    assert "fresh" in told
    streams = json.loads(invoke("info", tmp_path / "c", "--json").stdout)["streams"]
    assert {stream["cut"]: stream["parent"] for stream in streams} == {
        "penultimate": None,
        "layer2.0": None,
        "layer3.0": "layer2.0",
        "layer4.0": "layer2.0",
    }
    Steps(tmp_path / "c", "abc").write("0-0", {}, {"coef": np.zeros(3)})
    assert "interrupted sweeps forgotten: 1" in invoke("prune", tmp_path / "c").stdout
    assert json.loads(invoke("prune", tmp_path / "c", "--json").stdout)["sweeps"] == 0


def test_how_much_a_sweep_writes_is_said_before_it_does(
    invoke: Any, pictures: Path, tmp_path: Path
) -> None:
    light: dict[str, Any] = {"weights": "random", "image_size": 32}
    api.extract(pictures, out=tmp_path / "c", backbone="timm/test_resnet", **light)
    asked = ("--unfreeze", "1", "--epochs", "1", "--tol", "0.1")
    done = invoke("probe", tmp_path / "c", *asked)
    assert "GB of activations at layer3.0 are to be written" in done.stderr
    assert "to be written" not in invoke("probe", tmp_path / "c", *asked).stderr
