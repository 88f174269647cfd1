"""What an extraction is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from featcache.backbones.registry import Backbone
from featcache.images.sources import Source
from featcache.recipe import StoredDtype

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); stages are "hash" and "extract"."""

DEFAULT_BATCH = 32


@dataclass(frozen=True)
class Job:
    """What is to be extracted, and how.

    Attributes:
        folder: the cache.
        source: where the samples are.
        backbone: the network; decides the recipe.
        dtype: stored dtype.
        engine, device: "auto" or a name.
        batch_size: rows a forward pass; None takes the open plan's, else `DEFAULT_BATCH`.
        threads: decoding threads; None takes all cores. Never changes a byte.
        shard_rows: slots a shard, rounded up to whole batches; None lets the plan decide.
        strict: an unreadable picture is an error.
        verify_content: read every file again, whatever its stat key says.
        replace_source: let this source take the place of the cache's own.
    """

    folder: Path
    source: Source
    backbone: Backbone
    dtype: StoredDtype = "float32"
    engine: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    shard_rows: int | None = None
    strict: bool = False
    verify_content: bool = False
    replace_source: bool = False
