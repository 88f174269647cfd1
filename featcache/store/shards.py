"""A shard: activations of one stream for some rows, named by the content hashes of the rows.

A picture that could not be used has its slot dropped, and its hash and the reason stand in the
shard that would have held it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.errors import CacheDamagedError, StoredOverflowError, StoreError
from featcache.recipe import Stream, canonical_json
from featcache.store import hdf5
from featcache.store.index import HASH_BYTES
from featcache.store.strings import Strings


@dataclass(frozen=True, eq=False)
class Shard:
    """Rows of one stream.

    Attributes:
        features: (rows, *shape) in the stream's stored dtype.
        hashes: (rows, 32) uint8 content hashes, row by row.
        skipped: (skips, 32) uint8 content hashes of what could not be used.
        reasons: why, skip by skip.
    """

    features: npt.NDArray[Any]
    hashes: npt.NDArray[np.uint8]
    skipped: npt.NDArray[np.uint8]
    reasons: Strings


def encode_shard(stream: Stream, shard: Shard) -> bytes:
    """The bytes of a shard's file."""
    return hdf5.encode(
        {
            "features": shard.features,
            "hashes": shard.hashes,
            "skipped": shard.skipped,
            "reasons_blob": shard.reasons.blob,
            "reasons_offsets": shard.reasons.offsets,
        },
        {"kind": "featcache shard", "stream": canonical_json(stream.to_dict())},
    )


def map_shard(path: Path, stream: Stream, shape: tuple[int, ...], rows: int, skips: int) -> Shard:
    """Map a shard's file; nothing of it but the reasons' places is read until it is used.

    Args:
        path: of the file.
        stream: whose shard it is.
        shape: of one row.
        rows: how many there are.
        skips: how many contents could not be used.

    Raises:
        CacheDamagedError: the file is not this shard of this stream.
    """
    arrays = hdf5.map_arrays(path)
    try:
        shard = Shard(
            features=arrays["features"],
            hashes=arrays["hashes"],
            skipped=arrays["skipped"],
            reasons=Strings.checked(arrays["reasons_blob"], arrays["reasons_offsets"]),
        )
    except KeyError as error:
        raise CacheDamagedError(f"{path}: {error} is missing; not a shard of featcache") from error
    except ValueError as error:
        raise CacheDamagedError(f"{path}: {error}; not a shard of featcache") from error
    fits = (
        (shard.features.dtype, shard.features.shape) == (np.dtype(stream.dtype), (rows, *shape))
        and _are_hashes(shard.hashes, rows)
        and _are_hashes(shard.skipped, skips)
        and len(shard.reasons) == skips
    )
    if not fits:
        raise CacheDamagedError(
            f"{path}: its arrays are not the {rows} rows and {skips} skips of stream "
            f"{stream.key[:12]} that the manifest names; `featcache repair` computes them again"
        )
    return shard


def said_to_hold(path: Path) -> npt.NDArray[np.uint8]:
    """(n, 32) contents that a shard's file names, damaged or not; nothing vouches for them."""
    try:
        arrays = hdf5.map_arrays(path)
    except StoreError:
        return np.empty((0, HASH_BYTES), np.uint8)
    named = [arrays[name] for name in ("hashes", "skipped") if name in arrays]
    return np.concatenate(
        [np.empty((0, HASH_BYTES), np.uint8), *(x for x in named if _are_hashes(x, len(x)))]
    )


def _are_hashes(array: npt.NDArray[Any], number: int) -> bool:
    return array.dtype == np.uint8 and array.shape == (number, HASH_BYTES)


def to_stored(features: npt.NDArray[np.float32], stream: Stream) -> npt.NDArray[Any]:
    """Features in the stream's stored dtype.

    Raises:
        StoredOverflowError: a finite value became infinite.
    """
    with np.errstate(over="ignore"):
        stored = features.astype(stream.dtype)
    if not np.isfinite(stored).all():
        largest = float(np.abs(features).max())
        raise StoredOverflowError(
            f"an activation of {largest:.4g} at cut {stream.cut!r} does not fit {stream.dtype} "
            f"(largest {float(np.finfo(stream.dtype).max):.5g}); run again with "
            "--store-dtype float32"
        )
    return stored
