"""log.jsonl: what ran and when. A convenience, never part of what is compared or trusted alone."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, cast

JOURNAL = "log.jsonl"


def note(folder: Path, event: str, **facts: Any) -> None:
    """Append one line; a folder that cannot be written loses the line, not the work."""
    with contextlib.suppress(OSError), (folder / JOURNAL).open("a", encoding="ascii") as file:
        file.write(json.dumps({"event": event, **facts}, sort_keys=True) + "\n")


def last(folder: Path, event: str) -> dict[str, Any] | None:
    """The newest whole line of an event, or None; torn lines are passed over."""
    try:
        lines = (folder / JOURNAL).read_text("ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            parsed: Any = json.loads(line)
            entry = cast(dict[str, Any], parsed) if isinstance(parsed, dict) else {}
            if entry.get("event") == event:
                return entry
    return None


def settled_before(folder: Path, index_sha256: str) -> int | None:
    """The clock (ns) when the last scan began, if it made the index of that hash; else None."""
    scanned = last(folder, "scan") or {}
    started = scanned.get("started_ns")
    same = scanned.get("index") == index_sha256
    return started if same and isinstance(started, int) else None
