"""What is in force cannot change unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featcache.errors import CacheDamagedError, CacheMissingError, StoreError
from featcache.store import documents
from featcache.store import manifest as manifests
from featcache.store.manifest import Manifest


def test_a_round_trip_changes_nothing(cache_folder: Path, tmp_path: Path) -> None:
    manifest = manifests.load(cache_folder)
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest
    manifests.commit(tmp_path, manifest, lambda: None)
    assert (tmp_path / "manifest.json").read_bytes() == (
        cache_folder / "manifest.json"
    ).read_bytes()


def test_every_changed_byte_is_refused(cache_folder: Path) -> None:
    path = cache_folder / "manifest.json"
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(CacheDamagedError, match=r"manifest\.json"):
            manifests.load(cache_folder)
    path.write_bytes(whole)
    manifests.load(cache_folder)


@pytest.mark.parametrize("size", [0, 1, -1])
def test_a_torn_manifest_is_refused(cache_folder: Path, size: int) -> None:
    path = cache_folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CacheDamagedError, match=r"manifest\.json"):
        manifests.load(cache_folder)


def test_another_format_names_both_versions(cache_folder: Path) -> None:
    path = cache_folder / "manifest.json"
    body, _ = documents.decode(path.read_bytes())
    path.write_bytes(documents.encode({**body, "format": 2, "anything": "else"}))
    with pytest.raises(CacheDamagedError, match="format 2, this version of featcache reads 1"):
        manifests.load(cache_folder)


@pytest.mark.parametrize("missing", ["streams", "recipe", "index", "source"])
def test_a_manifest_without_a_field_is_refused(cache_folder: Path, missing: str) -> None:
    path = cache_folder / "manifest.json"
    body, _ = documents.decode(path.read_bytes())
    del body[missing]
    path.write_bytes(documents.encode(body))
    with pytest.raises(CacheDamagedError, match=missing):
        manifests.load(cache_folder)


def test_no_cache_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CacheMissingError, match=r"nowhere: no cache there.*featcache extract"):
        manifests.load(tmp_path / "nowhere")


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(StoreError, match=r"manifest\.json: Is a directory"):
        manifests.load(tmp_path)
