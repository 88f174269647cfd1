"""No byte of a document can change unnoticed."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.store import documents

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
bodies = st.dictionaries(
    st.text().filter(lambda key: key != "digest"),
    st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
)


@given(bodies)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_a_round_trip_is_whole(body) -> None:
    content = documents.encode(body)
    found, whole = documents.decode(content)
    assert whole
    assert json.dumps(found, sort_keys=True) == json.dumps(body, sort_keys=True)


def test_every_changed_byte_is_noticed() -> None:
    content = documents.encode({"a": [1, 2.5, "x"], "b": {"c": None}})
    for i in range(len(content)):
        for flip in (1, 32):
            changed = bytearray(content)
            changed[i] ^= flip
            try:
                _, whole = documents.decode(bytes(changed))
            except ValueError:
                continue
            assert not whole, f"byte {i} of {content!r}"


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{", b"null"])
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own texts
        documents.decode(content)
