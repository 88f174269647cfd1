"""Names in messages and on disk: printable, short, safe."""

from __future__ import annotations

import re
from collections.abc import Collection

LONGEST_NAME = 60
"""Characters of a source's name; a cache folder is called `<source>-<backbone>`."""


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
