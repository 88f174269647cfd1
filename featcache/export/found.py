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
    """Probabilities of a probe's result, from heads that did not see the sample.

    Attributes:
        result: its identity.
        rows: (m, K), as the cache keeps them, mapped.
        places: (n,) int64, the row of each sample; -1 where it has none.
    """

    result: str
    rows: npt.NDArray[Any]
    places: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and classes, (n, K)."""
        return len(self.places), self.rows.shape[1]

    def read(self, block: slice) -> npt.NDArray[np.float64]:
        """(b, K) of some samples; NaN where there are none."""
        places = self.places[block]
        found = np.full((len(places), self.rows.shape[1]), np.nan)
        found[places >= 0] = self.rows[places[places >= 0]]
        return found


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
            "another --result"
        )
    try:
        return Found(identity, rows["probabilities"], _places(cache, samples, record, rows))
    except (KeyError, IndexError, TypeError) as error:
        raise CacheDamagedError(
            f"{cache.folder}: result {identity!r} is none of this featcache ({error}); probe again"
        ) from error
    except ValueError as error:
        raise ExportError(
            f"result {identity!r} is of other pictures or labels than the cache has now ({error}); "
            "probe again"
        ) from error


def _places(
    cache: Cache, samples: Samples, record: dict[str, Any], rows: dict[str, npt.NDArray[Any]]
) -> npt.NDArray[np.int64]:
    """(n,) which of a result's rows is each sample's, -1: none.

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
    found = np.full(len(samples), -1, np.int64)
    found[places] = np.flatnonzero(kept)
    return found
