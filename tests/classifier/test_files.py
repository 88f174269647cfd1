"""The .fc file: what is written is read, the same content gives the same bytes, damage is seen."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from featcache import api
from featcache.classifier import files
from featcache.errors import ClassifierError, FeatcacheError, StoreError
from featcache.recipe import canonical_json, sha256_json


def header_length(content: bytes) -> int:
    return 8 + struct.unpack("<Q", content[:8])[0]


def test_what_is_written_is_read(saved: Path, cache: Path) -> None:
    content = files.read(saved)
    assert content.classes == ("cat", "coffee")
    assert content.backbone["name"] == "timm/test_resnet"
    assert content.backbone_tensors == {}
    assert content.stream.recipe == content.recipe.key
    assert content.measured["estimate"]["n"] == 28
    assert files.encode(content) == saved.read_bytes()


def test_the_same_probe_gives_the_same_bytes(saved: Path, cache: Path, tmp_path: Path) -> None:
    api.probe(cache, save=tmp_path / "again.fc", folds=2)
    assert (tmp_path / "again.fc").read_bytes() == saved.read_bytes()


def test_it_is_plain_safetensors(saved: Path) -> None:
    with safetensors.safe_open(saved, framework="np") as file:
        described = json.loads(file.metadata()["featcache"])
        assert sorted(file.keys()) == ["head.bias", "head.weight"]
        assert file.get_tensor("head.weight").shape == (2, 96)
    assert described["classes"] == ["cat", "coffee"]
    assert described["recipe"]["preprocessing"]["size"] == [48, 48]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_changed_byte_is_seen(saved: Path, tmp_path_factory: Any, data: Any) -> None:
    """Anywhere: either it is refused by name, or it says exactly what it said before."""
    content = bytearray(saved.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.fc"
    path.write_bytes(content)
    with contextlib.suppress(ClassifierError):
        assert files.encode(files.read(path)) == saved.read_bytes()


def test_a_changed_byte_of_the_head_is_seen(saved: Path, tmp_path: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[header_length(content) + 5] ^= 1
    (tmp_path / "changed.fc").write_bytes(content)
    with pytest.raises(ClassifierError, match=r"changed\.fc: the head's tensors are not those"):
        files.read(tmp_path / "changed.fc")


def test_a_changed_description_is_seen(saved: Path, tmp_path: Path) -> None:
    swapped = saved.read_bytes().replace(rb"[\"cat\",\"coffee\"]", rb"[\"coffee\",\"cat\"]")
    assert swapped != saved.read_bytes()
    (tmp_path / "swapped.fc").write_bytes(swapped)
    with pytest.raises(
        ClassifierError, match=r"swapped\.fc: its digest does not match: it was changed"
    ):
        files.read(tmp_path / "swapped.fc")


def rewritten(saved: Path, path: Path, **changes: Any) -> Path:
    """The same file with another description, signed again."""
    with safetensors.safe_open(saved, framework="pt") as file:
        described = json.loads(file.metadata()["featcache"]) | changes
        tensors = {name: file.get_tensor(name) for name in ("head.weight", "head.bias")}
    described.pop("digest")
    signed = canonical_json({**described, "digest": sha256_json(described)})
    save_file(tensors, path, {"featcache": signed})
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 99}, "format 99, this featcache reads 1 and 2; save it again"),
        ({"classes": ["cat"]}, "1 classes and a head of 2 outputs"),
        ({"recipe": {}}, "its description cannot be read"),
        ({"backbone": {"name": "resnet18"}}, "its description cannot be read"),
        ({"backbone": None}, "its description cannot be read"),
        ({"loss": "softmax", "multi_label": True}, "its description cannot be read"),
    ],
)
def test_another_version_or_a_senseless_description(
    saved: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    path = rewritten(saved, tmp_path / "odd.fc", **changes)
    with pytest.raises(ClassifierError, match=says) as caught:
        files.read(path)
    assert str(path) in str(caught.value)


def test_what_is_no_classifier(tmp_path: Path, pictures: Path) -> None:
    empty, plain = tmp_path / "empty.fc", tmp_path / "plain.fc"
    empty.touch()
    save_file({"a": torch.zeros(2)}, plain)
    listed = tmp_path / "list.fc"
    save_file({"a": torch.zeros(2)}, listed, {"featcache": "[1]"})
    for path, says in [
        (empty, "not a classifier file, or damaged"),
        (pictures / "cat" / "00.png", "not a classifier file, or damaged"),
        (plain, "a safetensors file, but no classifier of featcache"),
        (listed, "its description cannot be read"),
        (tmp_path, "is a folder; give the file `probe --save` made"),
        (tmp_path / "none.fc", "no such classifier; make one with `featcache probe"),
    ]:
        with pytest.raises(ClassifierError, match=says) as caught:
            files.read(path)
        assert str(path) in str(caught.value)


def test_a_place_that_cannot_be_written(saved: Path, tmp_path: Path, fails: Any) -> None:
    (tmp_path / "file").write_text("not a folder")
    content = saved.read_bytes()
    text = fails(StoreError, lambda: files.write(tmp_path / "file" / "a.fc", content), tmp_path)
    assert str(tmp_path / "file") in text


def test_classes_of_any_name(checked: Any, tmp_path: Path) -> None:
    """Folders may have names that are no UTF-8, or hold quotes and brackets."""
    classes = ('caf\udce9 "[red]"', "\u9e7f\n")
    checked.save(tmp_path / "names.fc", classes=classes)
    assert files.read(tmp_path / "names.fc").classes == classes


def test_errors_are_featcaches_and_a_value_error() -> None:
    assert issubclass(ClassifierError, FeatcacheError)
    assert issubclass(ClassifierError, ValueError)
