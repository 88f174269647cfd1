"""Pictures listed in a CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import PictureError, SourceError, SourceMissingError
from featcache.images.listing import Sample
from featcache.images.tables import CsvSource

Write = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path, write_picture: Write) -> Callable[[str | bytes], CsvSource]:
    """A CSV beside the pictures 1.jpg, 2.jpg and sub/3.jpg."""
    for name in ("1.jpg", "2.jpg", "sub/3.jpg"):
        write_picture(tmp_path / name)

    def write(text: str | bytes) -> CsvSource:
        file = tmp_path / "my pets.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return CsvSource(file)

    return write


Table = Callable[[str | bytes], CsvSource]


def _meaning(sample: Sample) -> tuple[object, ...]:
    return sample.path, sample.labels, sample.split, sample.group


def test_all_columns(table: Table, tmp_path: Path) -> None:
    source = table(
        "path,label,split,group\n"
        "sub/3.jpg,dog,Training,p1\n"
        "1.jpg, cat ; pet;cat,valid,\n"
        "2.jpg,,,p2\n"
    )
    listing = source.scan()
    assert source.name == "my-pets"
    assert source.locator == {"kind": "csv", "location": str(tmp_path / "my pets.csv")}
    assert [_meaning(s) for s in listing.samples] == [
        ("sub/3.jpg", ("dog",), "train", "p1"),
        ("1.jpg", ("cat", "pet"), "val", None),
        ("2.jpg", (), None, "p2"),
    ]
    stat = listing.samples[1].stat
    assert stat is not None
    assert stat.inode == (tmp_path / "1.jpg").stat().st_ino
    assert source.read("sub/3.jpg") == (tmp_path / "sub/3.jpg").read_bytes()


def test_columns_in_any_order_and_extra_ones(table: Table) -> None:
    listing = table("Label,note,PATH\ncat,x,1.jpg\ndog,y,2.jpg\n").scan()
    assert [(s.path, s.labels) for s in listing.samples] == [
        ("1.jpg", ("cat",)),
        ("2.jpg", ("dog",)),
    ]
    assert listing.warnings[0] == "columns that are not used: note"


def test_as_excel_writes_it(table: Table) -> None:
    listing = table(b"\xef\xbb\xbfpath,label\r\n1.jpg,cat\r\n\r\n2.jpg,dog\r\n").scan()
    assert len(listing.samples) == 2


def test_paths_are_relative_to_the_csv_or_absolute(
    table: Table, tmp_path: Path, write_picture: Write
) -> None:
    outside = write_picture(tmp_path.parent / f"{tmp_path.name}-outside" / "4.jpg")
    source = table(f"path,label\n./sub//3.jpg,cat\n{tmp_path}/1.jpg,cat\n{outside},dog\n")
    paths = [s.path for s in source.scan().samples]
    assert paths == ["sub/3.jpg", "1.jpg", str(outside)]
    assert source.read(str(outside)) == outside.read_bytes()


def test_missing_pictures_are_skipped(table: Table) -> None:
    listing = table("path,label\n1.jpg,cat\ngone.jpg,dog\nsub,dog\na\0b.jpg,dog\n").scan()
    assert [s.path for s in listing.samples] == ["1.jpg"]
    assert listing.skips[:2] == [
        ("gone.jpg", "missing: there is no such file"),
        ("sub", "not a regular file"),
    ]
    assert listing.skips[2][1].startswith("unreadable: ")


def test_all_pictures_missing_is_an_error(table: Table) -> None:
    with pytest.raises(
        SourceMissingError, match=r"2 pictures can be found, the first is a\.jpg .* relative paths"
    ):
        table("path,label\na.jpg,cat\nb.jpg,dog\n").scan()


def test_a_row_said_twice_counts_once(table: Table) -> None:
    listing = table("path,label\n1.jpg,cat\n2.jpg,dog\n./1.jpg,cat\n").scan()
    assert [s.path for s in listing.samples] == ["1.jpg", "2.jpg"]
    assert listing.passed_over == {"repeated row": 1}


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("1.jpg,cat\n2.jpg,dog\n", 1, "lacks path, label"),
        ("path,class\n1.jpg,cat\n", 1, "lacks label"),
        ("", 1, "none"),
        ("path,label,label\n1.jpg,a,b\n", 1, "names label twice"),
        ("path,label\n1.jpg,cat\n2.jpg,dog,more\n", 3, "3 fields where the header has 2"),
        ("path,label\n1.jpg\n", 2, "1 fields"),
        ("path,label\n\n  ,cat\n", 3, "path is empty"),
        ("path,label,split\n1.jpg,cat,holdout\n", 2, "unknown split 'holdout'"),
        ("path,label\n1.jpg,cat\n2.jpg,dog\n1.jpg,dog\n", 4, "stands in line 2 with another label"),
        ("path,label,split\n1.jpg,a,train\n1.jpg,a,test\n", 3, "stands in line 2 with another"),
        ('path,label\n"1.jpg","multi\nline"\n2.jpg\n', 4, "1 fields"),
        ('path,label\n1.jpg,"cat"x\n', 2, "not valid CSV"),
        (b"path,label\n1.jpg,caf\xe9\n", 2, "label is not UTF-8"),
    ],
)
def test_errors_name_file_and_line(
    table: Table, text: str | bytes, line: int, problem: str
) -> None:
    with pytest.raises(SourceError) as caught:
        table(text).scan()
    assert f"my pets.csv:{line}: " in str(caught.value)
    assert problem in str(caught.value)


def test_a_header_alone_is_an_error(table: Table) -> None:
    with pytest.raises(SourceError, match="lists no pictures"):
        table("path,label\n").scan()


def test_the_csv_is_gone(table: Table, tmp_path: Path) -> None:
    source = table("path,label\n1.jpg,cat\n")
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(PictureError, match="missing"):
        source.read("1.jpg")
    (tmp_path / "my pets.csv").unlink()
    with pytest.raises(SourceMissingError):
        source.scan()


def test_fifos_are_never_opened(table: Table, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    source = table("path,label\n1.jpg,cat\npipe.jpg,dog\n/dev/zero,dog\n")
    assert source.scan().skips == [
        ("pipe.jpg", "not a regular file"),
        ("/dev/zero", "not a regular file"),
    ]
    with pytest.raises(PictureError, match="not a regular file"):
        source.read("pipe.jpg")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(SourceMissingError, match=r"pipe\.csv"):
        CsvSource(tmp_path / "pipe.csv").scan()


def test_names_that_are_no_utf8_and_names_with_line_breaks(
    table: Table, tmp_path: Path, write_picture: Write
) -> None:
    latin, broken = os.fsdecode(b"caf\xe9.jpg"), "line\nbreak.jpg"
    write_picture(tmp_path / latin)
    write_picture(tmp_path / broken)
    source = table(b'path,label\ncaf\xe9.jpg,cat\n"line\nbreak.jpg",dog\n')
    assert [s.path for s in source.scan().samples] == [latin, broken]
    assert source.read(latin)


_LABEL = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=";\0"), min_size=1
).filter(lambda text: text == text.strip() and text.lower() not in ("nan", "<na>", "#n/a"))
"""What stands for a missing value is refused, which a test of its own shows."""


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory, write_picture: Write) -> Path:
    root = tmp_path_factory.mktemp("five")
    for number in range(5):
        write_picture(root / f"{number}.jpg")
    return root


@given(
    rows=st.lists(
        st.tuples(
            st.lists(_LABEL, unique=True, max_size=3),
            st.sampled_from([None, "train", "val", "test"]),
            st.none() | _LABEL,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_a_csv_writer_writes_is_read_back(
    five: Path, rows: list[tuple[list[str], str | None, str | None]]
) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["path", "label", "split", "group"])
    for number, (labels, split, group) in enumerate(rows):
        writer.writerow([f"{number}.jpg", ";".join(labels), split or "", group or ""])
    (five / "rows.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    read = CsvSource(five / "rows.csv").scan().samples
    assert [(list(s.labels), s.split, s.group) for s in read] == rows
