"""Rows are found by content, in any order, and damage is found when they are first read."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.errors import CacheDamagedError, CacheIncompleteError, CacheMissingError
from featcache.store.cache import Cache
from featcache.store.index import look_up, sorting

READ = (
    "import sys; from pathlib import Path; from featcache.store.cache import Cache; "
    "from featcache.errors import CacheDamagedError\n"
    "try:\n"
    "    cache = Cache(Path(sys.argv[1]), trust=len(sys.argv) > 2)\n"
    "    reader = cache.stream()\n"
    "    print(len(reader.read(reader.positions(reader.hashes))))\n"
    "except CacheDamagedError as error:\n"
    "    sys.exit(str(error))"
)


def read_in_a_fresh_process(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", READ, str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@given(names=st.lists(st.integers(-3, 12), max_size=20))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_are_found_in_any_order_twice_or_not_at_all(
    cache_folder: Path, make, names: list[int]
) -> None:
    reader = Cache(cache_folder).stream()
    hashes = make.hashes(names)
    positions = reader.positions(hashes)
    there = np.array([0 <= name < 10 and name != 3 for name in names], np.bool_)
    assert np.array_equal(positions >= 0, there)
    rows = reader.read(positions[there])
    assert rows.dtype == np.float32
    assert np.array_equal(rows, make.rows(hashes[there]))
    assert np.array_equal(reader.is_skipped(hashes), np.array([n == 3 for n in names], np.bool_))


def test_positions_follow_the_shards(cache_folder: Path) -> None:
    reader = Cache(cache_folder).stream()
    assert len(reader) == 9
    assert reader.shape == (5,)
    assert reader.positions(reader.hashes).tolist() == list(range(9))
    assert [len(shard.hashes) for shard in reader.shards()] == [
        entry.rows for entry in reader.entry.shards
    ]


def test_a_skip_keeps_its_reason(cache_folder: Path, make) -> None:
    assert Cache(cache_folder).stream().skips == {make.content(3): "unreadable"}


def test_a_row_that_is_not_there_is_never_made_up(cache_folder: Path) -> None:
    reader = Cache(cache_folder).stream()
    with pytest.raises(CacheIncompleteError, match="1 of 2 rows were never computed"):
        reader.read(np.array([0, -1]))
    with pytest.raises(IndexError, match="row 9 of 9 rows"):
        reader.read(np.array([0, 9]))


def test_maps_are_read_only(cache_folder: Path) -> None:
    for shard in Cache(cache_folder).stream().shards():
        for array in (shard.features, shard.hashes, shard.skipped):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_an_unknown_cut_names_those_there_are(cache_folder: Path) -> None:
    with pytest.raises(CacheMissingError, match=r"no activations of cut 'layer4'.*penultimate"):
        Cache(cache_folder).stream("layer4")


def test_a_cache_without_an_index_is_incomplete(hold, tmp_path: Path) -> None:
    with hold() as writer:
        writer.commit(writer.manifest)
    with pytest.raises(CacheIncompleteError, match="nothing was extracted yet"):
        _ = Cache(tmp_path / "cache").index


def test_a_flipped_byte_is_found_at_the_first_read_of_a_process(cache_folder: Path) -> None:
    assert read_in_a_fresh_process(cache_folder).stdout.strip() == "9"
    shard = sorted(cache_folder.glob("shards/*/*.h5"))[1]
    flip_last_byte(shard)
    found = read_in_a_fresh_process(cache_folder)
    assert found.returncode == 1
    assert f"{shard}: its bytes are not those that were committed" in found.stderr
    trusting = read_in_a_fresh_process(cache_folder, "trust")
    assert trusting.stdout.strip() == "9"


def test_looking_up_reads_no_shard_and_a_name_that_is_not_found_reads_them_all(
    cache_folder: Path, make
) -> None:
    """A damaged name of a row must not pass for a row that was never computed."""
    damaged, (content,) = names_damaged(cache_folder), make.hashes([7])
    reader = Cache(cache_folder).stream()
    others = make.hashes([name for name in range(10) if name not in (3, 7)])
    assert (reader.positions(others) >= 0).all()
    with pytest.raises(CacheDamagedError, match=f"{damaged.name}: its bytes are not those"):
        reader.positions(content[None])


def names_damaged(folder: Path) -> Path:
    """The shard of sample 7, a byte of whose name is another now."""
    name = hashlib.sha256(b"7").digest()
    for path in folder.glob("shards/*/*.h5"):
        if name in (content := path.read_bytes()):
            path.write_bytes(content.replace(name, b"x" + name[1:]))
            return path
    raise AssertionError("no shard has it")


def test_a_shard_of_other_rows_than_the_manifest_says_is_damage(cache_folder: Path) -> None:
    first, _, third = sorted(cache_folder.glob("shards/*/*.h5"))
    assert first.stat().st_size != third.stat().st_size
    first.write_bytes(third.read_bytes())
    with pytest.raises(CacheDamagedError, match=r"000000\.h5: .* not the [34] rows .* repair`"):
        _ = Cache(cache_folder).stream().hashes


def test_twins_and_names_that_begin_alike_are_found(make) -> None:
    hashes = make.hashes(range(50)).copy()
    hashes[10:40, :8] = 7
    keys = hashes[sorting(hashes)]
    assert [k.tobytes() for k in keys] == sorted(h.tobytes() for h in hashes)
    wanted = np.concatenate([hashes[::-1], make.hashes(range(50, 60))])
    slots, there = look_up(keys, wanted)
    assert there.tolist() == [True] * 50 + [False] * 10
    assert np.array_equal(keys[slots[there]], wanted[there])
    assert look_up(keys[:0], wanted)[1].sum() == 0


def test_a_file_that_is_gone_is_damage(cache_folder: Path) -> None:
    cache = Cache(cache_folder)
    gone = sorted(cache_folder.glob("shards/*/*.h5"))[2]
    gone.unlink()
    with pytest.raises(CacheDamagedError, match=f"{gone.name}: the manifest names this file"):
        list(cache.stream().shards())


def test_a_damaged_index_is_found(cache_folder: Path) -> None:
    flip_last_byte(next(cache_folder.glob("index-*.h5")))
    with pytest.raises(CacheDamagedError, match="its bytes are not those that were committed"):
        _ = Cache(cache_folder).index
