"""Files of pictures are opened where they are regular, of a sensible size, and never waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import PictureError
from featcache.images import files
from featcache.images.files import read_file, regular_stat

Write = Callable[..., Path]


def swapped(monkeypatch: pytest.MonkeyPatch, swap: Callable[[], None]) -> None:
    """Something else takes a file's place after it was looked at and before it is opened."""

    def look(path: Path) -> os.stat_result:
        status = regular_stat(path)
        swap()
        return status

    monkeypatch.setattr(files, "regular_stat", look)


def test_a_fifo_that_took_a_files_place_is_not_waited_for(
    tmp_path: Path, write_picture: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = write_picture(tmp_path / "1.jpg")

    def swap() -> None:
        picture.unlink()
        os.mkfifo(picture)

    swapped(monkeypatch, swap)
    with pytest.raises(PictureError, match="not a regular file"):
        read_file(str(tmp_path), "1.jpg")


def test_a_file_that_does_not_fit_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "1.jpg").open("wb") as file:
        file.truncate(1 << 30)
    code = (
        "import resource, sys\n"
        "from featcache.errors import PictureError\n"
        "from featcache.images.files import read_file\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try:\n    read_file(sys.argv[1], '1.jpg')\n"
        "except PictureError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "too large: it does not fit in memory\n"


def test_a_file_that_vanished_and_one_that_grows(
    tmp_path: Path, write_picture: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = write_picture(tmp_path / "1.jpg")
    with monkeypatch.context() as patch:
        swapped(patch, picture.unlink)
        with pytest.raises(PictureError, match="missing: there is no such file"):
            read_file(str(tmp_path), "1.jpg")
    write_picture(tmp_path / "1.jpg")
    fstat = os.fstat

    def before_it_grew(descriptor: int) -> os.stat_result:
        status = list(fstat(descriptor))
        status[6] -= 1
        return os.stat_result(status)

    monkeypatch.setattr(os, "fstat", before_it_grew)
    with pytest.raises(PictureError, match="it grew while it was read"):
        read_file(str(tmp_path), "1.jpg")


def test_a_file_too_large_for_any_picture_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "1.jpg").open("wb") as file:
        file.truncate(1 << 40)  # no byte of which is on the disk
    with pytest.raises(
        PictureError, match="too large: 1,099,511,627,776 bytes, the limit is 2,147"
    ):
        read_file(str(tmp_path), "1.jpg")


@pytest.mark.skipif(
    sys.platform != "linux", reason="files of no size that have content are those of Linux's /proc"
)
def test_what_the_system_invents_as_it_is_read_is_no_picture() -> None:
    """A file of no size that has content all the same, of any length."""
    with pytest.raises(PictureError, match="it grew while it was read"):
        read_file("/proc/self", "maps")
