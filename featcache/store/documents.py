"""JSON files that carry their own digest: no byte of them can change unnoticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

_DIGEST = "digest"

MOST_BYTES = 32 << 20
"""Of a document that is read: a hundred times what a manifest of a million pictures takes."""


def encode(body: Mapping[str, Any]) -> bytes:
    """The bytes of a document: indented ASCII JSON with sorted keys and the digest of the rest.

    Args:
        body: JSON's own types.
    """
    plain = json.loads(json.dumps(body))  # keys as texts, so that they sort as they will be read
    return _text({**plain, _DIGEST: hashlib.sha256(_text(plain)).hexdigest()})


def decode(content: bytes) -> tuple[dict[str, Any], bool]:
    """A document's body, and whether its bytes are the ones that were written.

    Raises:
        ValueError: it is no document at all.
    """
    try:
        document: Any = json.loads(content)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - wrong bytes, not a wrong argument
        body = cast(dict[str, Any], document)
        body.pop(_DIGEST, None)
        return body, encode(body) == content
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _text(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, indent=1, sort_keys=True).encode("ascii") + b"\n"
