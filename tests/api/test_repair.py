"""Repair drops what is damaged, computes it again byte for byte, and says what it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache import api
from featcache.api import repairing
from featcache.api.activations import ensure_cuts
from featcache.backbones.registry import load_from_locator
from featcache.backbones.units import list_units
from featcache.errors import CacheDamagedError, CacheMissingError
from featcache.extraction.kept import traced_of
from featcache.store.cache import Cache
from featcache.store.findings import list_findings, write_findings
from featcache.store.upkeep import drop_damage

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("one_thread")]

SEES = "what was dropped, what was computed again, and exit 1 if something is missing"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is compared, by its place."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "log.jsonl")
    }


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "shards").glob("*/*.h5"))


def index_of(folder: Path) -> Path:
    entry = Cache(folder).manifest.index
    return folder / (entry.file if entry else "")


def extracted_twice(pictures: Path, jpegs: dict[str, bytes], light: dict[str, Any]) -> Path:
    """36 pictures and an inner cut of them, in two plans: those of "sky" came later."""
    out = pictures.with_name("cache")
    for later in (False, True):
        for path, content in jpegs.items():
            if path.startswith("sky/") == later:
                (pictures / path).parent.mkdir(parents=True, exist_ok=True)
                (pictures / path).write_bytes(content)
        api.extract(pictures, out=out, shard_rows=8, batch_size=4, cuts=("layer1.0",), **light)
    return out


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, jpegs: dict[str, bytes], light: dict[str, Any]
) -> tuple[Path, Path]:
    """Pictures, and their cache. Both are to be left as they are."""
    pictures = tmp_path_factory.mktemp("repaired") / "pictures"
    return pictures, extracted_twice(pictures, jpegs, light)


@pytest.fixture
def pictures(made: tuple[Path, Path]) -> Path:
    return made[0]


@pytest.fixture
def cache(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the cache, to be changed as one likes."""
    return shutil.copytree(made[1], tmp_path / "cache")


@pytest.fixture
def gone(pictures: Path) -> Iterator[Callable[[], object]]:
    """Hides the pictures; gives what brings them back."""
    hidden = pictures.rename(pictures.with_name("hidden"))
    yield lambda: hidden.rename(pictures)
    if hidden.exists():
        hidden.rename(pictures)


Harm = Callable[[Path], object]

