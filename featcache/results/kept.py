"""What is in a cache, and what upkeep did to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from featcache.naming import shown
from featcache.results.extracted import ChangeCounts, Skip, ViewSet
from featcache.results.looking import listed
from featcache.results.record import Record


@dataclass(frozen=True)
class StreamInfo:
    """A stream of a cache; `parent` is the cut that it was derived from, None: from pixels."""

    cut: str
    pooling: str
    shape: tuple[int, ...]
    dtype: str
    rows: int
    skipped: int
    shards: int
    bytes: int
    missing: int
    computed_by: tuple[str, ...]
    view: dict[str, Any] = field(default_factory=dict[str, Any])
    parent: str | None = None


@dataclass(frozen=True)
class Staleness:
    """A cache against its source and its backbone as they are now.

    Attributes:
        checked: whether the source could be scanned; `reason` says why not.
        counts: how many samples differ; examples: the first few paths of each kind.
        recipe: fields of the recipe that differ now; `recipe_reason` says why they could not be
            compared.
        missing: samples whose row was never computed (an interrupted extraction, say).
        fresh: both could be compared, nothing differs, and nothing is missing.
    """

    checked: bool
    reason: str | None
    counts: ChangeCounts
    examples: dict[str, tuple[str, ...]]
    recipe: tuple[str, ...]
    recipe_reason: str | None
    missing: int = 0

    @property
    def fresh(self) -> bool:
        """Whether source and backbone could be compared, nothing differs, nothing is missing."""
        compared = self.checked and self.recipe_reason is None and not self.missing
        return compared and self.counts == ChangeCounts() and not self.recipe


@dataclass(frozen=True)
class InfoResult(Record):
    """What is in a cache, and what is stale, missing or new, and why.

    Attributes:
        cache: its folder.
        source: kind and location of the pictures.
        backbone: name of the network, and where its weights came from.
        recipe: everything that decides the values, and its key.
        samples: what the source named at the last extraction.
        splits: pictures by split; "none" where the data says nothing.
        classes: pictures by class. unlabelled: those of no class.
        streams: activations that are kept, the plain views first.
        skipped: samples without a row, and why.
        results: identities of the findings that probes kept.
        staleness: the cache against its source and its backbone as they are now.
    """

    cache: str
    source: dict[str, str]
    backbone: dict[str, Any]
    recipe: dict[str, Any]
    samples: int
    splits: dict[str, int]
    classes: dict[str, int]
    unlabelled: int
    streams: tuple[StreamInfo, ...]
    skipped: tuple[Skip, ...]
    results: tuple[str, ...]
    staleness: Staleness

    _main: ClassVar[str] = "streams"
    _shown: ClassVar[tuple[str, ...]] = ("streams", "skipped")

    def _headline(self) -> dict[str, str]:
        counts, missing = self.staleness.counts, self.staleness.missing
        changed = {kind: n for kind, n in vars(counts).items() if n} | {"not computed": missing}
        differs = ", ".join(f"{n} {kind}" for kind, n in changed.items() if n)
        return {
            "cache": shown(self.cache),
            "pictures": f"{self.samples} in {len(self.classes)} classes",
            "backbone": shown(str(self.backbone.get("name"))),
            "source": shown(self.source.get("location", "")),
            "classes": listed(self.classes),
            "streams": listed(stream.cut for stream in self.streams),
            "fresh": "yes" if self.staleness.fresh else differs or "not known, or another recipe",
        }


@dataclass(frozen=True)
class DamagedFile:
    """A file that is not as it was committed."""

    path: str
    problem: str


@dataclass(frozen=True)
class VerifyResult(Record):
    """What `verify` found after hashing every committed file.

    Attributes:
        cache: its folder. files: that were hashed. bytes: of them.
        damaged: files that are not as they were committed.
        seconds: of the whole.
    """

    cache: str
    files: int
    bytes: int
    damaged: tuple[DamagedFile, ...]
    seconds: float

    _main: ClassVar[str] = "damaged"
    _shown: ClassVar[tuple[str, ...]] = ("damaged",)


@dataclass(frozen=True)
class RepairResult(Record):
    """What `repair` dropped, and what it put in its place.

    Attributes:
        cache: folder of the cache. dry_run: nothing was changed.
        damaged: files that are not as they were committed.
        dropped: rows that were in them (or would be dropped).
        computed: rows that were computed or derived, of all streams together.
        missing: rows that are still to be computed; None where no index says which, and in a dry
            run.
        results: that were dropped. reindexed: whether the index was rebuilt from the pictures.
        reasons: why rows could not be computed.
        seconds: of the whole.
    """

    cache: str
    dry_run: bool
    damaged: tuple[DamagedFile, ...]
    dropped: int
    computed: int
    missing: int | None
    results: tuple[str, ...]
    reindexed: bool
    reasons: tuple[str, ...]
    seconds: float

    _shown: ClassVar[tuple[str, ...]] = ("damaged", "reasons")

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, and nothing that is damaged is in force."""
        return not self.damaged if self.dry_run else self.missing == 0 and not self.reasons


@dataclass(frozen=True)
class PruneResult(Record):
    """What `prune` removed: unnamed files, and rows whose content no sample has any more.

    Attributes:
        cache: its folder.
        files: that were removed. rows: that were dropped.
        bytes_freed: on the disk.
        sweeps: interrupted ones, whose finished steps were kept.
        views: augmented views that are still there, of every policy and seed.
    """

    cache: str
    files: int
    rows: int
    bytes_freed: int
    views: tuple[ViewSet, ...] = ()
    sweeps: int = 0
