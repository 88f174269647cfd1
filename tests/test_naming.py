"""Names are read back as they were meant: by a shell, and by a spreadsheet."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.naming import command_line, harmless


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=12), min_size=1))
@settings(max_examples=15, deadline=None)
def test_what_is_suggested_is_read_by_a_shell_as_it_was_meant(texts: list[str]) -> None:
    names = [
        os.fsencode(text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"))
        for text in texts
    ]
    command = command_line("printf", "%s\\0", *map(os.fsdecode, names))
    assert "\n" not in command
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout == b"".join(name + b"\0" for name in names)


def test_a_path_is_never_an_option() -> None:
    assert command_line("featcache", "info", Path("-v")) == "featcache info ./-v"
    assert command_line("featcache", Path("/-v"), "--cut", "-v") == "featcache /-v --cut -v"


@pytest.mark.parametrize("text", ["=1+2", "+a", "-x", "@sum", "＝1", "\t=1", "'quoted", "'=both"])  # noqa: RUF001
def test_a_formula_is_marked_and_comes_back(text: str) -> None:
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-1", "+1.5e3", "cat", "a=b", ""])
def test_what_is_no_formula_stays(text: str) -> None:
    assert harmless(text) == text
