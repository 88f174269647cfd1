"""Results that probes kept in caches, found again by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from featcache.api.requests import PathLike
from featcache.errors import CacheDamagedError, ProbeError
from featcache.naming import command_line
from featcache.results import ProbeResult
from featcache.store import journal
from featcache.store.cache import Cache
from featcache.store.findings import RESULTS, newest_findings, read_findings
from featcache.store.index import HASH_BYTES


@dataclass(frozen=True, eq=False)
class KeptResult:
    """What a probe found, as it is kept.

    Attributes:
        cache: that was probed, as it is now.
        result: the record; its `seconds` are 0 where the log does not tell.
        rows: arrays of the n labelled rows by name: "row" (n,) in the index of then, "hashes"
            (n, 32), "targets" (n,) or (n, K); but for protocols of support sets also "judged",
            "trained" (n,), and "probabilities" (n, K), NaN where a row was not held out.
    """

    cache: Cache
    result: ProbeResult
    rows: dict[str, npt.NDArray[Any]]

    @property
    def identity(self) -> str:
        """Names the result in its cache."""
        return str(self.result.result)


def kept_result(named: PathLike) -> KeptResult:
    """Read a result.

    Args:
        named: a cache, whose last result is taken, `CACHE:RESULT`, or a folder of its results.

    Raises:
        StoreError: there is no such cache or result, or it is damaged.
        ProbeError: the cache was never probed; says what to run.
    """
    folder, identity = result_named(os.fspath(named))
    cache = Cache(folder)
    record, rows = read_findings(folder, identity)
    again = {"cache": str(folder), "seconds": _seconds(folder, identity), "result": identity}
    try:
        result = ProbeResult.from_json(record | again)
        _refuse_misfits(result, rows)
    except (ValueError, KeyError) as error:
        raise CacheDamagedError(
            f"{folder}: result {identity!r} is none of this featcache ({error}); probe it again"
        ) from error
    return KeptResult(cache, result, rows)


def _refuse_misfits(result: ProbeResult, rows: dict[str, npt.NDArray[Any]]) -> None:
    """Refuse a record and arrays that are not of the same pictures and classes.

    Raises:
        ValueError, KeyError: names the first that does not fit.
    """
    n, k = len(rows["row"]), len(result.classes)
    shapes = {"row": (n,), "hashes": (n, HASH_BYTES), "judged": (n,), "trained": (n,)}
    shapes |= {"probabilities": (n, k), "targets": (n, k) if result.multi_label else (n,)}
    for name in ("hashes", "targets", *(set(shapes) & set(rows))):
        if rows[name].shape != shapes[name]:
            raise ValueError(f"{name} are {rows[name].shape}, not {shapes[name]}")
    codes = rows["targets"]
    if not 0 <= codes.min(initial=0) <= codes.max(initial=0) < (2 if result.multi_label else k):
        raise ValueError(f"targets from {codes.min()} to {codes.max()} of {k} classes")
    if any(len(row) != len(result.confusion) or len(row) != k for row in result.confusion):
        raise ValueError(f"confusion is not {k} x {k}")
    if any((point.C or point.neighbours or 0) <= 0 for point in result.path):
        raise ValueError("path has a candidate that is not positive")


def result_named(named: str) -> tuple[Path, str]:
    """Where a result is kept, and its identity: of a cache the last one.

    Raises:
        StoreError: there is no such cache.
        ProbeError: the cache was never probed; says what to run.
    """
    place = Path(named)
    if place.parent.name == RESULTS and place.is_dir():
        return place.parent.parent, place.name
    folder, _, identity = named.rpartition(":")
    if folder and not place.exists():
        return Path(folder), identity
    Cache(place)  # says what is wrong where there is none
    newest = newest_findings(place)
    if newest is None:
        command = command_line("featcache", "probe", place)
        raise ProbeError(f"{named}: was never probed; run `{command}` first")
    return place, newest


def _seconds(folder: Path, identity: str) -> float:
    noted = journal.last(folder, "probe") or {}
    seconds = noted.get("seconds")
    same = noted.get("result") == identity and isinstance(seconds, float)
    return seconds if same and seconds is not None else 0.0
