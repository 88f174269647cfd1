"""The typed, frozen records that commands return. `to_json` gives the keys of `--json`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from featcache import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _plain(value: Any) -> Any:
    """Records, tuples and mappings as JSON's own types; what is no number in JSON is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Record:
    """Parent of what commands return."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON's own types, with the keys that `--json` prints.

        JSON has no infinity and no NaN: such a number is null.
        """
        return _plain(self)


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
class ChangeCounts:
    """How many samples differ from the last extraction."""

    new: int = 0
    changed: int = 0
    missing: int = 0
    relabelled: int = 0
    moved: int = 0


@dataclass(frozen=True)
class ExtractResult(Record, os.PathLike[str]):
    """What `extract` did; usable wherever the path of its cache is.

    Attributes:
        cache: folder of the cache.
        samples: what the source names; every one is computed, reused or skipped.
        computed: rows computed now. reused: samples served by rows there before (or by the row
            of a picture with the same bytes). skipped: samples without a row.
        classes: names, sorted.
        features: by cut.
        seconds: of the whole; images_per_second: of decoding and forward passes, 0 if none ran.
        recipe: everything that decides the values.
        engine: name, device, threads, batch size.
        changes: against the last extraction; None at the first.
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
    changes: ChangeCounts | None = None
    passed_over: dict[str, int] = field(default_factory=dict[str, int])
    warnings: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        return self.cache


@dataclass(frozen=True)
class PathPoint:
    """One C of the path: scores on held-out rows of the training part.

    `log_loss_error` is the standard error of the mean log-loss over the rows.
    """

    C: float
    accuracy: float
    log_loss: float
    log_loss_error: float


@dataclass(frozen=True)
class Estimate:
    """What to expect on new pictures.

    Attributes:
        method: which rows were held out and how C was chosen without them, and the interval's
            name.
        accuracy: share of right rows; ci95: its 95% interval.
        mean_per_class: recall averaged over classes (several labels: mean average precision).
        log_loss: mean negative log probability of the given label, in nats.
        n: rows it was measured on.
    """

    method: str
    accuracy: float
    ci95: tuple[float, float]
    mean_per_class: float
    log_loss: float
    n: int


@dataclass(frozen=True)
class ProbeResult(Record):
    """What `probe` found.

    Attributes:
        head: "softmax" or "logistic".
        n_train: rows the saved head is fitted on; n_test: rows of the test split, else 0.
        classes: names, in the order of the head's outputs.
        path: scores by C on held-out rows of the training part.
        best_C: the one with the least held-out log-loss, used for the refit.
        one_error_C: the smallest C whose held-out log-loss is within one standard error of it.
        estimate: the honest number. test: the same of the test split, None without one.
        gap: certified bound on (objective - optimum) / objective of the refit.
        converged: whether the refit's gap is within the tolerance.
        confusion: (K, K) counts on the rows of the estimate; rows given, columns predicted.
        seconds: of fitting and scoring.
        shots, unfreeze, recommended_depth: of few-shot runs and of sweeps over depth.
        advice: what to do next, in a sentence.
        saved: the classifier's file, if one was asked for.
        result: identity of the findings kept in the cache; None if it could not be written.
        multi_label: whether pictures may have several labels: then accuracy is the share of
            pictures whose whole label set is right, and the confusion is empty.
        cache, cut: what was probed. warnings: what a person should know, by name.
    """

    head: str
    n_train: int
    n_test: int
    classes: tuple[str, ...]
    path: tuple[PathPoint, ...]
    best_C: float  # noqa: N815 - the field's name
    one_error_C: float  # noqa: N815 - the field's name
    estimate: Estimate
    test: Estimate | None
    gap: float
    converged: bool
    confusion: tuple[tuple[int, ...], ...]
    seconds: float
    cache: str
    cut: str
    shots: tuple[dict[str, Any], ...] = ()
    unfreeze: tuple[dict[str, Any], ...] = ()
    recommended_depth: int | None = None
    advice: str = ""
    saved: str | None = None
    multi_label: bool = False
    result: str | None = None
    warnings: tuple[str, ...] = ()

    def plot(self) -> Figure:
        """Held-out accuracy and log-loss over C (needs the extra `plots`)."""
        return plots.regularisation_path(
            [p.C for p in self.path],
            [p.accuracy for p in self.path],
            [p.log_loss for p in self.path],
            self.best_C,
        )


@dataclass(frozen=True)
class LabelProbability:
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction(Record):
    """What a classifier says of one picture.

    Attributes:
        path: the picture.
        label: the likeliest class; None if unreadable or under the least probability asked for.
        probability: of the likeliest class; None if unreadable.
        top: the likeliest classes, best first.
        labels: for classifiers of several labels, all at or over the threshold.
        error: why the picture could not be read, else None.
    """

    path: str
    label: str | None
    probability: float | None
    top: tuple[LabelProbability, ...] = ()
    labels: tuple[str, ...] | None = None
    error: str | None = None


@dataclass(frozen=True)
class BackboneRow(Record):
    """A network that can be used: name, library, origin of its weights, input side in pixels."""

    name: str
    library: str
    weights: str
    size: int | None


@dataclass(frozen=True)
class StreamInfo:
    """A stream of a cache."""

    cut: str
    shape: tuple[int, ...]
    dtype: str
    rows: int
    skipped: int
    shards: int
    bytes: int
    missing: int
    computed_by: tuple[str, ...]


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
    """What is in a cache, and what is stale, missing or new, and why."""

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


@dataclass(frozen=True)
class DamagedFile:
    """A file that is not as it was committed."""

    path: str
    problem: str


@dataclass(frozen=True)
class VerifyResult(Record):
    """What `verify` found after hashing every committed file."""

    cache: str
    files: int
    bytes: int
    damaged: tuple[DamagedFile, ...]
    seconds: float


@dataclass(frozen=True)
class PruneResult(Record):
    """What `prune` removed: unnamed files, and rows whose content no sample has any more."""

    cache: str
    files: int
    rows: int
    bytes_freed: int


@dataclass(frozen=True)
class DemoResult(Record):
    """The main job on the embedded default."""

    extract: ExtractResult
    probe: ProbeResult
    predictions: tuple[Prediction, ...]
    seconds: float
