"""docs/walk.md: its commands parse, its pictures are small, and going it again prints the same."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
from PIL import Image

from featcache_cli.app import app

DOCS = Path(__file__).parent.parent / "docs"
WALK = (DOCS / "walk.md").read_text("utf-8")
IMAGES = sorted(set(re.findall(r"\]\((images/[^)]+)\)", WALK)))
QUIET = {"mv", "rm", "cp"}
"""What says nothing."""


@pytest.fixture(scope="module")
def recording() -> Iterator[ModuleType]:
    """The program behind `make walk`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(DOCS)
        yield importlib.import_module("recording")


def commands(recording: ModuleType) -> list[str]:
    return [
        each for block in recording.BLOCK.findall(WALK) for each in recording.commands_of(block)
    ]


def test_every_command_parses(recording: ModuleType) -> None:
    group: Any = typer.main.get_command(app)
    gone = set()
    for command in commands(recording):
        words = shlex.split(re.split(r" (?:\||2>|&$)", command)[0])
        if words[0] == "featcache":
            gone.add(words[1])
            group.commands[words[1]].make_context(words[1], words[2:])
    assert gone >= {"extract", "layers", "probe", "report", "compare", "predict", "export"}
    assert gone >= {"info", "verify", "serve"}


def test_every_command_has_what_it_printed(recording: ModuleType) -> None:
    blocks = "".join(recording.BLOCK.findall(WALK))
    for part in re.split(r"^\$ ", blocks, flags=re.M)[1:]:
        command, _, printed = part.partition("\n")
        assert bool(printed.strip()) != (command.split()[0] in QUIET), command


def test_nothing_of_the_machine_it_was_recorded_on_is_in_it() -> None:
    assert not re.search(r"/tmp|/home|/root|\x1b|Traceback", WALK)


@pytest.mark.parametrize("image", IMAGES)
def test_its_pictures_are_small(image: str) -> None:
    path = DOCS / image
    assert path.stat().st_size < 150_000
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        assert 1000 <= opened.width <= 1200


def test_all_pictures_are_shown() -> None:
    assert sorted(f"images/{path.name}" for path in (DOCS / "images").iterdir()) == IMAGES
    assert len(IMAGES) == 4


def test_the_pictures_it_goes_with_are_as_told(recording: ModuleType, tmp_path: Path) -> None:
    recording.make_pictures(tmp_path)
    files = sorted((tmp_path / "pets").rglob("*.jpg"))
    assert len(files) == 321
    assert len({path.read_bytes() for path in files}) == 320
    broken = []
    for path in files:
        with Image.open(path) as opened:
            assert opened.size == (128, 128)
            try:
                opened.load()
            except OSError:
                broken.append(path.name)
    assert broken == ["20.jpg"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the walk asks its server by curl")
def test_going_it_again_prints_the_same(recording: ModuleType, tmp_path: Path) -> None:
    for extra in ("openvino", "onnxruntime", "onnxscript", "starlette", "uvicorn"):
        pytest.importorskip(extra)
    with recording.session(tmp_path) as going:
        again = going.recorded(WALK)
    assert recording.steady(again) == recording.steady(WALK)
