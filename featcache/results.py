"""The typed, frozen records that commands return. `to_json` gives the keys of `--json`."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Self

from featcache import plots
from featcache.recipe import View

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
    """Where the time of an extraction went, from the first batch to the last shard.

    Attributes:
        seconds: that passed.
        cores: that could be used.
        cpu_seconds: of all cores, by stage: "read" (and hash), "decode", "transform", "forward"
            (and all else that the process computed), "write", and "idle", what the cores had left.
        waited: seconds that the forward pass waited for "pixels", and for "writing".
    """

    seconds: float
    cores: int
    cpu_seconds: dict[str, float]
    waited: dict[str, float]


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
        seconds: of the whole; images_per_second: of decoding and forward passes, 0 if none ran.
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

    def __fspath__(self) -> str:
        return self.cache


@dataclass(frozen=True)
class PathPoint:
    """One candidate of the path: scores on held-out rows of the training part.

    Attributes:
        C: inverse strength of the penalty; None where neighbours vote.
        accuracy: share of rows that are right.
        log_loss: mean, in nats, and log_loss_error its standard error; None for scores that are
            no probabilities (ridge).
        neighbours: how many vote, else None.
        squared_error: mean squared error of ridge's scores, else None.
    """

    C: float | None
    accuracy: float
    log_loss: float | None
    log_loss_error: float | None
    neighbours: int | None = None
    squared_error: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What to expect on new pictures.

    Attributes:
        method: which rows were held out and how C was chosen without them, and the interval's
            name.
        accuracy: share of right rows; ci95: its 95% interval.
        mean_per_class: recall averaged over classes (several labels: mean average precision).
        log_loss: mean negative log probability of the given label, in nats; None for scores
            that are no probabilities (ridge).
        n: rows it was measured on.
    """

    method: str
    accuracy: float
    ci95: tuple[float, float]
    mean_per_class: float
    log_loss: float | None
    n: int


@dataclass(frozen=True)
class Calibration:
    """What one temperature, fitted on other held-out rows, does to the probabilities.

    Attributes:
        temperature: that divides the logits; above 1 where the probabilities were too sure.
        ece_before, ece_after: expected calibration error, from 0 to 1.
        log_loss_before, log_loss_after: nats.
    """

    temperature: float
    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float


@dataclass(frozen=True)
class Suspect:
    """A picture whose label is likely wrong: what it is given, and what the others suggest."""

    path: str
    given: str
    suggested: str
    probability_given: float
    probability_suggested: float


@dataclass(frozen=True)
class Overlap:
    """Pictures with the same bytes in different splits or classes; labels and splits by picture."""

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Shots:
    """What heads of so many pictures a class reach.

    Attributes:
        shots: pictures a class, or "all".
        mean: accuracy, averaged over the support sets. std: over them; None of a single one.
        ci95: 95% interval of the mean, as `method` says.
        seeds: support sets.
        mean_per_class: recall averaged over classes, then over support sets.
        method: how C was chosen, what was measured on, and the interval's name.
    """

    shots: int | str
    mean: float
    std: float | None
    ci95: tuple[float, float]
    seeds: int
    mean_per_class: float
    method: str


@dataclass(frozen=True)
class Difference:
    """This probe's accuracy minus another's on the pictures that both held out.

    Attributes:
        difference: -1 to 1. ci95: its 95% interval. p_value: two-sided, of none.
        method: how both were computed. n: pictures.
    """

    difference: float
    ci95: tuple[float, float]
    p_value: float
    method: str
    n: int


@dataclass(frozen=True)
class Tta:
    """An estimate, or a depth, with random crops beside the plain view, on the same pictures.

    Attributes:
        how: the probabilities of all views were put together: "mean" or "max".
        crops: beside the plain view.
        accuracy, mean_per_class, log_loss: as in `Estimate`.
        gain: the accuracy minus that of the plain view alone, paired.
    """

    how: str
    crops: int
    accuracy: float
    mean_per_class: float
    log_loss: float | None
    gain: Difference


@dataclass(frozen=True)
class Comparison:
    """An earlier result, and the paired difference of this one to it."""

    cache: str
    result: str
    head: str
    accuracy: float
    difference: Difference


@dataclass(frozen=True)
class LayerScore:
    """The same head on the activations of one cut.

    Attributes:
        cut: its name; width: numbers a picture. views: of a picture, that its head trained on.
        accuracy, ci95, mean_per_class, log_loss, best_C, gap, seconds: as in `ProbeResult`.
        difference: to the penultimate feature, paired; None for that one.
    """

    cut: str
    width: int
    accuracy: float
    ci95: tuple[float, float]
    mean_per_class: float
    log_loss: float | None
    best_C: float | None  # noqa: N815 - the field's name
    gap: float | None
    seconds: float
    difference: Difference | None
    views: int = 1


