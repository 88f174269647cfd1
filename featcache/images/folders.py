"""Class folders, train/val/test of class folders, and flat folders of unlabelled pictures."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path

import numpy as np

from featcache.errors import SourceError
from featcache.images.files import (
    PICTURE_SUFFIXES,
    absolute,
    os_reason,
    read_below,
    root_missing,
    stat_key,
)
from featcache.images.labels import SPLITS, label_warnings
from featcache.images.listing import Listing, Sample
from featcache.naming import folder_safe, name_some, shown

Entry = os.DirEntry[str]
Above = frozenset[tuple[int, int]]
"""(device, inode) of a folder and of those it was reached through; meeting one again is a loop."""

_HIDDEN = {"__macosx", "thumbs.db", "desktop.ini"}


class FolderSource:
    """Pictures in a folder; the label of each is the class folder it lies in, however deep.

    Args:
        location: the folder.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self._root = absolute(location)
        self.name = folder_safe(Path(self._root).name)
        self.locator = {"kind": "folder", "location": self._root}

    def scan(self) -> Listing:
        """List the pictures, sorted by the bytes of their paths; see `Source.scan`."""
        if not Path(self._root).is_dir():
            raise root_missing(self._root)
        walk = _Walk(self._root)
        warnings = walk.run()
        if not walk.samples:
            raise SourceError(_no_pictures(self._root, walk))
        walk.samples.sort(key=lambda sample: os.fsencode(sample.path))
        walk.skips.sort(key=lambda skip: os.fsencode(skip[0]))
        return Listing(walk.samples, dict(walk.passed_over), walk.skips, tuple(warnings))

    def read(self, path: str) -> bytes | np.ndarray:
        """Bytes of one picture; see `Source.read`."""
        return read_below(self._root, path)


class _Walk:
    """One walk through a folder, and all it has met."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.samples: list[Sample] = []
        self.passed_over: Counter[str] = Counter()
        self.skips: list[tuple[str, str]] = []
        self.empty: list[str] = []

    def run(self) -> list[str]:
        """Walk the whole source; gives the warnings."""
        status = Path(self.root).stat()
        above = frozenset({(status.st_dev, status.st_ino)})
        folders, files = self._look(self.root, "")
        if not folders:
            for entry in files:
                self._add(entry, entry.name, (), None)
            return [f"{shown(self.root)}: no class folders, so every picture is unlabelled"]
        warnings: list[str] = []
        if _are_splits(self.root, folders):
            for entry in folders:
                warnings += self._add_split(entry, above)
        else:
            self._add_classes(folders, "", None, above)
        self._pass_over(files)
        if beside := self.passed_over["outside class folders"]:
            warnings.append(f"pictures beside the class folders, passed over: {beside}")
        return [*warnings, *label_warnings(self.samples, self.empty)]

    def _add_split(self, entry: Entry, above: Above) -> list[str]:
        inside = self._enter(entry, entry.name, above)
        if inside is None:
            return []
        folders, files = self._look(entry.path, entry.name)
        if not folders:
            if any(_is_picture(file) for file in files):
                raise SourceError(
                    f"{shown(entry.path)}: named like a split, but its pictures are not in class "
                    "folders; sort them into some, or list them in a CSV (path,label,split)"
                )
            return [f"{shown(entry.name)} has no class folders"]
        self._add_classes(folders, f"{entry.name}/", SPLITS[entry.name.lower()], inside)
        self._pass_over(files)
        return []

    def _add_classes(
        self, folders: list[Entry], prefix: str, split: str | None, above: Above
    ) -> None:
        for entry in folders:
            before = len(self.samples)
            self._add_tree(entry, prefix + entry.name, (entry.name,), split, above)
            if len(self.samples) == before:
                self.empty.append(prefix + entry.name)

    def _add_tree(
        self, top: Entry, relative: str, labels: tuple[str, ...], split: str | None, above: Above
    ) -> None:
        """Add all pictures below a class folder, however deep."""
        waiting = [(top, relative, above)]
        while waiting:
            entry, relative, above = waiting.pop()
            inside = self._enter(entry, relative, above)
            if inside is None:
                continue
            folders, files = self._look(entry.path, relative)
            for file in files:
                self._add(file, f"{relative}/{file.name}", labels, split)
            waiting += [(folder, f"{relative}/{folder.name}", inside) for folder in folders]

    def _enter(self, entry: Entry, relative: str, above: Above) -> Above | None:
        """Identities above what lies in this folder; None where it leads back to one of them."""
        try:
            status = entry.stat()
        except OSError as error:
            self.skips.append((relative, os_reason(error)))
            return None
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            self.passed_over["link to a folder it lies in"] += 1
            return None
        return above | {identity}

    def _look(self, folder: str, relative: str) -> tuple[list[Entry], list[Entry]]:
        """Subfolders and files of a folder, each sorted by the bytes of the name."""
        folders: list[Entry] = []
        files: list[Entry] = []
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
                    if entry.name.startswith(".") or entry.name.lower() in _HIDDEN:
                        self.passed_over["hidden"] += 1
                    elif _is_folder(entry):
                        folders.append(entry)
                    else:
                        files.append(entry)
        except OSError as error:
            self.skips.append((relative, os_reason(error)))
        return folders, files

    def _add(self, entry: Entry, relative: str, labels: tuple[str, ...], split: str | None) -> None:
        if not _is_picture(entry):
            self.passed_over["not a picture"] += 1
            return
        try:
            status = entry.stat()
        except OSError as error:
            self.skips.append((relative, os_reason(error)))
            return
        if not stat.S_ISREG(status.st_mode):
            self.passed_over["not a regular file"] += 1
            return
        self.samples.append(Sample(relative, labels, split, None, stat_key(status)))

    def _pass_over(self, files: list[Entry]) -> None:
        for entry in files:
            reason = "outside class folders" if _is_picture(entry) else "not a picture"
            self.passed_over[reason] += 1


def _is_picture(entry: Entry) -> bool:
    return entry.name.lower().endswith(PICTURE_SUFFIXES)


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead in a circle: listed as a file, skipped with its reason
        return False


def _are_splits(root: str, folders: list[Entry]) -> bool:
    """Whether the top folders are splits; classes of such names are refused, not guessed at."""
    splits = [entry.name for entry in folders if entry.name.lower() in SPLITS]
    if not splits:
        return False
    if others := [entry.name for entry in folders if entry.name not in splits]:
        raise SourceError(
            f"{shown(root)}: {name_some(splits)} named like splits, beside {name_some(others)}; "
            "put every class folder into train, val or test, or rename these, or give a CSV "
            "(path,label,split)"
        )
    if len({SPLITS[name.lower()] for name in splits}) < len(splits):
        raise SourceError(
            f"{shown(root)}: {name_some(splits)} name one split twice; merge those folders"
        )
    return True


def _no_pictures(root: str, walk: _Walk) -> str:
    counts = dict(walk.passed_over)
    if walk.skips:
        counts["unreadable or missing"] = len(walk.skips)
    met = ", ".join(f"{reason}: {count}" for reason, count in counts.items()) or "nothing at all"
    suffixes = " ".join(PICTURE_SUFFIXES)
    return (
        f"{shown(root)}: no pictures to use ({met}); pictures end in {suffixes} and lie in one "
        "folder for each class"
    )
