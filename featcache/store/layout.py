"""A strict reader of the HDF5 files that `hdf5.encode` writes, and of no others.

libhdf5 is made for files of every kind, and may crash on one that was made to hurt it. So it never
opens a file here: what it writes of plain arrays is little, is the same from HDF5 1.14 to 2.0, and
is read by hand. A superblock of version 0 leads to one group; its B-tree, heap and symbol table
lead to an object header for each array, which says type, shape, and where the bytes are.

Whatever is not written by `encode` is refused: other layouts (chunked, compact, external, virtual),
filters, links, types without a fixed size, messages of other kinds, addresses outside the file.
Every byte may belong to one thing only, so that nothing overlaps and no walk can go round in a
circle; and no more is read than the file has.

Source: HDF5 File Format Specification, version 3.0 (The HDF Group).
"""

from __future__ import annotations

import math
import mmap
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

UNDEFINED = 0xFFFFFFFFFFFFFFFF
"""An address of nothing."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = struct.Struct("<8s8B2HI4Q2QIIQQ")
_LEAF_K, _INTERNAL_K = 4, 16
_VERSIONS = (0, 0, 0, 0, 0, 8, 8, 0)
"""Of superblock, free space, root, -, shared messages; sizes of an offset and a length; -."""

_HEADER = struct.Struct("<BBHIIxxxx")
_MESSAGE = struct.Struct("<HHBxxx")
_TREE = struct.Struct("<4sBBHQQ")
_HEAP = struct.Struct("<4sB3xQQQ")
_SYMBOLS = struct.Struct("<4sBBH")
_SYMBOL = struct.Struct("<QQII16x")
_ATTRIBUTE = struct.Struct("<BBHHH")
_CONTIGUOUS = struct.Struct("<BBQQ")

_NIL, _DATASPACE, _DATATYPE, _FILL, _LAYOUT, _TEXT, _CONTINUATION, _GROUP = (
    *(0x00, 0x01, 0x03, 0x05),
    *(0x08, 0x0C, 0x10, 0x11),
)
_ARRAY = [_DATASPACE, _DATATYPE, _FILL, _LAYOUT]
_WRITTEN_LATE = bytes((2, 2, 2, 1, 0, 0, 0, 0))
"""The fill value message: space is allocated when it is written, and nothing else fills it."""

_MOST_BYTES = 1 << 20
"""Of one heap, or one part of an object header."""
_MOST_DIMENSIONS = 32
_LONGEST_NAME = 1 << 10
"""In bytes: names may share bytes of a heap, and would be many times as long as the file."""
_DEEPEST = 3
"""Levels of a tree of names: three hold over two million."""


@dataclass(frozen=True)
class Place:
    """Where an array lies.

    Attributes:
        offset: in bytes from the start of the file; 0 of an array without elements.
        shape, dtype: its own.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Contents:
    """What a file holds: ASCII texts of its root group, and arrays, by name."""

    attributes: dict[str, str]
    places: dict[str, Place]


def read_layout(content: mmap.mmap | bytes) -> Contents:
    """What a file holds, without its arrays' bytes.

    Args:
        content: the whole file, mapped.

    Raises:
        ValueError: it is not a file that `hdf5.encode` wrote; says in what.
    """
    source = _Source(memoryview(content))
    root, tree, heap = _superblock(source)
    messages = _messages(source, root)
    attributes = [body for kind, body in messages if kind == _TEXT]
    others = [(kind, body) for kind, body in messages if kind != _TEXT]
    _require(others == [(_GROUP, struct.pack("<QQ", tree, heap))], "its root is no plain group")
    return Contents(
        attributes=_once(map(_attribute, attributes)),
        places=_once(
            (name, _place(source, name, header)) for name, header in _names(source, tree, heap)
        ),
    )


