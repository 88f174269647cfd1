"""The documents: their Python runs, their references are the code's, links lead somewhere."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main

import featcache as fc
from featcache_cli.app import app

CHECKOUT = Path(__file__).parent.parent
DOCS = CHECKOUT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUN_ELSEWHERE = {
    "export.md",  # by tests/export, with the files that it reads
    *("extracting.md", "probing.md", "unfreezing.md"),  # by tests/test_readme.py
}
WITH_PYTHON = sorted(
    p.name for p in PAGES if "```python\n" in p.read_text("utf-8") and p.name not in RUN_ELSEWHERE
)
NAMES = [name for name in fc.__all__ if name != "__version__"]
RAISE_NOTHING = {"list_backbones"}
IN_ITS_NAME = {"seconds"}  # what it is, and its unit


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    """The program behind `make reference`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(DOCS)
        yield importlib.import_module("reference")


def text(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


@pytest.mark.parametrize("document", WITH_PYTHON)
def test_the_python_of_a_document_runs(document: str, pets: Path) -> None:
    pytest.importorskip("pandas", reason="needs the extra 'frames'")
    names: dict[str, Any] = {}
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", text(document), re.M | re.S)
    ):
        exec(compile(code, f"{document}, example {number}", "exec"), names)
    if document == "python.md":
        assert names["result"].estimate.accuracy > 0.9
        assert list(names["compared"]["head"]) == ["softmax", "ridge"]
        assert list(names["search"].predict(["photo.jpg"])) == ["cat"]


@pytest.mark.parametrize("environment", [{}, {"COLUMNS": "40", "FORCE_COLOR": "1"}])
def test_the_references_are_those_of_the_code(
    reference: ModuleType, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, written in (("commands.md", reference.commands()), ("python.md", reference.python())):
        assert text(name) == written, f"docs/{name} is not what `make reference` writes"


def section(document: str, title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^## |\Z)", text(document), re.M | re.S)
    assert found, f"{document} has no section {title!r}"
    return found[1]


def test_every_option_of_every_command_is_listed() -> None:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        told = section("commands.md", f"featcache {name}")
        for parameter in command.params:
            for option in parameter.opts if parameter.opts[0][:1] == "-" else ():
                listed = re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", told)
                assert listed or option in ("--help", "-h"), f"{name} {option}"


def examples() -> list[str]:
    """Every line of a page, or of a help text, that shows how featcache is called."""
    pages = [(CHECKOUT / "README.md").read_text("utf-8"), *(p.read_text("utf-8") for p in PAGES)]
    return re.findall(r"^\$ (?:PYTHONPATH=\. )?featcache (.*)$", "\n".join(pages), re.M)


def test_every_example_is_a_command_with_its_options() -> None:
    group: Any = typer.main.get_command(app)
    assert len(examples()) > 50
    for example in examples():
        line = re.split(r" (?:2?>|[|&])", example)[0]  # what a shell makes of the rest
        name, *arguments = shlex.split(line)
        group.commands[name].make_context(name, arguments)  # parsed, not run


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_its_place(name: str) -> None:
    assert f"\n### {name}\n" in text("python.md")


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_says_what_it_takes_and_gives(name: str) -> None:
    made = getattr(fc, name)
    doc = inspect.cleandoc(made.__doc__ or "")
    if inspect.isfunction(made):
        named = [each.lstrip("*") for each in inspect.signature(made).parameters]
        assert "Args:" in doc or not named
        assert "Raises:" in doc or name in RAISE_NOTHING
    elif dataclasses.is_dataclass(made):
        named = list(made.__annotations__)
        named = [each for each in named if not each.startswith("_")]
        assert "Attributes:" in doc
    else:
        named = []
    named = [each for each in named if each not in IN_ITS_NAME]
    missing = [each for each in named if not re.search(rf"\b{each}\b[\w, ]*:", doc)]
    assert not missing, f"{name} does not say what these are: {', '.join(missing)}"
    methods = [v for k, v in vars(made).items() if not k.startswith("_") and inspect.isfunction(v)]
    assert all(method.__doc__ for method in methods)


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_leads_somewhere() -> None:
    for document in (*DOCS.glob("*.md"), *CHECKOUT.glob("*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
            path, _, anchor = target.partition("#")
            place = document.parent / path if path else document
            assert "://" in target or place.exists(), f"{document.name}: {target}"
            if anchor and "://" not in target:
                assert anchor in anchors(place), f"{document.name}: {target}"
