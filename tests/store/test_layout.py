"""The strict reader reads what `encode` writes, as h5py does, and nothing else h5py can write."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from featcache.errors import CacheDamagedError
from featcache.store.hdf5 import encode, map_arrays, read_attributes

KINDS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?", "S1", "S7"]
contents = st.dictionaries(
    st.text("abcxyz_é", min_size=1, max_size=20),
    st.sampled_from(KINDS).flatmap(
        lambda kind: arrays.arrays(
            kind, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
        )
    ),
    max_size=20,
)
texts = st.dictionaries(st.text("abc", min_size=1, max_size=9), st.text("xyz ", max_size=999))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layout") / "arrays.h5"


def same_as_h5py(file: Path) -> None:
    """Compare everything in a file with what h5py finds in it."""
    mapped = map_arrays(file)
    with h5py.File(file, "r") as plain:
        assert set(mapped) == set(plain)
        for name, array in mapped.items():
            expected = np.asarray(plain[name][()], plain[name].dtype)
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
            assert array.tobytes() == expected.tobytes()
        attributes = {name: bytes(text).decode("ascii") for name, text in plain.attrs.items()}
        assert read_attributes(file) == attributes


@given(contents, texts)
@settings(max_examples=100, deadline=None)
def test_what_is_read_is_what_h5py_reads(file: Path, originals, attributes) -> None:
    file.write_bytes(encode(originals, {name: f"{text}." for name, text in attributes.items()}))
    same_as_h5py(file)


@pytest.mark.parametrize("number", [0, 1, 8, 9, 600])
def test_any_number_of_arrays(file: Path, number: int) -> None:
    file.write_bytes(encode({f"a{i}": np.arange(3) for i in range(number)}, {"kind": "x" * 60000}))
    same_as_h5py(file)
    assert len(map_arrays(file)) == number


def test_the_bytes_are_those_of_every_hdf5_that_was_tried() -> None:
    """HDF5 1.14.2 (h5py 3.11) and 2.0.0 (h5py 3.16) write this: so one reader reads them all."""
    many = {f"a{i:04d}": np.arange(i, dtype="<i8") for i in range(300)}
    some = {kind: np.zeros((2, 3), kind) for kind in KINDS} | {"empty": np.zeros((0, 3), "<f2")}
    content = encode(many | some, {"kind": "x", "stream": "y" * 3000})
    assert hashlib.sha256(content).hexdigest() == GOLDEN


GOLDEN = "bf4851d5b28cbdb899e9412e2ce11118bbf642b71aa5590d39cd29df88668800"

Maker = Callable[[h5py.File], object]


def external(file: h5py.File) -> None:
    file.create_dataset("x", (10,), "u1", external=[("/etc/passwd", 0, 10)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((10,), "u1")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (10,), "u1")
    file.create_virtual_dataset("x", layout)


def compact(file: h5py.File) -> None:
    kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    kind.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT8, h5py.h5s.create_simple((4,)), kind)


def filled(file: h5py.File) -> None:
    file.create_dataset("x", data=np.zeros(3), fillvalue=7.0)


def committed(file: h5py.File) -> None:
    file["t"] = np.dtype("f4")


def hard_link(file: h5py.File) -> None:
    file["x"] = np.zeros(3)
    file["y"] = file["x"]


def attribute_of_an_array(file: h5py.File) -> None:
    file["x"] = np.zeros(3)
    file["x"].attrs["a"] = np.bytes_("b")


def of_any_length(file: h5py.File) -> None:
    file["x"] = np.array(["a", "bc"], h5py.string_dtype())


def references(file: h5py.File) -> None:
    file.create_dataset("x", (1,), h5py.ref_dtype)


def regions(file: h5py.File) -> None:
    file.create_dataset("x", (1,), h5py.regionref_dtype)


def a_link(file: h5py.File) -> None:
    file["x"] = h5py.SoftLink("/y")


def a_link_elsewhere(file: h5py.File) -> None:
    file["x"] = h5py.ExternalLink("/tmp/other.h5", "/x")


def an_attribute_of_any_length(file: h5py.File) -> None:
    file.attrs["a"] = "text"


STRANGE: dict[str, tuple[Maker, str]] = {
    "chunked": (lambda f: f.create_dataset("x", data=np.zeros(9), chunks=(3,)), "fill value"),
    "filtered": (lambda f: f.create_dataset("x", data=np.zeros(9), compression=4), "contiguous"),
    "growing": (lambda f: f.create_dataset("x", data=np.zeros(9), maxshape=(None,)), "grow"),
    "external": (external, "contiguous"),
    "virtual": (virtual, "contiguous|HDF5|version"),
    "compact": (compact, "contiguous"),
    "filled": (filled, "contiguous"),
    "a time": (lambda f: f.create_dataset("x", data=np.zeros(3), track_times=True), "contiguous"),
    "a type": (committed, "shared"),
    "a group": (lambda f: f.create_group("g"), "group"),
    "a soft link": (a_link, "link"),
    "an external link": (a_link_elsewhere, "plain group"),
    "a hard link": (hard_link, "overlaps|version"),
    "attributes": (attribute_of_an_array, "contiguous"),
    "an attribute of any length": (an_attribute_of_any_length, "fixed size"),
    "an attribute that is no text": (lambda f: f.attrs.update(a=np.int64(3)), "fixed size"),
    "texts of any length": (of_any_length, "fixed size"),
    "references": (references, "fixed size"),
    "regions": (regions, "fixed size"),
    "records": (lambda f: f.create_dataset("x", (2,), "i4,f4"), "fixed size"),
    "complex numbers": (lambda f: f.create_dataset("x", (2,), "c8"), "fixed size"),
    "opaque values": (lambda f: f.create_dataset("x", (2,), "V3"), "fixed size"),
    "big-endian": (lambda f: f.create_dataset("x", (2,), ">i4"), "fixed size"),
    "arrays within arrays": (lambda f: f.create_dataset("x", (2,), "(3,)f4"), ""),
    "no space": (lambda f: f.create_dataset("x", dtype="f4", data=h5py.Empty("f4")), "shape"),
}


@pytest.mark.faults
@pytest.mark.parametrize("kind", STRANGE)
def test_whatever_else_h5py_writes_is_refused(tmp_path: Path, kind: str, tried) -> None:
    path = tmp_path / "strange.h5"
    make, why = STRANGE[kind]
    with h5py.File(path, "w", libver="earliest", track_order=False) as file:
        make(file)
    with pytest.raises(CacheDamagedError, match=rf"strange\.h5: not a file.*({why})"):
        map_arrays(path)
    tried("HDF5 of other kinds", 1, sees="<file>: not a file of arrays that featcache wrote")


@pytest.mark.faults
@pytest.mark.parametrize("options", [{"libver": "latest"}, {"userblock_size": 512}])
def test_other_versions_of_the_format_are_refused(tmp_path: Path, options, tried) -> None:
    with h5py.File(tmp_path / "x.h5", "w", **options) as file:
        file.create_dataset("x", data=np.zeros(3), track_times=False)
    with pytest.raises(CacheDamagedError, match=r"no HDF5 file|another version"):
        map_arrays(tmp_path / "x.h5")
    tried("HDF5 of other kinds", 1, sees="<file>: not a file of arrays that featcache wrote")


class Forged:
    """A whole file of two arrays, to be changed at places that are found by what stands there."""

    def __init__(self) -> None:
        self.content = bytearray(encode({"x": np.arange(4), "y": np.arange(4)}, {"kind": "k"}))
        self.headers = [i for i in range(0, len(self.content), 4096) if self._is_array(i)]

    def _is_array(self, place: int) -> bool:
        return bytes(self.content[place : place + 4]) == b"\x01\x00\x05\x00"

    def is_empty(self, place: int) -> bool:
        """Whether a message that fills the rest of an object header stands somewhere."""
        kind, size = struct.unpack_from("<HH", self.content, place)
        return kind == 0 and size > 64

    def at(self, mark: bytes, offset: int = 0) -> int:
        return self.content.index(mark) + offset

    def put(self, place: int, form: str, *values: int) -> None:
        struct.pack_into(form, self.content, place, *values)

    def layout(self, array: int) -> int:
        """Where the address of an array stands."""
        return self.content.index(b"\x03\x01", self.headers[array] + 80) + 2


def overlapping(forged: Forged) -> None:
    (address,) = struct.unpack_from("<Q", forged.content, forged.layout(0))
    forged.put(forged.layout(1), "<Q", address + 8)


def over_the_metadata(forged: Forged) -> None:
    forged.put(forged.layout(0), "<Q", forged.at(b"TREE"))


def beyond_the_file(forged: Forged) -> None:
    forged.put(forged.layout(0), "<Q", len(forged.content) - 8)


def nowhere(forged: Forged) -> None:
    forged.put(forged.layout(0), "<Q", 0xFFFFFFFFFFFFFFFF)


def another_length(forged: Forged) -> None:
    forged.put(forged.layout(0) + 8, "<Q", 1 << 40)


def a_huge_shape(forged: Forged) -> None:
    place = forged.headers[0] + 32
    forged.put(place, "<QQ", 1 << 61, 1 << 61)
    forged.put(forged.layout(0) + 8, "<Q", (1 << 64) - 1)


def a_loop_of_the_tree(forged: Forged) -> None:
    tree = forged.at(b"TREE")
    forged.put(tree + 5, "<B", 1)
    forged.put(tree + 32, "<Q", tree)


def a_deep_tree(forged: Forged) -> None:
    forged.put(forged.at(b"TREE", 5), "<B", 200)


def a_wide_tree(forged: Forged) -> None:
    forged.put(forged.at(b"TREE", 6), "<H", 65535)


def many_names(forged: Forged) -> None:
    forged.put(forged.at(b"SNOD", 6), "<H", 65535)


def one_name_twice(forged: Forged) -> None:
    forged.put(forged.at(b"SNOD", 8 + 40), "<Q", 8)


def a_name_outside(forged: Forged) -> None:
    forged.put(forged.at(b"SNOD", 8), "<Q", 1 << 63)


def a_long_name(forged: Forged) -> None:
    """Names of a file may not be longer than the file, together."""
    heap = forged.at(b"HEAP") + 32
    forged.content[heap : heap + 4064] = b"a" * 4064
    forged.put(forged.at(b"HEAP", 8), "<Q", 4064)


def a_header_that_goes_on_at_itself(forged: Forged) -> None:
    place = forged.headers[0]
    (empty,) = (i for i in range(place + 16, place + 272, 8) if forged.is_empty(i))
    forged.put(empty, "<HHI", 0x10, 16, 0)
    forged.put(empty + 8, "<QQ", place, 256)


def a_long_header(forged: Forged) -> None:
    forged.put(forged.headers[0] + 8, "<I", 0xFFFFFFFF)


def a_shared_message(forged: Forged) -> None:
    forged.put(forged.headers[0] + 16 + 4, "<B", 2)


def a_long_heap(forged: Forged) -> None:
    forged.put(forged.at(b"HEAP", 8), "<Q", 1 << 50)


def another_end(forged: Forged) -> None:
    forged.put(40, "<Q", len(forged.content) + 1)


FORGERIES = [
    *(overlapping, over_the_metadata, beyond_the_file, nowhere, another_length, a_huge_shape),
    *(a_loop_of_the_tree, a_deep_tree, a_wide_tree, many_names, one_name_twice, a_name_outside),
    a_long_name,
    *(a_header_that_goes_on_at_itself, a_long_header, a_shared_message, a_long_heap, another_end),
]


@pytest.mark.faults
@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_forged_addresses_and_sizes_are_refused(tmp_path: Path, forge, tried) -> None:
    forged = Forged()
    before = bytes(forged.content)
    forge(forged)
    assert before != bytes(forged.content)
    (tmp_path / "forged.h5").write_bytes(forged.content)
    with pytest.raises(CacheDamagedError, match=r"forged\.h5: not a file of arrays"):
        map_arrays(tmp_path / "forged.h5")
    tried("forged HDF5", 1, sees="<file>: not a file of arrays that featcache wrote")


def test_a_truth_value_is_one(tmp_path: Path) -> None:
    content = bytearray(encode({"x": np.array([True, False])}, {}))
    content[-1] = 2
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(CacheDamagedError, match="neither 0 nor 1"):
        map_arrays(tmp_path / "x.h5")


def test_h5py_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by accident: reading works where h5py does not."""
    (tmp_path / "x.h5").write_bytes(encode({"x": np.arange(3)}, {}))
    monkeypatch.setattr(h5py, "File", None)
    assert map_arrays(tmp_path / "x.h5")["x"].tolist() == [0, 1, 2]
