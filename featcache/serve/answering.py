"""JSON answers; names of any bytes can be in them."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


def answer(value: Any, status: int = 200) -> Response:
    """A value as JSON, in ASCII."""
    content = json.dumps(value, allow_nan=False)
    return Response(content, status, media_type="application/json")


def refusal(status: int, reason: str) -> Response:
    """Why something is not answered."""
    return answer({"error": reason}, status)
