"""A classifier of unknown origin is refused by a typed error that names it, or is read rightly."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from featcache import api
from featcache.backbones.registry import load_from_locator
from featcache.classifier import files
from featcache.errors import ClassifierError, WeightsError
from featcache.recipe import Preprocessing, canonical_json, sha256_json

pytestmark = pytest.mark.faults

FUZZ = Path(__file__).parents[1] / "fuzz.py"
SEES = "<file>: what is wrong with it, and what to do; exit 1"


@pytest.fixture
def whole(saved: Path, tmp_path: Path) -> Path:
    """A folder with a classifier in it."""
    (tmp_path / "fc").mkdir()
    shutil.copy(saved, tmp_path / "fc" / "whole.fc")
    return tmp_path / "fc"


def fuzz(folder: Path, seed: int, count: int) -> dict[str, Any]:
    """What became of so many mutated files, in a process with limited memory."""
    command = [sys.executable, FUZZ, "fc", folder, str(seed), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"died of {done.returncode}: {done.stderr[-3000:]}"
    return json.loads(done.stdout)


def test_mutated_files_are_refused_or_read(whole: Path, tried) -> None:
    told = fuzz(whole, 0, 200)
    tried("a mutated file, .fc", 200, failures=len(told["wrong"]), sees=SEES)
    assert told["wrong"] == []
    assert told["refused"] > 30


@pytest.mark.slow
def test_very_many_mutated_files_are_refused_or_read(whole: Path, tried) -> None:
    told = fuzz(whole, 10_000, 6000)
    tried("a mutated file, .fc", 6000, failures=len(told["wrong"]), sees=SEES)
    assert told["wrong"] == []


def find_flips(saved: Path, path: Path, places: list[int], tried) -> None:
    content, rng = saved.read_bytes(), random.Random(0)
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ClassifierError, match=r"flipped\.fc"):
            files.read(path)
        assert len(api.verify(path).damaged) == 1
    tried("a flipped bit, .fc", len(places), sees="<file>: what is wrong with it; save it again")


def test_a_flipped_bit_is_found(saved: Path, tmp_path: Path, tried) -> None:
    places = random.Random(0).sample(range(saved.stat().st_size), 200)
    find_flips(saved, tmp_path / "flipped.fc", places, tried)
    assert api.verify(saved).damaged == ()


@pytest.mark.slow
def test_a_flipped_bit_of_any_byte_is_found(saved: Path, tmp_path: Path, tried) -> None:
    find_flips(saved, tmp_path / "flipped.fc", list(range(saved.stat().st_size)), tried)


def test_a_flipped_bit_of_an_embedded_backbone_is_found(cache: Path, tmp_path: Path, tried) -> None:
    path = tmp_path / "embedded.fc"
    api.probe(cache, save=path, embed_backbone=True, folds=2)
    assert api.verify(path).damaged == ()
    content = bytearray(path.read_bytes())
    for place in (len(content) // 2, len(content) // 3):
        changed = content.copy()
        changed[place] ^= 1
        path.write_bytes(changed)
        (damage,) = api.verify(path).damaged
        assert "the backbone's tensors are not those that were saved" in damage.problem
    tried("a flipped bit, .fc", 2, sees="<file>: what is wrong with it; save it again")


def forged(saved: Path, path: Path, **changes: Any) -> Path:
    """The same with a changed description, its digest put right."""
    content = saved.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:end])
    description = json.loads(header["__metadata__"]["featcache"]) | changes
    del description["digest"]
    signed = canonical_json({**description, "digest": sha256_json(description)})
    header["__metadata__"]["featcache"] = signed
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[end:])
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["cat"]},
        {"classes": [1, 2]},
        {"classes": "ab"},
        {"classes": []},
        {"loss": "cosine"},
        {"loss": ["softmax"]},
        {"multi_label": "yes"},
        {"multi_label": True},
        {"measured": []},
        {"backbone": []},
        {"backbone": {"name": "timm/test_resnet"}},
        {"recipe": {}},
        {"stream": None},
        {"format": 3},
        {"head_sha256": "0" * 64},
    ],
    ids=str,
)
def test_forged_descriptions_are_refused(saved: Path, tmp_path: Path, changes, tried) -> None:
    with pytest.raises(ClassifierError, match=r"forged\.fc"):
        files.read(forged(saved, tmp_path / "forged.fc", **changes))
    tried("a forged classifier", 1, sees=SEES)


def test_other_tensors_are_refused(tmp_path: Path, saved: Path, tried) -> None:
    for extra in ({"x": torch.zeros(2)}, {"head.more": torch.zeros(2)}):
        save_file(extra, tmp_path / "x.fc", {"featcache": "{}"})
        with pytest.raises(ClassifierError, match=r"x\.fc"):
            files.read(tmp_path / "x.fc")
    tried("a forged classifier", 2, sees=SEES)


def test_a_tensor_that_is_none_of_its_parts_is_named(saved: Path, tmp_path: Path, tried) -> None:
    path = tmp_path / "more.fc"
    with safe_open(saved, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in ("head.weight", "head.bias")}
        described = file.metadata()
    for name, says in (
        ("x", "it holds a tensor 'x', which is none of its parts"),
        ("head.weight", r"head\.weight is torch\.float64, not torch\.float32"),
    ):
        save_file({**tensors, name: torch.zeros(2, dtype=torch.float64)}, path, described)
        with pytest.raises(ClassifierError, match=rf"more\.fc: {says}"):
            files.read(path)
    tried("a forged classifier", 2, sees=SEES)


def test_a_description_that_is_spelt_otherwise_is_refused(saved: Path, tmp_path: Path) -> None:
    """Its digest is of what it says: a byte more would not be seen."""
    with safe_open(saved, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in ("head.weight", "head.bias")}
        described = file.metadata()["featcache"]
    save_file(tensors, tmp_path / "spelt.fc", {"featcache": described + " "})
    with pytest.raises(ClassifierError, match=r"spelt\.fc: its description was changed after it"):
        files.read(tmp_path / "spelt.fc")


def test_a_loss_that_is_none_is_refused(saved: Path, tmp_path: Path) -> None:
    path = forged(saved, tmp_path / "loss.fc", loss="cosine")
    with pytest.raises(ClassifierError, match=r"loss\.fc: its classes or its loss are none; save"):
        files.read(path)


def test_a_huge_header_is_not_read(tmp_path: Path, tried) -> None:
    path = tmp_path / "huge.fc"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 1 << 39))
        file.truncate(1 << 40)  # takes no place on the disk
    with pytest.raises(ClassifierError, match=r"huge\.fc.*its header says it has 549755813888"):
        files.read(path)
    tried("a forged classifier", 1, sees=SEES)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.fc")
    with pytest.raises(ClassifierError, match=r"pipe\.fc: no such classifier"):
        files.read(tmp_path / "pipe.fc")


@pytest.mark.parametrize(
    "locator",
    [
        {"kind": "random", "seed": "1/../../weights"},
        {"kind": "random", "seed": -1},
        {"kind": "random"},
        {"kind": "file", "path": 5},
        {"kind": "file"},
        {"kind": ["file"]},
        {"kind": "default", "tag": 5},
        {},
    ],
    ids=str,
)
def test_forged_locators_lead_to_no_weights(locator: dict[str, Any], tried) -> None:
    plain = Preprocessing((32, 32), (32,), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(WeightsError, match="timm/test_resnet: "):
        load_from_locator("timm/test_resnet", locator, preprocessing=plain)
    tried("a forged classifier", 1, sees=SEES)


def test_pickled_code_is_not_run(tmp_path: Path, tried) -> None:
    """What a manifest or a classifier names as weights may be anything."""
    trace = tmp_path / "ran"

    class Harm:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(trace),))

    torch.save({"a": Harm()}, tmp_path / "weights.pt")
    plain = Preprocessing((32, 32), (32,), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    locator = {"kind": "file", "path": str(tmp_path / "weights.pt")}
    with pytest.raises(WeightsError, match="holds more than tensors"):
        load_from_locator("timm/test_resnet", locator, preprocessing=plain)
    assert not trace.exists()
    tried("a forged classifier", 1, sees=SEES)
