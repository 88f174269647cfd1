"""The manifest: what is in force. Replacing it is the cache's only commit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from featcache.errors import CacheDamagedError, CacheMissingError
from featcache.recipe import Recipe, Stream, refuse_misfits
from featcache.store import documents
from featcache.store.files import naming, read_regular, refuse_links, write_durably

MANIFEST = "manifest.json"
FORMAT = 1

_NO_REPAIR = (
    "nothing else says what the other files are, so it cannot be repaired: restore it from a copy, "
    "or remove the cache and extract again"
)
_MOST_ROWS = 1 << 40
"""Of a shard, a plan or an index; and bytes of one row."""
_INDEX_FILE = re.compile(r"index-[0-9a-f]{16}\.h5")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Entry:
    """Strict conversion from a dictionary of exactly the fields, each of its own type."""

    def __post_init__(self) -> None:
        refuse_misfits(self)
        for name, value in vars(self).items():
            if isinstance(value, int) and not 0 <= value < _MOST_ROWS:
                raise ValueError(f"{type(self).__name__}: {name} is {value}")
            if name.endswith("sha256") and not is_sha256(value):
                raise ValueError(f"{type(self).__name__}: {name} is {value!r:.80}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        if set(data) != known:
            raise ValueError(f"{cls.__name__} needs {sorted(known)}, found {sorted(data)}")
        return cls(**data)


def is_sha256(text: Any) -> bool:
    """Whether something is a sha256 in hex: where files name files, nothing else may stand."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


@dataclass(frozen=True)
class IndexEntry(_Entry):
    """The index in force, which lies in the cache's folder itself."""

    file: str
    sha256: str
    rows: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _INDEX_FILE.fullmatch(self.file):
            raise ValueError(f"{self.file!r:.80} is no name of an index")


@dataclass(frozen=True)
class ShardEntry(_Entry):
    """A committed shard: its number within the stream, its counts, its file's hex sha256."""

    number: int
    rows: int
    skipped: int
    sha256: str


