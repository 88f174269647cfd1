"""Names in messages, on disk, in command lines and in spreadsheets: printable, short, safe."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection

LONGEST_NAME = 60
"""Characters of a source's name; a cache folder is called `<source>-<backbone>`."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")  # noqa: RUF001
"""What a cell begins with that a spreadsheet would run (wide signs too), and what marks those."""


def shown(name: str) -> str:
    """A name as it can be printed: line breaks and bytes that are no UTF-8 are escaped."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def name_some(names: Collection[str], limit: int = 5) -> str:
    """The first few names, and how many more there are: `a, b, c, d, e and 7 more`."""
    listed = ", ".join(shown(name) for name in list(names)[:limit])
    more = len(names) - limit
    return f"{listed} and {more} more" if more > 0 else listed


def folder_safe(name: str) -> str:
    """A name that can be part of a folder's name on any file system."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:LONGEST_NAME] or "pictures"


def quoted(argument: str) -> str:
    """An argument as a POSIX shell reads it; what cannot be printed as bytes in $'...'."""
    if argument.isprintable():
        return shlex.quote(argument)
    spelt = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b"\\'" else f"\\x{byte:02x}"
        for byte in os.fsencode(argument)
    )
    return f"$'{spelt}'"


def command_line(*words: str | os.PathLike[str]) -> str:
    """A command for a POSIX shell; what is given as a path is never taken for an option."""
    return " ".join(map(quoted, map(_argument, words)))


def _argument(word: str | os.PathLike[str]) -> str:
    text = os.fspath(word)
    return f"./{text}" if text.startswith("-") and not isinstance(word, str) else text


def harmless(text: str) -> str:
    """A text that no spreadsheet runs: a formula gets a ' in front, unless it is a number.

    So does what begins with ' already: taking one away gives back the text. See OWASP's "CSV
    injection".
    """
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and not text[:1].isspace()
