"""log.jsonl: what ran and when. A convenience, never part of what is compared or trusted alone."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, cast

from featcache.store.files import open_regular

JOURNAL = "log.jsonl"

_MOST_BYTES = 1 << 20
"""Read from its end: thousands of lines."""


def note(folder: Path, event: str, **facts: Any) -> None:
    """Append one line; a folder that cannot be written loses the line, not the work."""
    with contextlib.suppress(OSError), (folder / JOURNAL).open("a", encoding="ascii") as file:
        file.write(json.dumps({"event": event, **facts}, sort_keys=True) + "\n")


def last(folder: Path, event: str) -> dict[str, Any] | None:
    """The newest whole line of an event, or None; torn lines are passed over."""
    return next(reversed(every(folder, event)), None)


def every(folder: Path, event: str) -> list[dict[str, Any]]:
    """All whole lines of an event that are still read, the oldest first; torn ones are left out."""
    found: list[dict[str, Any]] = []
    for line in _lines(folder):
        with contextlib.suppress(ValueError, RecursionError):
            parsed: Any = json.loads(line)
            entry = cast(dict[str, Any], parsed) if isinstance(parsed, dict) else {}
            if entry.get("event") == event:
                found.append(entry)
    return found


def _lines(folder: Path) -> list[str]:
    try:
        with open_regular(folder / JOURNAL) as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _MOST_BYTES, 0))
            return file.read(_MOST_BYTES).decode("ascii", errors="replace").splitlines()
    except OSError:  # a `StoreError` is one, too
        return []


def settled_before(folder: Path, index_sha256: str) -> int | None:
    """The clock (ns) when the last scan began, if it made the index of that hash; else None."""
    scanned = last(folder, "scan") or {}
    started = scanned.get("started_ns")
    same = scanned.get("index") == index_sha256
    return started if same and isinstance(started, int) else None
