"""What a person names on the command line, as pictures: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator

from featcache.errors import SourceError
from featcache.images.files import PICTURE_SUFFIXES
from featcache.naming import shown


def expand(names: Iterable[str]) -> list[str]:
    """Paths of pictures, in the order named; folders and patterns give theirs sorted.

    A file named as such is taken as it is, even if it is missing or no picture: whoever reads it
    reports that beside it.

    Raises:
        SourceError: a folder without pictures, or a pattern that matches nothing.
    """
    return [path for name in names for path in _paths(name)]


def _paths(name: str) -> Iterator[str]:
    if os.path.isdir(name):  # noqa: PTH112 - names stay as typed
        found = sorted(_below(name))
        if not found:
            raise SourceError(
                f"{shown(name)}: no pictures in this folder; they end in "
                f"{' '.join(PICTURE_SUFFIXES)}"
            )
        yield from found
    elif glob.has_magic(name) and not os.path.lexists(name):
        found = list(dict.fromkeys(_matching(name)))  # `**` gives folders and what is in them
        if not found:
            raise SourceError(
                f"{shown(name)}: no picture matches; check the pattern, and quote it for your shell"
            )
        yield from found
    else:
        yield name


def _matching(pattern: str) -> Iterator[str]:
    """What a pattern matches; folders among it give their pictures, if they have some."""
    for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - names stay as typed
        if os.path.isdir(path):  # noqa: PTH112 - names stay as typed
            yield from sorted(_below(path))
        else:
            yield path


def _below(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        yield from (
            os.path.join(place, file)  # noqa: PTH118 - names stay as typed
            for file in files
            if file.lower().endswith(PICTURE_SUFFIXES) and not file.startswith(".")
        )
