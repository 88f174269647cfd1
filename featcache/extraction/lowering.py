"""What a precision below fp32 changes: some rows by both, and a probe on either."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.engines import available_cores, make_engine
from featcache.extraction.jobs import DEFAULT_BATCH, Job
from featcache.extraction.kept import Kept
from featcache.extraction.pipeline import blank_pixels, stream_pixels
from featcache.extraction.scanning import Places
from featcache.extraction.shards import extract_shard
from featcache.heads.grid import default_grid, differ
from featcache.heads.ridge import RidgeProblem, solve_ridge
from featcache.store.cache import StreamReader
from featcache.store.index import Index, opaque
from featcache.store.shards import Shard

PICTURES = 256


@dataclass(frozen=True)
class Lowering:
    """Features of a lower precision beside those of fp32.

    Attributes:
        pictures: how many were compared.
        least_cosine, mean_cosine: between the features of a picture.
        accuracy, accuracy_fp32: of ridge regression, each picture predicted by the others, at the C
            that suits fp32; None where fewer than two classes have pictures of one label.
    """

    pictures: int
    least_cosine: float
    mean_cosine: float
    accuracy: float | None
    accuracy_fp32: float | None


def compare_with_fp32(job: Job, kept: Kept, index: Index, reader: StreamReader) -> Lowering | None:
    """Compute some of a stream's pictures again in fp32 and compare; None where it has no rows.

    Args:
        job: what was asked, in a lower precision.
        kept: its streams.
        index: the samples.
        reader: the plain penultimate feature.
    """
    contents = np.intersect1d(opaque(reader.hashes), index.unique_hashes)
    if not len(contents):
        return None
    chosen = contents[np.linspace(0, len(contents) - 1, min(PICTURES, len(contents))).astype(int)]
    again = _in_fp32(job, kept, index, reader, chosen)
    if not len(again.hashes):
        return None
    found = np.asarray(reader.read(reader.positions(again.hashes)), np.float64)
    expected = again.features.astype(np.float64)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (found * expected).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    accuracy, accuracy_fp32 = _accuracies(found, expected, _labels(index, again))
    return Lowering(
        len(cosines), float(cosines.min()), float(cosines.mean()), accuracy, accuracy_fp32
    )


def _in_fp32(
    job: Job, kept: Kept, index: Index, reader: StreamReader, contents: npt.NDArray[np.void]
) -> Shard:
    stream, preprocessing = reader.entry.stream, job.backbone.preprocessing
    engine = make_engine("torch", kept.stem([stream]), preprocessing, device=job.device)
    slots = Places(index).slots(contents)
    pixels = stream_pixels(
        job.source,
        job.recipe,
        (stream.view,),
        slots,
        threads=job.threads or available_cores(),
        ahead=2 * DEFAULT_BATCH,
    )
    with engine, closing(pixels):
        extracted = extract_shard(
            engine,
            pixels,
            slots,
            {stream: reader.entry.shape},
            blank=blank_pixels(preprocessing),
            batch_size=DEFAULT_BATCH,
        )
    return extracted.shards[0]


def _labels(index: Index, shard: Shard) -> npt.NDArray[np.int64]:
    """(n,) the label of each row that has a single one, else -1."""
    keys, first = np.unique(opaque(index.hashes), return_index=True)
    rows = first[np.searchsorted(keys, opaque(shard.hashes))]
    single = index.label_counts[rows] == 1
    labels = np.full(len(rows), -1)
    labels[single] = index.label_codes[index.label_offsets[rows[single]]]
    return labels


def _accuracies(
    found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> tuple[float | None, float | None]:
    """Of leave-one-out ridge regression on either, at the C that suits `expected`."""
    used = labels >= 0
    classes, targets = np.unique(labels[used], return_inverse=True)
    if len(classes) < 2 or used.sum() < 3 or not differ([expected[used]]):
        return None, None
    grid = default_grid(expected[used], 7)
    wanted = np.eye(len(classes))[targets]
    ours, theirs = (
        solve_ridge(RidgeProblem(rows[used], wanted, grid)) for rows in (found, expected)
    )
    errors = [np.square(theirs.held_out(at) - wanted).sum() for at in range(len(grid))]
    best = int(np.argmin(errors))
    right = [
        float((path.held_out(best).argmax(axis=1) == targets).mean()) for path in (ours, theirs)
    ]
    return right[0], right[1]