def is_stored(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of a little-endian type can be read again."""
    return dtype in _DTYPES.values() or (dtype.kind == "S" and dtype.itemsize > 0)


class _Source:
    """A file's bytes, each of which belongs to one thing only."""

    def __init__(self, content: memoryview) -> None:
        self.content = content
        self._starts: list[int] = []
        self._ends: list[int] = []

    def claim(self, offset: int, size: int, what: str) -> None:
        """Say what some bytes are.

        Raises:
            ValueError: they are outside the file, or something else.
        """
        if not size:
            return
        end = offset + size
        _require(end <= len(self.content), f"{what} says it is longer than the file")
        after = bisect_right(self._starts, offset)
        clear = not after or self._ends[after - 1] <= offset
        clear &= after == len(self._starts) or end <= self._starts[after]
        _require(clear, f"{what} overlaps something else")
        self._starts.insert(after, offset)
        self._ends.insert(after, end)

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Bytes that are claimed."""
        _require(size <= _MOST_BYTES, f"{what} is too long")
        self.claim(offset, size, what)
        return bytes(self.content[offset : offset + size])


def _superblock(source: _Source) -> tuple[int, int, int]:
    """Addresses of the root's header, of its tree and of its heap."""
    signature, *fields = _SUPERBLOCK.unpack(source.read(0, _SUPERBLOCK.size, "its beginning"))
    versions, ks, flags = tuple(fields[:8]), tuple(fields[8:10]), fields[10]
    base, free, end, driver, name, root, cached, _, tree, heap = fields[11:]
    _require(signature == _SIGNATURE, "it is no HDF5 file")
    ours = (versions, ks, flags, base, free, driver, name, cached) == (
        *(_VERSIONS, (_LEAF_K, _INTERNAL_K), 0),
        *(0, UNDEFINED, UNDEFINED, 0, 1),
    )
    _require(ours, "it is of another version or kind of HDF5")
    _require(end == len(source.content), "it is not as long as it says")
    return root, tree, heap


def _messages(source: _Source, address: int) -> list[tuple[int, bytes]]:
    """(kind, content) of an object header's messages, those that are empty left out."""
    first = source.read(address, _HEADER.size, "an object header")
    version, _, count, references, size = _HEADER.unpack(first)
    _require((version, references) == (1, 1), "an object header is of another version")
    parts, messages = [(address + _HEADER.size, size)], list[tuple[int, bytes]]()
    for offset, length in parts:  # which grow
        for kind, body in _part(source.read(offset, length, "an object header")):
            if kind == _CONTINUATION:
                _require(len(body) == 16, "an object header goes on nowhere")
                parts.append(struct.unpack("<QQ", body))
            messages.append((kind, body))
    _require(len(messages) == count, "an object header has another number of messages")
    return [message for message in messages if message[0] not in (_NIL, _CONTINUATION)]


def _part(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of the messages of one part of an object header."""
    start = 0
    while start < len(content):
        _require(start + _MESSAGE.size <= len(content), "an object header ends within a message")
        kind, size, flags = _MESSAGE.unpack_from(content, start)
        start += _MESSAGE.size
        _require(start + size <= len(content), "a message is longer than its object header")
        _require(flags in (0, 1), "a message is shared")
        yield kind, content[start : start + size]
        start += size


def _names(source: _Source, tree: int, heap: int) -> Iterator[tuple[str, int]]:
    """(name, address of its object header) of each array."""
    signature, version, size, _, address = _HEAP.unpack(source.read(heap, _HEAP.size, "its heap"))
    _require((signature, version) == (b"HEAP", 0), "its heap is of another version")
    texts = source.read(address, size, "its heap")
    for node in _leaves(source, tree):
        yield from ((_text(texts, offset), header) for offset, header in _symbols(source, node))


def _leaves(source: _Source, address: int, below: int = _DEEPEST) -> Iterator[int]:
    """Addresses of a tree's symbol tables, in order."""
    size = _TREE.size + 8 * (4 * _INTERNAL_K + 1)
    content = source.read(address, size, "its tree of names")
    signature, kind, level, count, _, _ = _TREE.unpack_from(content)
    _require((signature, kind) == (b"TREE", 0), "its tree of names is none")
    _require(level < below and count <= 2 * _INTERNAL_K, "its tree of names is too large")
    children = struct.unpack_from(f"<{2 * count}Q", content, _TREE.size)[1::2]  # after its key
    for child in children:
        if level:
            yield from _leaves(source, child, level)
        else:
            yield child


def _symbols(source: _Source, address: int) -> Iterator[tuple[int, int]]:
    """(where the name lies in the heap, address of the object header) of a symbol table."""
    size = _SYMBOLS.size + 2 * _LEAF_K * _SYMBOL.size
    content = source.read(address, size, "a table of names")
    signature, version, _, count = _SYMBOLS.unpack_from(content)
    _require((signature, version) == (b"SNOD", 1), "a table of names is of another version")
    _require(count <= 2 * _LEAF_K, "a table of names is too long")
    for i in range(count):
        name, header, cached, _ = _SYMBOL.unpack_from(content, _SYMBOLS.size + i * _SYMBOL.size)
        _require(cached == 0, "a name is a link, or that of a group")
        yield name, header


def _text(content: bytes, start: int) -> str:
    """The text that starts somewhere and ends at a zero byte."""
    end = content.find(b"\0", start, start + _LONGEST_NAME + 1)
    _require(start < end, "a name has no end")
    return content[start:end].decode("utf-8")


def _once(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """By name, each of which may stand there once."""
    found: dict[str, Any] = {}
    for name, value in named:
        _require(name not in found, f"{name!r} is there twice")
        found[name] = value
    return found


def _attribute(body: bytes) -> tuple[str, str]:
    """Name and ASCII text of an attribute."""
    _require(len(body) >= _ATTRIBUTE.size, "an attribute is too short")
    version, _, *sizes = _ATTRIBUTE.unpack_from(body)
    starts = [_ATTRIBUTE.size]
    for size in sizes:  # each part is padded to eight bytes
        starts.append(starts[-1] + -(-size // 8) * 8)
    name, kind, space = (body[a : a + size] for a, size in zip(starts, sizes, strict=False))
    _require(version == 1, "an attribute is of another version")
    dtype, shape = _dtype(kind), _shape(space)
    value = body[starts[-1] : starts[-1] + dtype.itemsize]
    _require(dtype.kind == "S" and shape == (), "an attribute is no text")
    _require(len(value) == dtype.itemsize, "an attribute is longer than its message")
    return _text(name, 0), value.rstrip(b"\0").decode("ascii")


def _place(source: _Source, name: str, header: int) -> Place:
    """Where an array lies, its bytes claimed."""
    messages = _messages(source, header)
    plain = sorted(kind for kind, _ in messages) == _ARRAY
    _require(plain, f"{name!r} is not a plain contiguous array")
    body = dict(messages)
    dtype, shape = _dtype(body[_DATATYPE]), _shape(body[_DATASPACE])
    _require(body[_FILL] == _WRITTEN_LATE, f"{name!r} has a fill value")
    size = dtype.itemsize * math.prod(shape)
    largest = dtype.itemsize * math.prod(max(side, 1) for side in shape)
    _require(largest < 1 << 62, f"{name!r} is larger than any array")
    offset = _offset(name, body[_LAYOUT], size)
    source.claim(offset, size, repr(name))
    return Place(offset, shape, dtype)


def _offset(name: str, body: bytes, size: int) -> int:
    """Where so many bytes lie."""
    plain = len(body) >= _CONTIGUOUS.size and body[:2] == b"\x03\x01"
    _require(plain, f"{name!r} is not a plain contiguous array")
    _, _, address, length = _CONTIGUOUS.unpack_from(body)
    _require(length == size, f"{name!r} has {length} bytes, its shape {size}")
    _require(size == 0 or address != UNDEFINED, f"{name!r} lies nowhere")
    return address if size else 0


def _shape(body: bytes) -> tuple[int, ...]:
    """Dimensions that cannot grow."""
    _require(len(body) >= 8 and body[0] == 1, "a shape is of another version")
    rank, flags = body[1], body[2]
    _require(rank <= _MOST_DIMENSIONS and flags == (rank > 0), "a shape has other dimensions")
    _require(len(body) >= 8 + 16 * rank, "a shape is too short")
    dimensions = struct.unpack_from(f"<{2 * rank}Q", body, 8)
    _require(dimensions[:rank] == dimensions[rank:], "a shape can grow")
    return dimensions[:rank]


def _dtype(body: bytes) -> np.dtype[Any]:
    """A little-endian type of fixed size."""
    if body in _DTYPES:
        return _DTYPES[body]
    length = int.from_bytes(body[4:], "little")
    text = len(body) == 8 and body[:4] == b"\x13\x01\0\0" and 0 < length < 1 << 31
    _require(text, "a type is not of fixed size, or not little-endian")
    return np.dtype(f"S{length}")


def _padded(message: bytes) -> bytes:
    """With zero bytes to a multiple of eight."""
    return message + bytes(-len(message) % 8)


def _whole_number(size: int, *, signed: bool) -> bytes:
    """The message of a whole number's type."""
    return struct.pack("<BBHIHH", 0x10, 0x08 * signed, 0, size, 0, 8 * size)


def _fraction(size: int, exponent: int) -> bytes:
    """The message of a binary type of IEEE 754, by the bits of its exponent."""
    sign, bias = 8 * size - 1, (1 << exponent - 1) - 1
    places = (sign - exponent, exponent, 0, sign - exponent)
    return struct.pack("<BBHIHH4BI", 0x11, 0x20, sign, size, 0, 8 * size, *places, bias)


_BOOLEAN = (
    struct.pack("<BHBI", 0x18, 2, 0, 1)
    + _whole_number(1, signed=True)
    + struct.pack("<8s8s2B", b"FALSE", b"TRUE", 0, 1)
)
_DTYPES: dict[bytes, np.dtype[Any]] = {
    **{_padded(_fraction(n, bits)): np.dtype(f"<f{n}") for n, bits in ((2, 5), (4, 8), (8, 11))},
    **{_padded(_whole_number(n, signed=True)): np.dtype(f"<i{n}") for n in (1, 2, 4, 8)},
    **{_padded(_whole_number(n, signed=False)): np.dtype(f"<u{n}") for n in (1, 2, 4, 8)},
    _padded(_BOOLEAN): np.dtype("?"),
}
"""By message: all that `encode` writes but texts, whose length is in theirs."""


def _require(holds: bool, otherwise: str) -> None:
    """Refuse a file.

    Raises:
        ValueError: says in what it is not as we write it.
    """
    if not holds:
        raise ValueError(otherwise)
