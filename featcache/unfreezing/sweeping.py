"""All depths on all parts, resumed at the last one finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from featcache.backbones.registry import Backbone
from featcache.engines.memory import kept_memory
from featcache.evaluation.intervals import Interval, accuracy_interval
from featcache.evaluation.metrics import Scores, correct, score
from featcache.evaluation.recommendation import Recommendation, recommend
from featcache.heads.linear import LinearHead
from featcache.probing import LabelledRows, cropped_rows
from featcache.probing.views import CroppedRows
from featcache.store.cache import Cache
from featcache.store.steps import Steps
from featcache.unfreezing.courses import Course, courses_of
from featcache.unfreezing.depths import Rung, ladder
from featcache.unfreezing.fitting import (
    DepthFit,
    Progress,
    Tuning,
    solve_depth_0,
    starting_head,
)
from featcache.unfreezing.parts import Part, Split, restricted, split_of, whole_of
from featcache.unfreezing.rows import bytes_of
from featcache.unfreezing.scratch import SCRATCH, scratch_course, scratch_rung, scratch_spec
from featcache.unfreezing.spec import SweepSpec

_TENSOR = "tail."


@dataclass(frozen=True, eq=False)
class CropsFound:
    """One depth's pictures predicted by the plain view and crops together, on all parts and seeds.

    Attributes:
        scores: mean over seeds. right: (S, n) whether each seed has each picture right.
    """

    scores: Scores
    right: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DepthFound:
    """One depth, on all parts and seeds.

    Attributes:
        rung: what it trains.
        fits: by part, then by seed; depth 0 has one a part.
        scores: mean over seeds, of all pictures held out. interval: of its accuracy.
        right: (S, n) whether each seed has each of them right.
        bytes: of its activations.
        with_crops: of the same pictures; None where no crops were asked for.
    """

    rung: Rung
    fits: tuple[tuple[DepthFit, ...], ...]
    scores: Scores
    interval: Interval
    right: npt.NDArray[np.bool_]
    bytes: int
    with_crops: CropsFound | None = None

    @property
    def train_accuracy(self) -> float:
        """Mean over parts and seeds."""
        return float(np.mean([fit.train_accuracy for fits in self.fits for fit in fits]))

    @property
    def seconds(self) -> float:
        """Of all parts and seeds."""
        return sum(fit.seconds for fits in self.fits for fit in fits)


@dataclass(frozen=True, eq=False)
class Swept:
    """A sweep.

    Attributes:
        depths: shallowest first.
        split: what was held out; judged: (n,) int64 rows of it, in the order of `right`.
        recommendation: by the margin rule.
        warnings: what a person should know.
        scratch: the whole network from random weights, if asked for; no part of the advice.
    """

    depths: tuple[DepthFound, ...]
    split: Split
    judged: npt.NDArray[np.int64]
    recommendation: Recommendation
    warnings: tuple[str, ...]
    scratch: DepthFound | None = None


@kept_memory()
def sweep(
    cache: Cache,
    data: LabelledRows,
    backbone: Backbone,
    spec: SweepSpec,
    steps: Steps,
    progress: Progress | None = None,
) -> Swept:
    """Train and judge every depth on the same pictures.

    Args:
        cache: holds the activations that every depth trains from.
        data: the pictures, with their penultimate features.
        backbone: the cache's network.
        spec: what is asked.
        steps: of this sweep; what is there is not done again.
        progress: see `Progress`.

    Raises:
        CacheMissingError, CacheIncompleteError: activations are not there.
        ProbeError, TrainingError: the pictures do not allow it.
    """
    split = split_of(data, spec)
    sweeping = _sweeping(cache, data, backbone, spec, steps, progress)
    found = sweeping.run(split)
    if not spec.scratch:
        return found
    scratch = sweeping.from_scratch(cache, backbone, split, found.judged)
    return replace(found, scratch=scratch, warnings=(*found.warnings, *_warnings((scratch,))))


@kept_memory()
def sweep_sizes(
    cache: Cache,
    data: LabelledRows,
    backbone: Backbone,
    spec: SweepSpec,
    steps: Steps,
    counts: Sequence[int],
    progress: Progress | None = None,
) -> list[Swept]:
    """The same sweep, trained on so many pictures each time and judged on the same ones.

    Args:
        cache: see `sweep`, as for the others.
        data: the pictures.
        backbone: the network.
        spec: what is asked.
        steps: of this sweep.
        counts: pictures that train, each time.
        progress: see `Progress`.

    Raises:
        As `sweep`. ProbeError: there are not that many pictures.
    """
    split = split_of(data, spec)
    sweeping = _sweeping(cache, data, backbone, spec, steps, progress)
    splits = [restricted(split, data, count, spec.probe.seed) for count in counts]
    return [sweeping.run(part, f"{count}-") for part, count in zip(splits, counts, strict=True)]


def refit(
    cache: Cache,
    data: LabelledRows,
    backbone: Backbone,
    spec: SweepSpec,
    depth: int,
    progress: Progress | None = None,
) -> DepthFit:
    """A depth trained on all pictures but those of a test split, to be used.

    Args:
        cache: see `sweep`, as for the others.
        data: the pictures.
        backbone: the network.
        spec: what is asked.
        depth: one of the spec's, above 0.
        progress: see `Progress`.
    """
    wanted = tuple(d for d in spec.depths if d == depth or (spec.progressive and d < depth))
    shallow = replace(spec, depths=tuple(sorted({0, *wanted})), seeds=1, crops=())
    sweeping = _sweeping(cache, data, backbone, shallow, None, progress)
    return sweeping.fits(0, whole_of(data, spec))[depth][0]


def _sweeping(
    cache: Cache,
    data: LabelledRows,
    backbone: Backbone,
    spec: SweepSpec,
    steps: Steps | None,
    progress: Progress | None,
) -> _Sweeping:
    courses = courses_of(cache, data, backbone, spec)
    rungs = [ladder(backbone, (0,))[0], *(course.rung for course in courses)]
    kept = {course.rung.depth: course for course in courses}
    crops = _crops_of(cache, data, spec)
    return _Sweeping(data, spec, rungs, kept, crops, steps, progress)


def _crops_of(cache: Cache, data: LabelledRows, spec: SweepSpec) -> CroppedRows | None:
    """Features of the crops, which depth 0 predicts from."""
    if not spec.crops:
        return None
    return cropped_rows(cache, cache.stream().entry.stream, spec.crops, data.rows)


class _Sweeping:
    """One sweep; the state is what its parts share."""

    def __init__(
        self,
        data: LabelledRows,
        spec: SweepSpec,
        rungs: list[Rung],
        kept: dict[int, Course],
        crops: CroppedRows | None,
        steps: Steps | None,
        progress: Progress | None,
    ) -> None:
        self._data, self._spec, self._rungs, self._kept = data, spec, rungs, kept
        self._crops, self._steps, self._progress = crops, steps, progress

    def run(self, split: Split, prefix: str = "") -> Swept:
        """Every depth on every part; the prefix tells its steps from those of another split."""
        found: dict[int, list[tuple[DepthFit, ...]]] = {rung.depth: [] for rung in self._rungs}
        for number, part in enumerate(split.parts):
            for depth, fits in self.fits(number, part, prefix).items():
                found[depth].append(tuple(fits))
        judged = np.concatenate([np.flatnonzero(part.judged) for part in split.parts])
        depths = tuple(self._depth(rung, tuple(found[rung.depth]), judged) for rung in self._rungs)
        right = np.stack([depth.right for depth in depths], axis=1)
        names = [f"depth {rung.depth}" for rung in self._rungs]
        groups = self._data.groups[judged]
        advice = recommend(right, groups, margin=self._spec.margin, names=names)
        warnings = (*split.warnings, *_warnings(depths))
        return Swept(depths, split, judged, advice, warnings)

    def fits(self, number: int, part: Part, prefix: str = "") -> dict[int, list[DepthFit]]:
        """Fits of every depth on one part, by seed."""
        prefix = f"{prefix}{number}"
        first = self._step(
            f"{prefix}-0", lambda: solve_depth_0(self._data, part, self._spec, self._crops)
        )
        found = {rung.depth: [first] if not rung.depth else [] for rung in self._rungs}
        if len(self._rungs) == 1:
            return found
        head = starting_head(self._data, part, self._spec)
        for seed in range(self._spec.seeds):
            own = self._spec.training.seed + seed
            tuning = Tuning(self._data, part, self._spec, own, head)
            for rung in self._rungs[1:]:
                fit = self._step(f"{prefix}-{rung.depth}-{own}", self._fitted(tuning, rung))
                tuning.go_on_from(fit)
                found[rung.depth].append(fit)
        return found

    def _fitted(self, tuning: Tuning, rung: Rung) -> Callable[[], DepthFit]:
        return lambda: tuning.fit(self._kept[rung.depth], self._told(f"depth {rung.depth}"))

    def from_scratch(
        self, cache: Cache, backbone: Backbone, split: Split, judged: npt.NDArray[np.int64]
    ) -> DepthFound:
        """The whole network trained from random weights, on the same parts."""
        seeds = range(self._spec.seeds)

        def fitted(part: Part, seed: int) -> Callable[[], DepthFit]:
            spec = scratch_spec(self._spec, backbone, seed)
            own = spec.training.seed

            def fit() -> DepthFit:
                course = scratch_course(cache, self._data, backbone, spec)
                head = starting_head(self._data, part, spec)
                return Tuning(self._data, part, spec, own, head).fit(course, self._told("scratch"))

            return fit

        fits = tuple(
            tuple(self._step(f"{number}-scratch-{seed}", fitted(part, seed)) for seed in seeds)
            for number, part in enumerate(split.parts)
        )
        return self._found(scratch_rung(backbone), fits, judged, 0)

    def _told(self, stage: str) -> Progress | None:
        progress = self._progress
        if progress is None:
            return None
        return lambda _, done, total: progress(stage, done, total)

    def _step(self, name: str, fit: Callable[[], DepthFit]) -> DepthFit:
        """A step that was finished before, or now."""
        kept = self._steps.read(name) if self._steps else None
        if kept is not None:
            with suppress(KeyError, TypeError, ValueError):  # of another making: fitted again
                return _read(*kept)
        made = fit()
        if self._steps:
            self._steps.write(name, *_written(made))
        return made

    def _depth(
        self, rung: Rung, fits: tuple[tuple[DepthFit, ...], ...], judged: npt.NDArray[np.int64]
    ) -> DepthFound:
        kept = self._kept[rung.depth].given.bytes if rung.depth else bytes_of(self._data.features)
        return self._found(rung, fits, judged, kept)

    def _found(
        self,
        rung: Rung,
        fits: tuple[tuple[DepthFit, ...], ...],
        judged: npt.NDArray[np.int64],
        size: int,
    ) -> DepthFound:
        return found_of(self._data, rung, fits, judged, self._spec.seeds, size)


def found_of(
    data: LabelledRows,
    rung: Rung,
    fits: tuple[tuple[DepthFit, ...], ...],
    judged: npt.NDArray[np.int64],
    seeds: int,
    size: int,
) -> DepthFound:
    """What fits, by part and seed, say of the pictures held out.

    Args:
        data: the pictures.
        rung: what was trained.
        fits: by part, then by seed; what is solved has one a part.
        judged: rows held out, part by part.
        seeds: of what is compared with it.
        size: bytes it was trained from.
    """
    by_seed = [np.concatenate([fit.probabilities for fit in of]) for of in zip(*fits, strict=True)]
    scores, right = _judged(by_seed, data.targets[judged])
    interval = accuracy_interval(right.mean(axis=0), data.groups[judged])
    if len(by_seed) < seeds:
        right = np.repeat(right, seeds, axis=0)  # what is solved is always the same
    return DepthFound(rung, fits, scores, interval, right, size, _crops_found(data, fits, judged))


def _crops_found(
    data: LabelledRows, fits: tuple[tuple[DepthFit, ...], ...], judged: npt.NDArray[np.int64]
) -> CropsFound | None:
    by_seed: list[npt.NDArray[np.float64]] = []
    for of in zip(*fits, strict=True):
        said = [fit.with_crops for fit in of if fit.with_crops is not None]
        if len(said) < len(of):
            return None
        by_seed.append(np.concatenate(said))
    return CropsFound(*_judged(by_seed, data.targets[judged]))


def _judged(
    by_seed: Sequence[npt.NDArray[np.float64]], targets: npt.NDArray[Any]
) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """Mean scores of each seed's probabilities (n, K), and (S, n) which are right."""
    right = np.stack([correct(given, targets) for given in by_seed])
    return _mean([score(given, targets) for given in by_seed]), right


