"""Where an export goes, and in which format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from featcache.errors import ExportError
from featcache.store.files import fill_durably, make_folder, remove_abandoned


def format_of(what: str, file: Path, asked: str | None, suffixes: Mapping[str, str]) -> str:
    """The format that was asked for, else the one of a file's name.

    Args:
        what: is exported, in words.
        file: to be written.
        asked: a format, or None.
        suffixes: formats by suffix.

    Raises:
        ExportError: there is no such format, or the name says none.
    """
    formats = ", ".join(dict.fromkeys(suffixes.values()))
    if asked is None:
        asked = suffixes.get(file.suffix.lower())
        if asked is None:
            raise ExportError(
                f"{file}: its name says none of a {what}'s formats; give --format, one of {formats}"
            )
    elif asked not in suffixes.values():
        raise ExportError(f"format {asked!r}: a {what} is exported as one of {formats}")
    return asked


def refuse_taken(file: Path, *, overwrite: bool) -> None:
    """Refuse what is there already.

    Raises:
        ExportError: a folder, or a file that is not to be overwritten.
    """
    if file.is_dir():
        raise ExportError(f"{file}: is a folder; name the file to be written")
    if file.exists() and not overwrite:
        raise ExportError(f"{file}: is there already; give another name, or --overwrite")


def write_export(file: Path, fill: Callable[[Path], None], *, overwrite: bool) -> None:
    """Have a file written aside, and put it in place whole, durably.

    Args:
        file: where it is to be.
        fill: writes and checks it where it is told.
        overwrite: what is there already.

    Raises:
        ExportError: something is there already.
        StoreError, DiskSpaceError: it cannot be written, by path.
    """
    refuse_taken(file, overwrite=overwrite)
    make_folder(file.absolute().parent)
    remove_abandoned(file)

    def filled(draft: Path) -> None:
        fill(draft)
        refuse_taken(file, overwrite=overwrite)  # which another process may have put there

    fill_durably(file, filled)
