"""The README's commands and code are run, from the README's own text."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from featcache_cli.app import app

CHECKOUT = Path(__file__).parent.parent
README = (CHECKOUT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


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
