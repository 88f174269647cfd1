"""`.parquet`: a row a sample, with the columns that FiftyOne and Embedding Atlas look for.

FiftyOne's samples take `filepath` and a label from a data frame's row, and embeddings as one array.
Embedding Atlas takes vectors from a column of lists (`--vector features`) and pictures from a
struct of bytes and path (`--image image`), which Hugging Face's data sets read as pictures, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featcache.export.found import Found
from featcache.export.pictures import Images, picture_file
from featcache.export.samples import Features, Samples, spelt_out
from featcache.extras import require_extra
from featcache.images.sources import source_from_locator

_PICTURE_BYTES = {"thumbnails": 16 << 10, "originals": 1 << 20}
"""Of a picture, about: so that a row group of pictures stays small, too."""

Column = tuple[Any, Callable[[slice], Any]]
"""Its type, and what gives the values of some samples."""


def write_parquet(
    path: Path,
    samples: Samples,
    features: Features,
    found: Found | None,
    description: dict[str, Any],
    images: Images = "none",
) -> None:
    """Write texts, labels and float32 features; where they are asked for, probabilities, pictures.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ExportError: a picture is no longer there.
        SourceMissingError: the pictures are gone.
    """
    require_extra("format 'parquet'", ("pyarrow",), "parquet")
    import pyarrow as pa
    from pyarrow import parquet

    columns = _texts(pa, samples) | _numbers(pa, samples, features, found)
    if images != "none":
        columns["image"] = _pictures(pa, samples, description["source"], images)
    schema = pa.schema({name: kind for name, (kind, _) in columns.items()})
    schema = schema.with_metadata(_metadata(description, pictures=images != "none"))
    row_bytes = features.row_bytes + _PICTURE_BYTES.get(images, 0)
    with parquet.ParquetWriter(path, schema) as writer:
        for block in samples.blocks(row_bytes):
            arrays = [_array(pa, kind, of(block)) for kind, of in columns.values()]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _texts(pa: Any, samples: Samples) -> dict[str, Column]:
    """What is said of samples, null where nothing is; names that are not UTF-8 also as bytes."""

    def column(of: Callable[[slice], list[str]]) -> Column:
        return pa.string(), lambda block: [spelt_out(text) or None for text in of(block)]

    columns = {name: column(of) for name, of in samples.texts().items()}
    if samples.not_utf8():
        columns["path_bytes"] = pa.binary(), lambda block: _as_bytes(samples.paths(block))
    return columns


def _numbers(
    pa: Any, samples: Samples, features: Features, found: Found | None
) -> dict[str, Column]:
    """Labels (of several a list, as cleanlab takes them), features, probabilities."""
    one: Column = pa.int64(), samples.labels
    several: Column = pa.list_(pa.int64()), samples.label_lists
    width = int(np.prod(features.shape))
    columns = {
        "labels": several if samples.several else one,
        "features": (pa.list_(pa.float32(), width), features.read),
    }
    if found is not None:
        columns["pred_probs"] = pa.list_(pa.float64(), found.shape[1]), found.read
    return columns


def _array(pa: Any, kind: Any, values: Any) -> Any:
    """One column of some samples; rows of numbers that are NaN are null."""
    if not isinstance(values, np.ndarray) or values.ndim == 1:
        return pa.array(values, kind)
    flat = values.reshape(len(values), -1).astype(kind.value_type.to_pandas_dtype(), copy=False)
    unknown = np.isnan(flat).any(axis=1)
    mask = pa.array(unknown) if unknown.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), type=kind, mask=mask)


def _as_bytes(paths: list[str]) -> list[bytes]:
    return [path.encode("utf-8", "surrogateescape") for path in paths]


def _pictures(pa: Any, samples: Samples, locator: Mapping[str, str], images: Images) -> Column:
    source = source_from_locator(locator)

    def of(block: slice) -> list[dict[str, Any]]:
        named = zip(samples.paths(block), samples.hashes(block), strict=True)
        return [
            {"bytes": picture_file(source, path, content, images), "path": spelt_out(path)}
            for path, content in named
        ]

    return pa.struct({"bytes": pa.binary(), "path": pa.string()}), of


def _metadata(description: dict[str, Any], *, pictures: bool) -> dict[str, str]:
    """The description for whoever reads the schema, and for pandas as a frame's `attrs`."""
    texts = {"featcache": description, "PANDAS_ATTRS": description}
    if pictures:
        texts["huggingface"] = {"info": {"features": {"image": {"_type": "Image"}}}}
    return {name: json.dumps(value) for name, value in texts.items()}
