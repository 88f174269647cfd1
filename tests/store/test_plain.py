"""A plain HDF5 file is what h5py reads, whatever the texts and however many rows at a time."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from featcache.store.plain import PlainFile


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_blocks_become_one_array(tmp_path: Path, rows: int) -> None:
    numbers = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float16)
    texts = ["a", "", "ü" * 300, "caf\udce9", "nul\0nul", "名", "g"]
    cuts = range(0, 7, rows)
    with PlainFile(tmp_path / "x.h5", {"about": "ä"}) as file:
        file.numbers("a/b", (7, 2, 3), "f2", (numbers[i : i + rows] for i in cuts), {"cut": "c"})
        file.texts("names", 7, (texts[i : i + rows] for i in cuts))
        file.texts("none", 0, [[]])
    with h5py.File(tmp_path / "x.h5") as read:
        assert read.attrs["about"] == "ä"
        assert np.array_equal(read["a/b"], numbers)
        assert read["a/b"].attrs["cut"] == "c"
        found = list(read["names"].asstr(errors="surrogateescape"))
        assert found == [*texts[:4], r"nul\x00nul", *texts[5:]]
        assert read["none"].shape == (0,)


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"mine")
    with pytest.raises(OSError, match="exists"), PlainFile(tmp_path / "x.h5", {}):
        pass
    assert (tmp_path / "x.h5").read_bytes() == b"mine"
