"""What all records have in common."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any


def _plain(value: Any) -> Any:
    """Records, tuples and mappings as JSON's own types; what is no number in JSON is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Record:
    """Parent of what commands return."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON's own types, with the keys that `--json` prints.

        JSON has no infinity and no NaN: such a number is null.
        """
        return _plain(self)