@dataclass(frozen=True)
class DepthScore:
    """The last `depth` units and the head, trained, on rows that were held out.

    Attributes:
        depth: units that train; 0 is the probe. cut: what is trained from: cached activations, or
            "pixels"; "scratch" where the whole network starts from random weights.
        accuracy, ci95, mean_per_class, log_loss: as in `Estimate`.
        train_accuracy: on the rows it was trained on; overfitting: how much higher that is.
        params_total, params_trainable, params_frozen: numbers in the network and its head.
        seconds: of training and scoring. bytes: of the cached activations.
        against_depth_0: paired; None for depth 0 itself. adjusted_p: its p_value adjusted for all
            depths of the sweep.
        rate: the learning rate of the topmost unit that was chosen, epochs: that were trained;
            None for depth 0, which is solved.
        tta: with random crops beside the plain view, on the same rows; None where not asked for.
    """

    depth: int
    cut: str
    accuracy: float
    ci95: tuple[float, float]
    train_accuracy: float
    params_total: int
    params_trainable: int
    params_frozen: int
    seconds: float
    mean_per_class: float
    log_loss: float | None
    bytes: int
    against_depth_0: Difference | None = None
    adjusted_p: float | None = None
    rate: float | None = None
    epochs: int | None = None
    tta: Tta | None = None
    overfitting: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "overfitting", self.train_accuracy - self.accuracy)


@dataclass(frozen=True)
class DataSize:
    """The same sweep, trained on a part of the pictures and judged on the same held-out ones.

    Attributes:
        n_train: pictures it was trained on; scores: by depth, shallowest first.
        recommended_depth: None where undecided. advice: why, in a sentence.
    """

    n_train: int
    scores: tuple[DepthScore, ...]
    recommended_depth: int | None
    advice: str


@dataclass(frozen=True)
class HeadScore:
    """A head on rows that were held out.

    Attributes:
        accuracy, ci95, mean_per_class, log_loss: as in `Estimate`.
        train_accuracy: on the rows it was trained on; overfitting: how much higher that is.
        params: numbers in the head. seconds: of fitting and scoring.
    """

    accuracy: float
    ci95: tuple[float, float]
    mean_per_class: float
    log_loss: float | None
    train_accuracy: float
    params: int
    seconds: float
    overfitting: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "overfitting", self.train_accuracy - self.accuracy)


@dataclass(frozen=True)
class MlpScore:
    """An MLP head beside the linear head, on the same pictures.

    Attributes:
        hidden: units. dropout: share of them that was left out at each step.
        rate: the learning rate that was chosen, epochs: that were trained; of the first training.
        score: of the MLP head. linear: of the linear one.
        difference: the MLP head's accuracy minus the linear one's, paired.
    """

    hidden: int
    dropout: float
    rate: float | None
    epochs: int | None
    score: HeadScore
    linear: HeadScore
    difference: Difference


