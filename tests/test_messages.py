"""Errors that no other test meets: each names the value, and says what to do or what there is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache import api
from featcache.api.requests import ExtractRequest, PredictRequest, ProbeRequest
from featcache.backbones.registry import load_backbone, load_from_locator
from featcache.backbones.torchvision_networks import TorchvisionOrigin
from featcache.engines.torch import _autocast
from featcache.errors import FeatcacheError, ProbeError
from featcache.images.augmentation import transform_of
from featcache.images.datasets import open_data_set
from featcache.images.digits import DigitsSource
from featcache.images.sources import source_from_locator
from featcache.recipe import Preprocessing
from featcache.training.examples import Examples

SQUARE = Preprocessing((32, 32), (32,), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "pooling": (
        lambda: ExtractRequest("x", pooling="max"),  # type: ignore[arg-type]
        "pooling 'max': unknown; give avg, cls, flatten or none",
    ),
    "precision": (
        lambda: ExtractRequest("x", precision="fp8"),  # type: ignore[arg-type]
        "precision 'fp8': unknown; give fp32",
    ),
    "shots": (
        lambda: ProbeRequest("x", shots=(2, 0)),
        r"shots \(2, 0\): give numbers from 1, or None for all",
    ),
    "views": (lambda: ProbeRequest("x", views=0), "views 0: give at least 1, the plain view"),
    "seeds": (
        lambda: ProbeRequest("x", seeds=0),
        "seeds 0, suspects 0: give at least 1 and at least 0",
    ),
    "top": (
        lambda: PredictRequest("x.fc", ("a.png",), top=0),
        "top 0: give how many classes to list, at least 1",
    ),
    "probability": (
        lambda: PredictRequest("x.fc", ("a.png",), min_probability=2.0),
        "min_probability 2.0: give a number from 0 to 1",
    ),
    "name of the digits": (
        lambda: source_from_locator({"kind": "digits", "location": "digits9"}),
        "'digits9': the digits of scikit-learn are called 'digits'",
    ),
    "tag of weights": (
        lambda: load_from_locator("resnet18", {"kind": "default", "tag": 5}, preprocessing=SQUARE),
        "resnet18: no weights are called 5",
    ),
    "policy of a view": (
        lambda: transform_of("solarize:3", SQUARE),
        "view of policy 'solarize:3': not one of this version of featcache",
    ),
    "kind of source": (
        lambda: source_from_locator({"kind": "ftp", "location": "x"}),
        "source of kind 'ftp'; this version knows folder, csv",
    ),
    "digit": (lambda: DigitsSource().read("9999"), "missing: the digits are 0000 to 1796"),
    "data set": (lambda: open_data_set("cifar11"), "no data set 'cifar11'; there are oxford-pets"),
    "weights": (
        lambda: TorchvisionOrigin("resnet18", "BEST"),
        "resnet18: torchvision has no weights 'BEST'; it has IMAGENET1K_V1, DEFAULT",
    ),
    "backbone": (
        lambda: load_backbone("resnet1000000"),
        "no backbone is called 'resnet1000000'; did you mean .*`featcache backbones PATTERN`",
    ),
    "device": (
        lambda: _autocast(torch.device("meta"), torch.bfloat16),
        r"meta does not compute in torch\.bfloat16; extract in fp32",
    ),
    "positions": (
        lambda: Examples(np.zeros((3, 2)), np.array([0, 3]), np.array([0, 1])),
        "positions from 0 to 3 of 3 rows",
    ),
}


@pytest.mark.parametrize("what", CALLS)
def test_it_names_the_value_and_what_there_is(what: str) -> None:
    call, says = CALLS[what]
    with pytest.raises(FeatcacheError, match=says):
        call()


def test_a_comparison_with_what_was_never_probed_or_shares_nothing(
    tmp_path: Path, class_folders: Path, extract_light: Callable[..., Any]
) -> None:
    here = extract_light(class_folders).cache
    there = extract_light(other_pictures(class_folders, tmp_path / "other"), out=tmp_path / "there")
    with pytest.raises(ProbeError, match=f"{there.cache}: was never probed; run `featcache probe"):
        api.probe(here, folds=2, against=there.cache)
    api.probe(there.cache, folds=2)
    with pytest.raises(ProbeError, match="held no picture in common out"):
        api.probe(here, folds=2, against=there.cache)


def other_pictures(folders: Path, place: Path) -> Path:
    """The same with a byte more each, which no decoder reads."""
    for path in folders.rglob("*.jpg"):
        copy = place / os.path.relpath(path, folders)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes() + b"\0")
    return place
