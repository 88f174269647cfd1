"""The README's commands and code are run, from the README's own text."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from typer.testing import CliRunner

from featcache_cli.app import app

CHECKOUT = Path(__file__).parent.parent
README = (CHECKOUT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pets/ and photo.jpg, as the README's walk has them."""
    rng = np.random.default_rng(0)
    photos = {"cat": skimage.data.chelsea(), "dog": skimage.data.astronaut()}
    for name, photo in photos.items():
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(12):
            top, left = (rng.integers(0, side - 200) for side in photo.shape[:2])
            crop = Image.fromarray(photo[top : top + 200, left : left + 200])
            crop.save(tmp_path / "pets" / name / f"{number}.jpg")
    Image.fromarray(photos["cat"]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATCACHE_DIR", raising=False)
    return tmp_path


def test_every_command_of_the_readme_runs(pets: Path) -> None:
    commands = [line[2:] for block in blocks("console") for line in block.splitlines()]
    assert len(commands) >= 8
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "featcache"
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert (pets / "pets.fc").is_file()


def test_the_python_of_the_readme_runs(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert "photo.jpg cat" in capsys.readouterr().out


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^    make ([a-z-]+)", README, re.MULTILINE))
    makefile = (CHECKOUT / "Makefile").read_text("utf-8")
    assert targets >= {"demo", "test"}
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_every_local_link_of_the_documents_leads_somewhere() -> None:
    for document in CHECKOUT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8")):
            assert "://" in target or (CHECKOUT / target).exists(), f"{document.name}: {target}"
