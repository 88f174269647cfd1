"""What a disk holds after a power cut: a model of what was synced and what was not.

A file's bytes last once the file was synced, a name once its folder was, and nothing before: what
POSIX promises, and no more. What was not synced may be there in any part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .injecting import CREATE, CUT, FOLDER, REMOVE, REMOVE_FOLDER, RENAME, SYNC, WRITE, Change

Tree = dict[str, bytes | None]
"""Bytes of files and None for folders, by path."""

_ALL_OF = 4


@dataclass(eq=False)
class File:
    """A file: its bytes now, and those that last."""

    now: bytes = b""
    lasting: bytes = b""

    def sync(self) -> None:
        """Let the bytes as they are last."""
        self.lasting = self.now


@dataclass(eq=False)
class Folder:
    """A folder: its names now, those that last, and what was done to them since."""

    now: dict[str, File | Folder] = field(default_factory=dict)
    lasting: dict[str, File | Folder] = field(default_factory=dict)
    since: list[dict[str, File | Folder | None]] = field(default_factory=list)

    def change(self, **names: File | Folder | None) -> None:
        """Give names to things, or to nothing, at once."""
        self.since.append(names)
        self.now = _changed(self.now, names)

    def sync(self) -> None:
        """Let the names as they are last."""
        self.lasting, self.since = dict(self.now), []


def _changed(
    entries: Mapping[str, File | Folder], names: Mapping[str, File | Folder | None]
) -> dict[str, File | Folder]:
    """Entries after a change; what was renamed is no longer where it was, under any name."""
    gone = {name for name, thing in names.items() if thing is None}
    came = {name: thing for name, thing in names.items() if thing is not None}
    return {k: v for k, v in entries.items() if k not in gone} | came


class Disk:
    """A folder on a disk: what it is now, and what it may be after a power cut."""

    def __init__(self, tree: Mapping[str, bytes | None] | None = None) -> None:
        """Take what is there, all of which lasts."""
        self._root = Folder()
        for path, content in sorted((tree or {}).items()):
            parent, name = self._place(path)
            parent.now[name] = Folder() if content is None else File(content, content)
        for folder in self._folders():
            folder.sync()

    def apply(self, change: Change) -> None:
        """What a change does."""
        if change.kind == SYNC:
            self._thing(change.path).sync()
        elif change.kind in (WRITE, CUT):
            self._write(change)
        elif change.kind == RENAME:
            self._rename(change)
        else:
            parent, name = self._place(change.path)
            made = {CREATE: File, FOLDER: Folder, REMOVE: None, REMOVE_FOLDER: None}[change.kind]
            parent.change(**{name: made() if made else None})

    def now(self) -> Tree:
        """What is there as long as the machine runs."""
        return _tree(self._root, lambda folder: folder.now, lambda file: file.now)

    def after_power_cuts(self) -> Iterator[Tree]:
        """What may be there after a power cut; each once.

        Of the changes of names that were not synced every subset, where they are few; else none,
        all, each alone and all but each. Of bytes that were not synced none, zeros in their place,
        half of them, and all.
        """
        since = [(f, i) for f in self._folders() for i in range(len(f.since))]
        seen = set()
        for done in _subsets(since):
            for content in (_lasting, _zeros, _half, _now):
                tree = _tree(self._root, lambda folder, done=done: _names(folder, done), content)
                key = tuple(sorted(tree.items()))
                if key not in seen:
                    seen.add(key)
                    yield tree

    def _folders(self) -> list[Folder]:
        """Every folder that is there, or may be."""
        found, todo = [], [self._root]
        while todo:
            folder = todo.pop()
            found.append(folder)
            things = [folder.now, folder.lasting, *folder.since]
            below = [t for names in things for t in names.values() if isinstance(t, Folder)]
            todo += [f for f in dict.fromkeys(below) if f not in found and f not in todo]
        return found

    def _thing(self, path: str) -> File | Folder:
        thing: File | Folder = self._root
        for part in Path(path).parts:
            thing = thing.now[part]
        return thing

    def _place(self, path: str) -> tuple[Folder, str]:
        """The folder of a path, and its name there."""
        return self._thing(str(Path(path).parent)), Path(path).name

    def _write(self, change: Change) -> None:
        file, offset = self._thing(change.path), change.offset
        if change.kind == CUT:
            file.now = file.now[:offset]
        else:
            rest = file.now[offset + len(change.data) :]
            file.now = file.now[:offset].ljust(offset, b"\0") + change.data + rest

    def _rename(self, change: Change) -> None:
        (parent, old), (target, new) = self._place(change.path), self._place(change.target)
        if parent is not target:
            raise NotImplementedError(f"{change}: from one folder to another")
        parent.change(**{old: None, new: parent.now[old]})


def _subsets(changes: list) -> Iterable[frozenset]:
    if len(changes) <= _ALL_OF:
        sizes = range(len(changes) + 1)
        return [frozenset(some) for n in sizes for some in itertools.combinations(changes, n)]
    each = [frozenset([change]) for change in changes]
    every = frozenset(changes)
    return [frozenset(), every, *each, *(every - one for one in each)]


def _names(folder: Folder, done: frozenset) -> dict[str, File | Folder]:
    """The names of a folder where only some changes since its last sync were made."""
    entries = folder.lasting
    for i, names in enumerate(folder.since):
        if (folder, i) in done:
            entries = _changed(entries, names)
    return entries


def _lasting(file: File) -> bytes:
    return file.lasting


def _now(file: File) -> bytes:
    return file.now


def _zeros(file: File) -> bytes:
    return file.lasting[: len(file.now)].ljust(len(file.now), b"\0")


def _half(file: File) -> bytes:
    return file.now[: (len(file.lasting) + len(file.now)) // 2]


def _tree(
    folder: Folder,
    names: Callable[[Folder], Mapping[str, File | Folder]],
    content: Callable[[File], bytes],
) -> Tree:
    tree: Tree = {}
    for name, thing in names(folder).items():
        if isinstance(thing, File):
            tree[name] = content(thing)
        else:
            below = _tree(thing, names, content)
            tree |= {name: None, **{f"{name}/{path}": found for path, found in below.items()}}
    return tree


def tree_of(folder: Path) -> Tree:
    """What is really there."""
    found: Tree = {}
    for path in folder.rglob("*"):
        found[str(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
    return found


def lay(tree: Tree, folder: Path) -> None:
    """Make a tree really there, in an empty folder."""
    for path, content in sorted(tree.items()):
        place = folder / path
        if content is None:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