HARMS: dict[str, Harm] = {
    "a flipped bit in each shard": lambda c: [flip(path) for path in shards(c)],
    "the first shard of every stream gone": lambda c: [
        p.unlink() for p in c.glob("shards/*/*0.h5")
    ],
    "shards of both plans": lambda c: [flip(path, 5000) for path in shards(c)[1:5:3]],
    "other shards in each stream": lambda c: [flip(shards(c)[0]), flip(shards(c)[-2])],
    "all shards gone": lambda c: shutil.rmtree(c / "shards"),
    "shards of both plans gone": lambda c: [p.unlink() for p in c.glob("shards/*/*[14].h5")],
    "a torn shard": lambda c: shards(c)[0].write_bytes(b"torn"),
    "a flipped bit in the index": lambda c: flip(index_of(c)),
    "the index gone": lambda c: index_of(c).unlink(),
    "index and shards": lambda c: [flip(index_of(c)), *(flip(path) for path in shards(c)[::2])],
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_damaged_is_put_back_byte_for_byte(cache: Path, harm: str, tried) -> None:
    whole = contents(cache)
    rows = len(Cache(cache).stream())
    HARMS[harm](cache)
    assert contents(cache) != whole
    mended = api.repair(cache)
    assert contents(cache) == whole
    assert mended.whole
    assert mended.damaged
    assert (mended.missing, mended.reasons, mended.results) == (0, (), ())
    assert mended.dropped == mended.computed
    assert mended.reindexed == ("index" in harm)
    assert api.verify(cache).damaged == ()
    assert len(Cache(cache).stream()) == rows
    assert api.repair(cache).damaged == ()
    tried("damage, repaired", 1, sees=SEES)


def test_with_all_shards_and_earlier_indices_gone_the_rows_are_the_same(cache: Path, tried) -> None:
    """Which picture came in which plan nothing says then, so that they are planned anew."""
    api.prune(cache)
    before = Cache(cache).stream()
    rows, names = before.read(np.arange(len(before))), before.hashes
    shutil.rmtree(cache / "shards")
    found = api.repair(cache)
    assert (found.whole, found.dropped, found.computed) == (True, 72, 72)
    after = Cache(cache).stream()
    again = after.read(after.positions(names))
    np.testing.assert_allclose(again, rows, rtol=1e-4, atol=1e-5)
    tried("damage, repaired", 1, sees=SEES)


def test_a_whole_cache_is_left_alone(cache: Path) -> None:
    whole = contents(cache)
    found = api.repair(cache)
    assert (found.whole, found.damaged, found.dropped, found.computed) == (True, (), 0, 0)
    assert contents(cache) == whole


def test_a_dry_run_changes_nothing(cache: Path) -> None:
    flip(shards(cache)[0])
    flip(index_of(cache))
    harmed = contents(cache)
    found = api.repair(cache, dry_run=True)
    assert contents(cache) == harmed
    assert {Path(damaged.path) for damaged in found.damaged} == {shards(cache)[0], index_of(cache)}
    assert (found.dropped, found.computed, found.missing, found.whole) == (8, 0, None, False)


def test_derived_activations_are_derived_again(
    class_folders: Path, extract_light: Callable[..., Any], tried
) -> None:
    """Also where the deeper ones that they came from were damaged, too."""
    first = Cache(Path(extract_light(class_folders).cache))
    manifest = first.manifest
    backbone = load_from_locator(
        manifest.backbone["name"],
        manifest.backbone["locator"],
        preprocessing=manifest.recipe.preprocessing,
    )
    upper, *_, lower = [unit.name for unit in list_units(traced_of(backbone))]
    ensure_cuts(ensure_cuts(first, [lower], backbone=backbone), [upper], backbone=backbone)
    whole = contents(first.folder)
    for folder in (first.folder / "shards").iterdir():
        flip(next(folder.glob("*.h5")))
        found = api.repair(first.folder)
        assert found.whole
        assert contents(first.folder) == whole
    for path in shards(first.folder):
        flip(path)
    found = api.repair(first.folder)
    assert found.whole
    assert len(found.damaged) == 3
    assert contents(first.folder) == whole
    tried("damage, repaired", 4, sees=SEES)


def test_without_the_pictures_the_rest_is_kept_and_can_be_mended_later(
    cache: Path, gone: Callable[[], object], tried
) -> None:
    whole, before = contents(cache), Cache(cache).stream()
    rows = before.read(np.arange(len(before)))
    bad = next((cache / "shards" / before.entry.stream.key[:16]).glob("*1.h5"))
    flip(bad)
    found = api.repair(cache)
    assert (found.dropped, found.computed, found.missing, found.whole) == (8, 0, 8, False)
    assert "the pictures are no longer there" in found.reasons[0]
    left = Cache(cache).stream()
    positions = left.positions(before.hashes)
    there = positions >= 0
    assert there.sum() == len(before) - 8
    assert np.array_equal(left.read(positions[there]), rows[there])
    gone()
    again = api.repair(cache)
    assert (again.damaged, again.computed, again.whole) == ((), 8, True)
    assert contents(cache) == whole
    tried("damage, repaired", 1, sees=SEES)


def test_without_the_pictures_a_damaged_index_stays_and_is_named(
    cache: Path, gone: Callable[[], object]
) -> None:
    whole = contents(cache)
    flip(index_of(cache))
    found = api.repair(cache)
    assert (found.missing, found.whole, found.reindexed) == (None, False, False)
    assert "the index cannot be rebuilt" in found.reasons[0]
    assert "the pictures are no longer there" in found.reasons[0]
    with pytest.raises(CacheDamagedError):
        _ = Cache(cache).index
    gone()
    assert api.repair(cache).reindexed
    assert contents(cache) == whole


def test_killed_after_the_drop_an_extraction_puts_it_right(
    cache: Path, pictures: Path, extract_light: Callable[..., Any]
) -> None:
    whole = contents(cache)
    for path in shards(cache)[::2]:
        flip(path)
    drop_damage(cache)
    extract_light(pictures, cuts=("layer1.0",))
    assert contents(cache) == whole


def test_a_picture_that_changed_meanwhile_is_named_and_the_others_are_right(
    tmp_path: Path, jpegs: dict[str, bytes], light: dict[str, Any]
) -> None:
    pictures = tmp_path / "pictures"
    cache = extracted_twice(pictures, jpegs, light)
    before = Cache(cache).stream()
    rows, names = before.read(np.arange(len(before))), before.hashes
    Image.new("RGB", (50, 50), "red").save(pictures / "cat" / "00.jpg")
    for path in shards(cache):
        flip(path)
    found = api.repair(cache)
    assert found.missing == 2  # in two streams
    assert "cat/00.jpg: it changed" in found.reasons[0]
    left = Cache(cache).stream()
    positions = left.positions(names)
    there = positions >= 0
    assert there.sum() == len(before) - 1
    np.testing.assert_allclose(left.read(positions[there]), rows[there], rtol=1e-4, atol=1e-5)
    api.extract(pictures, out=cache, cuts=("layer1.0",), **light)
    assert api.repair(cache).whole


def test_results_that_are_damaged_go(cache: Path) -> None:
    for name in ("a", "b", "c"):
        write_findings(cache, name, {"x": 1}, {"row": np.arange(3)})
    flip(cache / "results" / "a" / "result.json", 40)
    flip(next((cache / "results" / "b").glob("rows-*.h5")))
    found = api.repair(cache)
    assert (found.results, found.whole) == (("a", "b"), True)
    assert list_findings(cache) == ["c"]


def test_a_damaged_manifest_is_refused_with_advice(cache: Path) -> None:
    flip(cache / "manifest.json", 200)
    harmed = contents(cache)
    with pytest.raises(CacheDamagedError, match=r"manifest\.json.*cannot be repaired: restore it"):
        api.repair(cache)
    assert contents(cache) == harmed
    (cache / "manifest.json").unlink()
    with pytest.raises(CacheMissingError):
        api.repair(cache)


def test_another_network_repairs_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(shards(cache)[0])
    other = repairing.load_from_locator

    def changed(name: str, locator: Any, **options: Any) -> Any:
        return other(name, {"kind": "random", "seed": 99}, **options)

    monkeypatch.setattr(repairing, "load_from_locator", changed)
    found = api.repair(cache)
    assert found.missing == 8
    assert "another recipe (weights" in found.reasons[0]