def _mean(scores: list[Scores]) -> Scores:
    losses = [s.log_loss for s in scores if s.log_loss is not None]
    return Scores(
        float(np.mean([s.accuracy for s in scores])),
        float(np.mean([s.mean_per_class for s in scores])),
        float(np.mean(losses)) if losses else None,
        scores[0].n,
    )


def _warnings(depths: tuple[DepthFound, ...]) -> Iterator[str]:
    for depth in depths:
        if any(fit.diverged for fits in depth.fits for fit in fits):
            name = SCRATCH if depth.rung.cut == SCRATCH else f"depth {depth.rung.depth}"
            yield (
                f"{name}: a training diverged and its best weights before that "
                "were kept; give smaller rates"
            )


def _written(fit: DepthFit) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    rows: dict[str, npt.NDArray[Any]] = {
        "coef": fit.head.coef,
        "bias": fit.head.bias,
        "probabilities": fit.probabilities,
    }
    if fit.with_crops is not None:
        rows["with_crops"] = fit.with_crops
    rows |= {_TENSOR + name: tensor.numpy() for name, tensor in fit.tensors.items()}
    record = {
        "loss": fit.head.loss,
        "multi_label": fit.head.multi_label,
        "train_accuracy": fit.train_accuracy,
        "seconds": fit.seconds,
        "rate": fit.rate,
        "epochs": fit.epochs,
        "diverged": fit.diverged,
    }
    return record, rows


def _read(record: Mapping[str, Any], rows: Mapping[str, npt.NDArray[Any]]) -> DepthFit:
    head = LinearHead(
        record["loss"], np.array(rows["coef"]), np.array(rows["bias"]), record["multi_label"]
    )
    tensors = {
        name.removeprefix(_TENSOR): torch.from_numpy(np.array(value))
        for name, value in rows.items()
        if name.startswith(_TENSOR)
    }
    return DepthFit(
        head,
        tensors,
        np.array(rows["probabilities"]),
        record["train_accuracy"],
        record["seconds"],
        record["rate"],
        record["epochs"],
        record["diverged"],
        np.array(rows["with_crops"]) if "with_crops" in rows else None,
    )
