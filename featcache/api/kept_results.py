"""Results that probes kept in caches, found again by name."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from featcache.api.requests import PathLike
from featcache.errors import CacheDamagedError, ProbeError
from featcache.results import ProbeResult
from featcache.store import journal
from featcache.store.cache import Cache
from featcache.store.findings import RESULTS, list_findings, read_findings


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
        return KeptResult(cache, ProbeResult.from_json(record | again), rows)
    except ValueError as error:
        raise CacheDamagedError(
            f"{folder}: result {identity!r} is none of this featcache ({error}); probe it again"
        ) from error


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
    there = list_findings(place)
    last = (journal.last(place, "probe") or {}).get("result")
    if not there:
        command = shlex.join(["featcache", "probe", named])
        raise ProbeError(f"{named}: was never probed; run `{command}` first")
    return place, last if last in there else there[-1]


def _seconds(folder: Path, identity: str) -> float:
    noted = journal.last(folder, "probe") or {}
    seconds = noted.get("seconds")
    same = noted.get("result") == identity and isinstance(seconds, float)
    return seconds if same and seconds is not None else 0.0
