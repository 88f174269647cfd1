"""Texts come back as they were, whatever is in them."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.store.strings import Strings

file_names = st.binary(max_size=12).map(os.fsdecode)
texts = st.lists(
    st.one_of(st.text(st.characters(exclude_categories=["Cs"])), file_names), max_size=8
)


@given(texts)
def test_a_round_trip_changes_nothing(originals: list[str]) -> None:
    strings = Strings.of(originals)
    assert list(strings) == originals
    assert [strings[i] for i in range(len(strings))] == originals
    assert strings == Strings(strings.blob.copy(), strings.offsets.copy())


@given(texts, st.integers(-9, 9), st.integers(-9, 9))
def test_indexing_is_a_lists(originals: list[str], start: int, stop: int) -> None:
    strings = Strings.of(originals)
    assert strings[start:stop] == originals[start:stop]
    if -len(originals) <= start < len(originals):
        assert strings[start] == originals[start]
    else:
        with pytest.raises(IndexError):
            strings[start]


def test_empty_texts_newlines_and_bytes_that_are_no_utf8_are_kept() -> None:
    originals = ["", "two\nlines", os.fsdecode(b"caf\xe9.jpg"), "naïve 😀", ""]
    strings = Strings.of(originals)
    assert list(strings) == originals
    assert strings.blob.dtype == np.uint8
    assert strings.blob.tobytes() == b"two\nlines" + b"caf\xe9.jpg" + "naïve 😀".encode()


def test_other_texts_are_not_equal() -> None:
    assert Strings.of(["ab", "c"]) != Strings.of(["a", "bc"])
    assert Strings.of(["a"]) != ["a"]
