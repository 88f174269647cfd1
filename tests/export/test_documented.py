"""What docs/export.md says is what is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import featcache as fc
from featcache.backbones.registry import load_backbone
from featcache.export.examples import example_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_the_example_is_the_one_that_is_printed() -> None:
    preprocessing = load_backbone("efficientnet_lite0").preprocessing
    assert BLOCKS[-1] == example_of("pets.onnx", "onnx", preprocessing, "uint8")


def test_cleanlab_as_documented(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    fc.export_cache(cache, "pets.npz")
    exec(compile(BLOCKS[0], "docs/export.md", "exec"), {})
    assert "cup/wrong.png" in capsys.readouterr().out


def test_every_name_is_documented(cache: Path, tmp_path: Path) -> None:
    there = np.load(fc.export_cache(cache, tmp_path / "pets.npz").file)
    assert all(f"`{name}`" in DOCUMENT for name in there.files)
