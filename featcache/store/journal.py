"""log.jsonl: what ran and when. A convenience, never part of what is compared or trusted alone."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

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
        with contextlib.suppress(ValueError, TypeError):
            entry: Any = json.loads(line)
            if str(dict(entry).get("event")) == event:
                return entry
    return None
