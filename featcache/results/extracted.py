"""What `extract` did."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from featcache import plots
from featcache.naming import shown
from featcache.recipe import View
from featcache.results.looking import cell, listed
from featcache.results.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Skip:
    """A sample without a row, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class FeatureInfo:
    """Shape of one row and stored dtype of a cut's activations."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ViewSet:
    """How many views of a policy and a seed there are, the plain view not counted."""

    policy: str
    seed: int
    count: int

    @classmethod
    def all_of(cls, views: Iterable[View]) -> tuple[Self, ...]:
        """Those that some views (of several cuts, say) are of."""
        counts = Counter((v.policy, v.seed) for v in dict.fromkeys(views) if v != View())
        return tuple(cls(policy, seed, count) for (policy, seed), count in counts.items())

    def __str__(self) -> str:
        return f"{self.count} of {self.policy} (seed {self.seed})"


@dataclass(frozen=True)
class ChangeCounts:
    """How many samples differ from the last extraction."""

    new: int = 0
    changed: int = 0
    missing: int = 0
    relabelled: int = 0
    moved: int = 0


@dataclass(frozen=True)
class ExtractProfile(Record):
    """Where the time of an extraction went.

    Attributes:
        seconds: that passed from the first batch to the last shard.
        cores: that could be used.
        cpu_seconds: of all cores, by stage: "read" (and hash), "decode", "transform", "forward"
            (and all else that the process computed), "write", and "idle", what the cores had left.
        waited: seconds that the forward pass waited for "pixels", and for "writing".
        outside: seconds of all else: "network" (to load it), "scan" (to find pictures and hash what
            is new), "engine" (to make and try engines), "rest" (plans, the index, checks of cached
            rows, pictures that calibrate int8, what a precision below fp32 changes).
    """

    seconds: float
    cores: int
    cpu_seconds: dict[str, float]
    waited: dict[str, float]
    outside: dict[str, float] = field(default_factory=dict[str, float])

    _main: ClassVar[str] = "cpu_seconds"
    _shown: ClassVar[tuple[str, ...]] = ("cpu_seconds",)

    def plot(self) -> Figure:
        """Seconds of all cores by stage."""
        title = f"{self.seconds:.1f} s on {self.cores} cores"
        spent = self.cpu_seconds
        return plots.figure([plots.bars_panel(list(spent), list(spent.values()), title=title)])


@dataclass(frozen=True)
class PrecisionChange(Record):
    """Features of a precision below fp32 beside those of fp32.

    Attributes:
        precision: which one.
        pictures: how many were computed in both.
        least_cosine, mean_cosine: between the two features of a picture.
        accuracy, accuracy_fp32: of ridge regression on these pictures, each predicted by the
            others; None where fewer than two classes have pictures of one label.
    """

    precision: str
    pictures: int
    least_cosine: float
    mean_cosine: float
    accuracy: float | None
    accuracy_fp32: float | None


@dataclass(frozen=True)
class ExtractResult(Record, os.PathLike[str]):
    """What `extract` did; usable wherever the path of its cache is.

    Attributes:
        cache: folder of the cache.
        samples: what the source names; every one is computed, reused or skipped.
        computed: pictures of which at least one row was computed now. reused: samples served by
            rows there before (or by those of a picture with the same bytes). skipped: samples
            without a row.
        classes: names, sorted.
        features: by cut.
        seconds: of the whole; images_per_second: of decoding and forward passes, 0 if none ran. Of
            several backbones in one pass, the time that this one took: its forward passes and
            writing, and an equal part of what all waited for pixels.
        recipe: everything that decides the values.
        engine: name, device, threads, batch size, and why it was taken.
        profile: where the time went; None where nothing was computed.
        precision_change: what a precision below fp32 changes; None at fp32.
        changes: against the last extraction; None at the first.
        views: that were asked for beside the plain one.
        passed_over: files that are no samples, counted by reason.
        warnings: what a person should know, by name.
    """

    cache: str
    samples: int
    computed: int
    reused: int
    skipped: tuple[Skip, ...]
    classes: tuple[str, ...]
    features: dict[str, FeatureInfo]
    seconds: float
    images_per_second: float
    recipe: dict[str, Any]
    engine: dict[str, Any]
    profile: ExtractProfile | None = None
    precision_change: PrecisionChange | None = None
    changes: ChangeCounts | None = None
    views: tuple[ViewSet, ...] = ()
    passed_over: dict[str, int] = field(default_factory=dict[str, int])
    warnings: tuple[str, ...] = ()

    _shown: ClassVar[tuple[str, ...]] = ("features", "skipped")

    def plot(self) -> Figure:
        """Where the time went; no stages where nothing was computed."""
        return (self.profile or ExtractProfile(0.0, 0, {}, {})).plot()

    def _headline(self) -> dict[str, str]:
        counts = f"{self.computed} computed, {self.reused} reused, {len(self.skipped)} skipped"
        kept = [f"{cut} {cell(info.shape)} {info.dtype}" for cut, info in self.features.items()]
        rate = f" ({self.images_per_second:.1f} pictures/s)" if self.images_per_second else ""
        told = {
            "cache": shown(self.cache),
            "pictures": f"{self.samples} in {len(self.classes)} classes: {counts}",
            "features": listed(kept),
            "classes": listed(self.classes),
            "seconds": f"{self.seconds:.1f}{rate}",
            "engine": f"{self.engine.get('name')} on {self.engine.get('device')}",
            "warnings": listed(self.warnings),
        }
        return {name: text for name, text in told.items() if text}

    def __fspath__(self) -> str:
        return self.cache