@dataclass(frozen=True)
class ProbeResult(Record):
    """What `probe` found.

    Attributes:
        head: "softmax", "logistic", "ridge", "knn" or "mlp". protocol: whose rules were followed.
        n_train: rows the saved head is fitted on; n_test: rows of the test split, else 0.
        classes: names, in the order of the head's outputs.
        path: scores by C on held-out rows of the training part.
        best_C: the one that was chosen, used for the refit; None of neighbours.
        best_neighbours: how many of them were chosen, else None.
        one_error_C: the smallest C whose held-out log-loss is within one standard error of it.
        estimate: the honest number. test: the same of the test split, None without one.
        gap: certified bound on (objective - optimum) / objective of the refit; None of ridge and
            neighbours, which are solved in closed form, and of an MLP, which is not solved.
        converged: whether the refit's gap is within the tolerance.
        confusion: (K, K) counts on the rows of the estimate; rows given, columns predicted.
        seconds: of fitting and scoring.
        calibration: of the rows of the estimate; None where there are no probabilities.
        overlaps: pictures with the same bytes in different splits or classes.
        suspects: labels that are likely wrong, the worst first, as many as were asked for; None
            where none were.
        shots: by pictures a class. layers: by cut. against: beside an earlier result.
        tta: with random crops beside the plain view. mlp: beside the linear head; None for others.
        unfreeze: by depth, shallowest first. recommended_depth: the shallowest that is as good as
            the best; None where undecided or not asked for.
        scratch: the whole network trained from random weights instead, for comparison; no part of
            the advice. None where not asked for.
        advice: what to do next, in a sentence. data_sizes: the sweep by number of pictures.
        saved: the classifier's file, if one was asked for.
        result: identity of the findings kept in the cache; None if it could not be written.
        multi_label: whether pictures may have several labels: then accuracy is the share of
            pictures whose whole label set is right, and the confusion is empty.
        views: augmented views that the head was fitted on beside the plain one.
        cache, cut: what was probed. warnings: what a person should know, by name.
    """

    head: str
    n_train: int
    n_test: int
    classes: tuple[str, ...]
    path: tuple[PathPoint, ...]
    best_C: float | None  # noqa: N815 - the field's name
    one_error_C: float | None  # noqa: N815 - the field's name
    estimate: Estimate
    test: Estimate | None
    gap: float | None
    converged: bool
    confusion: tuple[tuple[int, ...], ...]
    seconds: float
    cache: str
    cut: str
    protocol: str = "default"
    best_neighbours: int | None = None
    calibration: Calibration | None = None
    overlaps: tuple[Overlap, ...] = ()
    suspects: tuple[Suspect, ...] | None = None
    shots: tuple[Shots, ...] = ()
    layers: tuple[LayerScore, ...] = ()
    against: Comparison | None = None
    tta: Tta | None = None
    mlp: MlpScore | None = None
    unfreeze: tuple[DepthScore, ...] = ()
    recommended_depth: int | None = None
    scratch: DepthScore | None = None
    advice: str = ""
    data_sizes: tuple[DataSize, ...] = ()
    saved: str | None = None
    multi_label: bool = False
    views: tuple[ViewSet, ...] = ()
    result: str | None = None
    warnings: tuple[str, ...] = ()

    def plot(self) -> Figure:
        """The path over C, and what else was asked for, a panel each (extra `plots`)."""
        panels = [plots.path_panel(self._path_curve())] if self.path else []
        if self.shots:
            panels.append(plots.shots_panel([s.shots for s in self.shots], *_bars(self.shots)))
        if self.layers:
            accuracy = [layer.accuracy for layer in self.layers]
            names = [layer.cut for layer in self.layers]
            panels.append(plots.layers_panel(names, accuracy, [s.ci95 for s in self.layers]))
        if self.mlp:
            both = self.mlp.linear, self.mlp.score
            accuracy, ends = [head.accuracy for head in both], [head.ci95 for head in both]
            panels.append(plots.layers_panel(["linear", "mlp"], accuracy, ends, title="by head"))
        if self.unfreeze:
            panels.append(plots.depths_panel(self._depth_curve()))
        if self.data_sizes:
            panels.append(plots.map_panel(self._depth_map()))
        return plots.figure(panels)

    def _depth_curve(self) -> plots.DepthCurve:
        return plots.DepthCurve(
            depths=[score.depth for score in self.unfreeze],
            accuracy=[score.accuracy for score in self.unfreeze],
            intervals=[score.ci95 for score in self.unfreeze],
            train_accuracy=[score.train_accuracy for score in self.unfreeze],
            recommended=self.recommended_depth,
        )

    def _depth_map(self) -> plots.DepthMap:
        return plots.DepthMap(
            sizes=[size.n_train for size in self.data_sizes],
            depths=[score.depth for score in self.data_sizes[0].scores],
            accuracy=[[score.accuracy for score in size.scores] for size in self.data_sizes],
            recommended=[size.recommended_depth for size in self.data_sizes],
        )

    def _path_curve(self) -> plots.PathCurve:
        votes = self.best_C is None
        return plots.PathCurve(
            label="k, neighbours" if votes else "C (larger: less regularisation)",
            at=[float((p.neighbours if votes else p.C) or 0) for p in self.path],
            accuracy=[p.accuracy for p in self.path],
            loss_label="squared error" if self.path[0].log_loss is None else "log-loss",
            loss=[_first(p.log_loss, p.squared_error) for p in self.path],
            loss_error=[p.log_loss_error or 0.0 for p in self.path],
            best=float((self.best_neighbours if votes else self.best_C) or 0),
            one_error=self.one_error_C,
        )


def _first(*values: float | None) -> float:
    return next((value for value in values if value is not None), math.nan)


def _bars(shots: tuple[Shots, ...]) -> tuple[list[float], list[tuple[float, float]]]:
    return [s.mean for s in shots], [s.ci95 for s in shots]


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

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, and nothing that is damaged is in force."""
        return not self.damaged if self.dry_run else self.missing == 0 and not self.reasons


@dataclass(frozen=True)
class PruneResult(Record):
    """What `prune` removed: unnamed files, and rows whose content no sample has any more.

    Attributes:
        sweeps: interrupted ones, whose finished steps were kept.
        views: augmented views that are still there, of every policy and seed.
    """

    cache: str
    files: int
    rows: int
    bytes_freed: int
    views: tuple[ViewSet, ...] = ()
    sweeps: int = 0


@dataclass(frozen=True)
class DemoResult(Record):
    """The main job on the embedded default; the plot's path, if it could be drawn."""

    extract: ExtractResult
    probe: ProbeResult
    predictions: tuple[Prediction, ...]
    seconds: float
    plot: str | None = None


@dataclass(frozen=True)
class LayerRow(Record):
    """A unit of a network, and the activation after it.

    Attributes:
        depth: 1 for the topmost unit.
        name: of the module; "layer4.1" is the cut after it.
        shape: of one picture's activation.
        bytes: of it in half precision, as `--pool none` stores it.
        params: of the unit. params_trainable: of it and all above it, without the head.
            params_frozen: of all below it.
        cost_share: of the multiplications of convolutions and linear layers in one forward pass,
            counted, not timed; attention's own products are left out.
    """

    depth: int
    name: str
    shape: tuple[int, ...]
    bytes: int
    params: int
    params_trainable: int
    params_frozen: int
    cost_share: float
