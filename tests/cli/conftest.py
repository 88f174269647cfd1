"""The installed command, a folder of pictures, a cache and a classifier made by it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from featcache_cli.app import app

LIGHT = ("--backbone", "timm/test_resnet", "--weights", "random", "--image-size", "32")

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def script() -> Path:
    return Path(sys.executable).parent / "featcache"


@pytest.fixture(scope="session")
def run(script: Path) -> Run:
    """Run the command in a process of its own, as in a pipe: no terminal, 80 columns."""

    def start(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
        clean = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR")}
        return subprocess.run(
            [script, *arguments], capture_output=True, env={**clean, **environment}, check=False
        )

    return start


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Run the command in this process: quicker, since torch is imported already."""
    monkeypatch.setenv("COLUMNS", "80")
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders `cat` and `coffee`, 12 crops each, and one that cannot be read. Read only."""
    root = tmp_path_factory.mktemp("pictures") / "drinks"
    for name, photo in {"cat": data.chelsea(), "coffee": data.coffee()}.items():
        (root / name).mkdir(parents=True)
        for i, (y, x) in enumerate(np.random.default_rng(0).integers(190, size=(12, 2))):
            Image.fromarray(photo[y : y + 90, x : x + 90]).save(root / name / f"{i:02}.jpg")
    (root / "cat" / "broken.jpg").write_bytes(b"this is no picture, surely")
    return root


@pytest.fixture(scope="session")
def cache(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only, but for findings."""
    out = tmp_path_factory.mktemp("caches") / "drinks"
    result = CliRunner().invoke(app, ["extract", str(pictures), "--out", str(out), *LIGHT])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def classifier(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    path = tmp_path_factory.mktemp("classifiers") / "drinks.fc"
    command = ["probe", str(cache), "--cv", "2", "--tol", "0.5", "--save", str(path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return path
