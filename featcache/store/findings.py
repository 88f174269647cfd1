"""results/<id>/: what each probe found, with its probabilities row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from featcache.errors import CacheDamagedError, CacheMissingError
from featcache.store import hdf5
from featcache.store.files import make_folder, sha256_file, write_durably

RESULTS = "results"
_RECORD = "result.json"
_ROWS = "rows.h5"


def write_findings(
    folder: Path, identity: str, record: Mapping[str, Any], rows: Mapping[str, npt.NDArray[Any]]
) -> Path:
    """Keep a result under its identity; the record is written last and names the rows' hash."""
    place = folder / RESULTS / identity
    make_folder(place)
    sha256 = write_durably(place / _ROWS, hdf5.encode(rows, {"kind": "featcache result"}))
    text = json.dumps({"rows_sha256": sha256, "record": record}, indent=1, sort_keys=True)
    write_durably(place / _RECORD, text.encode("ascii"))
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
    try:
        document = json.loads((place / _RECORD).read_bytes())
        record, expected = document["record"], document["rows_sha256"]
    except FileNotFoundError as error:
        raise CacheMissingError(
            f"{folder}: no result {identity!r}; there are: "
            f"{', '.join(list_findings(folder)) or 'none'}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CacheDamagedError(
            f"{place / _RECORD}: not a result ({error}); probe again"
        ) from error
    if not (place / _ROWS).exists() or sha256_file(place / _ROWS) != expected:
        raise CacheDamagedError(f"{place / _ROWS}: not the rows that were written; probe again")
    return record, hdf5.map_arrays(place / _ROWS)


def list_findings(folder: Path) -> list[str]:
    """Identities of the results that are whole."""
    return sorted(p.parent.name for p in (folder / RESULTS).glob(f"*/{_RECORD}"))
