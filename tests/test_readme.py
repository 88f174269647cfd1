"""The README and the pages it leads to are run, from their own text."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from featcache_cli.app import app

CHECKOUT = Path(__file__).parent.parent
README = (CHECKOUT / "README.md").read_text("utf-8")
RUN = ("README.md", "docs/extracting.md", "docs/probing.md", "docs/unfreezing.md")
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
OUTPUT = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
TIMED = re.compile(r"\d s\b|/s\b")  # not the same when the walk is recorded again
CALLER = "PYTHONPATH=. "  # a network of one's own lies in the folder


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, text) of what runs, in the page's order."""
    return re.findall(r"^```(console|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_command(command: str) -> None:
    program, *arguments = shlex.split(command.removeprefix(CALLER))
    assert program == "featcache"
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, f"{command}\n{result.output}"


def run_python(code: str, page: str) -> None:
    """A block that begins with `# name.py` is that file, and is written; others are run."""
    if named := re.match(r"# (\w+\.py)\n", code):
        Path(named[1]).write_text(code, "utf-8")
    else:
        exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_from_top_to_bottom(
    page: str, pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(pets)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    commands = 0
    for language, text in blocks((CHECKOUT / page).read_text("utf-8")):
        if language == "python":
            run_python(text, page)
            continue
        for line in text.splitlines():
            assert line.startswith("$ "), f"{page}: {line!r} is no command; outputs are ```text"
            run_command(line[2:])
            commands += 1
    assert commands >= 2
    if page == "README.md":
        assert "photo.jpg cat" in capsys.readouterr().out
        assert all((pets / f"pets.{kind}").is_file() for kind in ("fc", "html", "onnx", "parquet"))


def test_every_make_target_of_the_pages_exists() -> None:
    targets = {name for page in PAGES for name in make_targets(page.read_text("utf-8"))}
    makefile = (CHECKOUT / "Makefile").read_text("utf-8")
    assert targets >= {"demo", "test"}
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def make_targets(text: str) -> list[str]:
    return re.findall(r"(?:^    |`)make (?:PYTHON=\S+ )?([a-z-]+)", text, re.MULTILINE)


def test_every_extra_of_the_pages_exists() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    for page in PAGES:
        for extras in re.findall(r"featcache\[([\w,]+)\]", page.read_text("utf-8")):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), page.name


def test_every_message_that_the_readme_explains_is_one() -> None:
    source = "".join(p.read_text("utf-8") for p in (CHECKOUT / "featcache").rglob("*.py"))
    source = re.sub(r'"\n\s+f?"', "", source)  # a text that is written on several lines
    table = README.partition("\n| message, or what happens |")[2].partition("\n\n")[0]
    messages = re.findall(r"^\| `([^`]*)` \|", table, re.MULTILINE)
    assert len(messages) >= 6
    for message in messages:
        for part in filter(None, re.split(r"\s*\.\.\.\s*", message)):
            assert part in source, f"no error says {part!r}"


def test_what_the_readme_shows_was_printed_in_the_walk() -> None:
    walk = (CHECKOUT / "docs" / "walk.md").read_text("utf-8").splitlines()
    shown = README.partition("is from [docs/walk.md]")[2].partition("\n## ")[0]
    lines = [line for text in OUTPUT.findall(shown) for line in text.splitlines()]
    assert len(lines) > 10
    missing = [line for line in lines if not TIMED.search(line) and line not in ("...", *walk)]
    assert not missing, f"docs/walk.md has other lines now; copy them: {missing}"


def test_every_page_is_linked_from_the_readme() -> None:
    for page in PAGES[1:]:
        assert f"](docs/{page.name}" in README, f"README leads nowhere to docs/{page.name}"


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the schema asks
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert f"version = {{{project['version']}}}" in README
    assert f"title = {{{citation['title']}}}" in README