@dataclass(frozen=True)
class Plan(_Entry):
    """Which rows go into which shard, and what computes them; committed before the first batch.

    Attributes:
        first: number of its first shard.
        shard_rows: slots a shard, a multiple of the batch size.
        pending: how many distinct contents it covers, and `pending_sha256` which.
        batch_size, engine, device, threads: what the bytes may depend on.
        versions: of the libraries that compute, by name.
        finished: whether all its shards are committed.
    """

    first: int
    shard_rows: int
    pending: int
    pending_sha256: str
    batch_size: int
    engine: str
    device: str
    threads: int
    versions: dict[str, str]
    finished: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.shard_rows, self.batch_size) < 1:
            raise ValueError("Plan: a shard or a batch has no row")

    @property
    def shard_count(self) -> int:
        """How many shards the plan makes."""
        return -(-self.pending // self.shard_rows)

    @property
    def numbers(self) -> range:
        """Of its shards."""
        return range(self.first, self.first + self.shard_count)

    @property
    def provenance(self) -> dict[str, Any]:
        """What computes, without how the work is cut into shards."""
        return {
            "engine": self.engine,
            "device": self.device,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "versions": self.versions,
        }


@dataclass(frozen=True)
class StreamEntry:
    """A stream, the shape of one row, its shards in order, and every plan that made them."""

    stream: Stream
    shape: tuple[int, ...]
    shards: tuple[ShardEntry, ...] = ()
    plans: tuple[Plan, ...] = ()

    def __post_init__(self) -> None:
        refuse_misfits(self)
        if min(self.shape, default=1) < 1 or math.prod(self.shape) >= _MOST_ROWS:
            raise ValueError(f"a row of shape {self.shape}")
        numbers = [shard.number for shard in self.shards]
        if numbers != sorted(set(numbers)):
            raise ValueError("shards are out of order, or there twice")

    @property
    def open_plans(self) -> tuple[Plan, ...]:
        """The plans that lack shards: one that was interrupted, and those that lost some."""
        there = {shard.number for shard in self.shards}
        return tuple(
            plan
            for plan in self.plans
            if not plan.finished and any(number not in there for number in plan.numbers)
        )

    @property
    def next_number(self) -> int:
        """The first shard number never used by a committed shard or by a plan."""
        used = [s.number + 1 for s in self.shards] + [p.first + p.shard_count for p in self.plans]
        return max(used, default=0)

    def settled(self) -> StreamEntry:
        """The same with no plan open: what is missing will be planned anew."""
        return replace(self, plans=tuple(replace(plan, finished=True) for plan in self.plans))

    def going_on(self, plan: Plan) -> StreamEntry:
        """The same with one of its plans as the last one, which is carried out."""
        return replace(self, plans=(*(p for p in self.plans if p != plan), plan))

    def without(self, shard: ShardEntry) -> StreamEntry:
        """The same without a shard; the plan that made it is open again."""
        return replace(
            self,
            shards=tuple(s for s in self.shards if s != shard),
            plans=tuple(
                replace(p, finished=p.finished and shard.number not in p.numbers)
                for p in self.plans
            ),
        )

    def with_shard(self, shard: ShardEntry, *, last: bool) -> StreamEntry:
        """The same with a shard of the last plan, which is finished if that was its last one."""
        plans = (*self.plans[:-1], replace(self.plans[-1], finished=last))
        return replace(
            self,
            shards=tuple(sorted((*self.shards, shard), key=lambda s: s.number)),
            plans=tuple(sorted(plans, key=lambda p: p.first)) if last else plans,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON's own types."""
        return {
            "stream": self.stream.to_dict(),
            "shape": list(self.shape),
            "shards": [asdict(s) for s in self.shards],
            "plans": [asdict(p) for p in self.plans],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        return cls(
            Stream.from_dict(data["stream"]),
            tuple(data["shape"]),
            tuple(ShardEntry.from_dict(s) for s in data["shards"]),
            tuple(Plan.from_dict(p) for p in data["plans"]),
        )


@dataclass(frozen=True)
class Manifest:
    """Everything that is in force in a cache.

    Attributes:
        recipe: what decides the values.
        backbone: name and weights locator, to load the network again; not part of the recipe.
        source: kind and location of the pictures.
        index: the index in force, None before the first commit.
        streams: by key.
    """

    recipe: Recipe
    backbone: dict[str, Any]
    source: dict[str, str]
    index: IndexEntry | None = None
    streams: dict[str, StreamEntry] = field(default_factory=dict[str, StreamEntry])

    def __post_init__(self) -> None:
        refuse_misfits(self)
        for key, entry in self.streams.items():
            stream = entry.stream
            if (key, stream.recipe) != (stream.key, self.recipe.key):
                raise ValueError(f"{key!r:.80} is another stream, or of another recipe")
            if stream.parent is not None and stream.parent not in self.streams:
                raise ValueError(f"the stream at {stream.cut!r:.80} is derived from none there is")
        if not isinstance(self.backbone.get("name"), str):
            raise ValueError("the backbone has no name")  # noqa: TRY004 - of a file
        if not isinstance(self.backbone.get("locator"), dict):
            raise ValueError("the backbone has no locator")  # noqa: TRY004 - of a file
        if not self.source.keys() >= {"kind", "location"}:
            raise ValueError("the source has no kind or no location")

    def with_stream(self, entry: StreamEntry) -> Manifest:
        """The same manifest with one stream added or replaced."""
        return replace(self, streams={**self.streams, entry.stream.key: entry})

    def to_dict(self) -> dict[str, Any]:
        """As JSON's own types."""
        return {
            "format": FORMAT,
            "recipe": self.recipe.to_dict(),
            "backbone": self.backbone,
            "source": self.source,
            "index": asdict(self.index) if self.index else None,
            "streams": {key: entry.to_dict() for key, entry in self.streams.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        return cls(
            Recipe.from_dict(data["recipe"]),
            dict(data["backbone"]),
            dict(data["source"]),
            IndexEntry.from_dict(data["index"]) if data["index"] else None,
            {key: StreamEntry.from_dict(entry) for key, entry in data["streams"].items()},
        )


def commit(folder: Path, manifest: Manifest, check: Callable[[], None]) -> None:
    """Replace the manifest atomically and durably, with its own digest inside.

    Args:
        folder: the cache.
        manifest: what is to be in force.
        check: called right before it is; what it raises keeps it out.
    """
    content = documents.encode(manifest.to_dict())
    write_durably(folder / MANIFEST, content, lambda draft: check())


def load(folder: Path) -> Manifest:
    """Read and check the manifest of a cache.

    Raises:
        CacheMissingError: there is none.
        CacheDamagedError: it is not what was written, or of another version.
        StoreError: it cannot be read.
    """
    path = folder / MANIFEST
    with naming(path):
        try:
            content = read_regular(path, documents.MOST_BYTES)
            refuse_links(folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CacheMissingError(
                f"{folder}: no cache there (no {MANIFEST}); make one with "
                f"`featcache extract DATA --out {folder}`"
            ) from error
    try:
        body, whole = documents.decode(content)
        _refuse_unusable(path, body, whole=whole)
        return Manifest.from_dict(body)
    except CacheDamagedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheDamagedError(f"{path}: not a manifest ({error}); {_NO_REPAIR}") from error


def _refuse_unusable(path: Path, body: Mapping[str, Any], *, whole: bool) -> None:
    if body.get("format") != FORMAT:
        raise CacheDamagedError(
            f"{path}: format {body.get('format')!r}, this version of featcache reads {FORMAT}; "
            "use the version that wrote it, or extract into another --out"
        )
    if not whole:
        raise CacheDamagedError(
            f"{path}: its digest does not match, so it was changed after it was written; "
            f"{_NO_REPAIR}"
        )
