"""Every error has a test that reads its message: letters of it, which no other has, stand there.

This looks at texts, not at runs: that a test's text is raised is for that test to show. What it
finds is an error that was added, or reworded, and that no test knows.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import featcache
import featcache_cli
from featcache import errors

LETTERS = 12
"""So many in a row are a text of its own; what shares all of them with another is read by any."""

HOLE = "\0"
"""What stands for a value in a message; no text has it."""

SOURCES = [Path(str(package.__file__)).parent for package in (featcache, featcache_cli)]
TREE = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and kind.__module__ == errors.__name__
}


def text_of(message: ast.expr) -> str:
    """A message as it is written, with a hole for each value."""
    match message:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(text_of, parts))
        case ast.BinOp(left=left, right=right):
            return text_of(left) + text_of(right)
    return HOLE


def errors_in(source: str) -> Iterator[tuple[int, str]]:
    """Line and message of each error of the library's tree that a source makes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            if name in TREE:
                yield node.lineno, text_of(node.args[0])


def runs(text: str) -> set[str]:
    """Every run of letters of a text that has no hole."""
    found = (text[i : i + LETTERS] for i in range(len(text) - LETTERS + 1))
    return {run for run in found if HOLE not in run}


def texts_in(source: str) -> Iterator[str]:
    """What a test says, patterns also without their escapes; not what it is documented by."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in documentation:
            yield node.value
            yield re.sub(r"\\(?=[^\w\s])", "", node.value)


def unread(messages: set[str], said: set[str]) -> set[str]:
    """Messages of which no test has a run that is theirs alone (or any, where all are shared)."""
    shared = Counter(run for message in messages for run in runs(message))

    def is_read(message: str) -> bool:
        every = runs(message)
        own = {run for run in every if shared[run] == 1}
        return not every or bool((own or every) & said)

    return {message for message in messages if not is_read(message)}


def test_every_error_is_read_by_a_test() -> None:
    places = {
        f"{path.relative_to(folder.parent)}:{line}": message
        for folder in SOURCES
        for path in sorted(folder.rglob("*.py"))
        for line, message in errors_in(path.read_text(encoding="utf-8"))
    }
    assert len(places) > 300
    tests = (path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("*.py"))
    said = {run for test in tests for text in texts_in(test) for run in runs(text)}
    missing = unread(set(places.values()), said)
    told = [f"{at}: {text.replace(HOLE, '{}')}" for at, text in places.items() if text in missing]
    assert not told, (
        "no test reads the message of these errors; write one beside their room's tests that "
        f"raises it and has {LETTERS} letters in a row of its own text:\n" + "\n".join(told)
    )


@pytest.mark.parametrize(
    ("test", "missing"),
    [
        ("match=\"no cake is called 'x'; bake one\"", 1),  # the other stays unread
        ('match="cake is called"', 1),
        ('match=r"a cake of 3 layers \\(of \\d+\\); bake one"', 2),  # shared by both: neither's own
        ('match="no cake is called", says="a tart of glass cannot"', 0),
        ('"""no cake is called, a tart of glass"""', 2),
        ("", 2),
    ],
)
def test_an_error_is_read_by_a_text_of_its_own(test: str, missing: int) -> None:
    source = """
raise SourceError(f"no cake is called {name!r}; bake one")
raise errors.StoreError("a tart of glass " f"cannot be {verb}; bake one")
raise ValueError("not of the tree, whatever it says")
raise SourceError(f"{path}: {error}")
"""
    messages = {message for _, message in errors_in(source)}
    assert len(messages) == 3
    code = test if test.startswith('"""') or not test else f"f({test})"
    said = {run for text in texts_in(code) for run in runs(text)}
    assert len(unread(messages, said)) == missing
