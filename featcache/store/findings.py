"""results/<id>/: what each probe found, with its probabilities row by row.

The rows' file is named by its hash and written first; the record, which names it, makes the result.
Probes write beside a running extraction: results have a lock of their own, held briefly.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt

from featcache.errors import CacheDamagedError, CacheMissingError, StoreError
from featcache.store import documents, hdf5, journal
from featcache.store.files import (
    make_folder,
    naming,
    read_regular,
    remove_leftovers,
    sha256_file,
    write_durably,
)
from featcache.store.locks import locked
from featcache.store.manifest import is_sha256

RESULTS = "results"
_RECORD = "result.json"
_WAIT_SECONDS = 60.0


def write_findings(
    folder: Path, identity: str, record: Mapping[str, Any], rows: Mapping[str, npt.NDArray[Any]]
) -> Path:
    """Keep a result under its identity, in the place of an earlier one.

    Raises:
        CacheMissingError: the folder is gone.
        CacheBusyError: another process writes results, and does not come to an end.
    """
    if not folder.is_dir():
        raise CacheMissingError(f"{folder}: the cache is gone; the result is not kept")
    place = folder / RESULTS / identity
    content = hdf5.encode(rows, {"kind": "featcache result"})
    sha256 = hashlib.sha256(content).hexdigest()
    make_folder(place)
    with locked(folder / RESULTS, wait=_WAIT_SECONDS) as hold:
        remove_leftovers(place)
        file = _rows_file(place, sha256)
        write_durably(file, content)
        hold.check()
        write_durably(place / _RECORD, documents.encode({"rows_sha256": sha256, "record": record}))
        for old in set(place.glob("rows-*.h5")) - {file}:
            with naming(old):
                old.unlink()
    return place


def read_findings(
    folder: Path, identity: str
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """A result's record and its arrays, checked.

    Raises:
        CacheMissingError: no such result; names those there are.
        CacheDamagedError: its files are not those that were written.
    """
    place = folder / RESULTS / identity
    record, sha256 = _read_record(folder, place)
    while True:
        try:
            return record, _read_rows(_rows_file(place, sha256), sha256)
        except StoreError:
            before, (record, sha256) = sha256, _read_record(folder, place)
            if sha256 == before:  # else it was replaced by a probe beside
                raise


def _read_rows(file: Path, sha256: str) -> dict[str, npt.NDArray[Any]]:
    with naming(file):
        if not file.exists() or sha256_file(file) != sha256:
            raise CacheDamagedError(f"{file}: not the rows that were written; probe again")
        return hdf5.map_arrays(file)


def list_findings(folder: Path) -> list[str]:
    """Identities of the results that are whole."""
    return sorted(p.parent.name for p in (folder / RESULTS).glob(f"*/{_RECORD}"))


def newest_findings(folder: Path) -> str | None:
    """The identity of the result that was found last; None where there is none."""
    there = list_findings(folder)
    last = (journal.last(folder, "probe") or {}).get("result")
    return last if last in there else next(reversed(there), None)


def remove_findings(folder: Path, identities: Collection[str]) -> None:
    """Remove results, whatever is left of them.

    Raises:
        CacheBusyError: another process writes results, and does not come to an end.
    """
    if identities:
        with locked(folder / RESULTS, wait=_WAIT_SECONDS):
            for identity in identities:
                with naming(folder / RESULTS / identity):
                    shutil.rmtree(folder / RESULTS / identity)


def remove_unfinished(folder: Path) -> int:
    """Remove what killed probes left among the results; returns how many files.

    Raises:
        CacheBusyError: another process writes results, and does not come to an end.
    """
    results = folder / RESULTS
    if not results.is_dir():
        return 0
    with locked(results, wait=_WAIT_SECONDS):
        return remove_leftovers(*results.glob("*"))


def _read_record(folder: Path, place: Path) -> tuple[dict[str, Any], str]:
    """A result's record, and the hash of its rows."""
    path = place / _RECORD
    with naming(path):
        try:
            content = read_regular(path, documents.MOST_BYTES)
        except FileNotFoundError as error:
            raise CacheMissingError(
                f"{folder}: no result {place.name!r}; there are: "
                f"{', '.join(list_findings(folder)) or 'none'}"
            ) from error
    try:
        document, whole = documents.decode(content)
    except ValueError as error:
        raise CacheDamagedError(f"{path}: not a result ({error}); probe again") from error
    if not whole:
        raise CacheDamagedError(f"{path}: it was changed after it was written; probe again")
    record, sha256 = document.get("record"), document.get("rows_sha256")
    if not isinstance(record, dict) or not is_sha256(sha256):
        raise CacheDamagedError(f"{path}: it has no record, or names no rows; probe again")
    return cast(dict[str, Any], record), cast(str, sha256)


def _rows_file(place: Path, sha256: str) -> Path:
    return place / f"rows-{sha256[:16]}.h5"
