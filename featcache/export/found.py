"""What a probe found of each sample: held-out probabilities, as cleanlab takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheDamagedError, ExportError
from featcache.export.samples import Samples
from featcache.store.cache import Cache
from featcache.store.findings import newest_findings, read_findings

NEWEST, NONE = "newest", "none"


@dataclass(frozen=True, eq=False)
class Found:
    """Probabilities of a probe's result.

    Attributes:
        result: its identity.
        probabilities: (n, K) float64 by sample and class, from heads that did not see the sample;
            NaN where there are none.
    """

    result: str
    probabilities: npt.NDArray[np.float64]


def found_of(cache: Cache, samples: Samples, result: str) -> tuple[Found | None, str | None]:
    """The result that goes out beside the features, and why the newest one does not.

    Args:
        cache: whose results.
        samples: that go out.
        result: identity of one; `NEWEST` (if it fits, else none) or `NONE`.

    Raises:
        CacheMissingError: there is no such result.
        ExportError: it has no probabilities, or the cache was changed since.
    """
    identity = newest_findings(cache.folder) if result == NEWEST else result
    if identity is None or identity == NONE:
        return None, None
    try:
        return _read(cache, samples, identity), None
    except ExportError as error:
        if result != NEWEST:
            raise
        return None, f"without held-out probabilities: {error}"


def _read(cache: Cache, samples: Samples, identity: str) -> Found:
    record, rows = read_findings(cache.folder, identity)
    if "probabilities" not in rows or np.isnan(rows["probabilities"]).all():
        raise ExportError(
            f"result {identity!r} has none; probe with a softmax or logistic head, or give "
            f"another --result"
        )
    try:
        return Found(identity, _placed(cache, samples, record, rows))
    except (KeyError, IndexError, TypeError) as error:
        raise CacheDamagedError(
            f"{cache.folder}: result {identity!r} is none of this featcache ({error}); probe again"
        ) from error
    except ValueError as error:
        raise ExportError(
            f"result {identity!r} is of other pictures or labels than the cache has now ({error}); "
            "probe again"
        ) from error


def _placed(
    cache: Cache, samples: Samples, record: dict[str, Any], rows: dict[str, npt.NDArray[Any]]
) -> npt.NDArray[np.float64]:
    """A result's probabilities, sample by sample.

    Raises:
        ValueError: the cache's pictures, labels or classes are not the result's.
    """
    if tuple(record["classes"]) != samples.classes:
        raise ValueError("its classes are others")
    theirs, index = rows["row"], cache.index
    if theirs.max(initial=-1) >= len(index) or theirs.min(initial=0) < 0:
        raise ValueError("it has more pictures")
    if not np.array_equal(index.hashes[theirs], rows["hashes"]):
        raise ValueError("its pictures are others")
    kept = np.isin(theirs, samples.rows)
    places = np.searchsorted(samples.rows, theirs[kept])
    if not np.array_equal(samples.labels(slice(None))[places], rows["targets"][kept]):
        raise ValueError("its labels are others")
    placed = np.full((len(samples), len(samples.classes)), np.nan)
    placed[places] = rows["probabilities"][kept]
    return placed
