"""One depth on one part: from the solved head, at a rate that validation pictures choose."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from featcache.errors import ProbeError
from featcache.evaluation.metrics import correct
from featcache.heads.averaging import averaged
from featcache.heads.linear import LinearHead
from featcache.probing import LabelledRows, ProbeSpec
from featcache.probing.crops import with_crops
from featcache.probing.judging import accuracy_on
from featcache.probing.solving import Solving
from featcache.probing.views import CroppedRows
from featcache.training.examples import Examples
from featcache.training.guard import layers_with_statistics
from featcache.training.model import (
    TunedModel,
    head_of,
    model_of,
    tuned_tensors,
    untrained_head,
)
from featcache.training.rates import choose_rate
from featcache.training.spec import TrainingSpec
from featcache.training.trainer import Trained, TrainingStatus, logits_of, train
from featcache.unfreezing.courses import Course, Stage
from featcache.unfreezing.parts import Bools, Part
from featcache.unfreezing.rows import Activations
from featcache.unfreezing.spec import SweepSpec

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); the stage names the depth."""


@dataclass(frozen=True, eq=False)
class DepthFit:
    """One depth, trained on one part.

    Attributes:
        head: on the tuned feature. tensors: of the tail, by their names in the network; none at
            depth 0.
        probabilities: (m, K) of the pictures held out, in their order.
        train_accuracy: on the pictures it was trained on.
        seconds: of training and scoring.
        rate: the base rate that was chosen, epochs: whose weights these are; None at depth 0.
        diverged: whether a loss was not finite, so that earlier weights were kept.
        with_crops: (m, K), the same averaged with those of crops; None where none were asked for.
    """

    head: LinearHead
    tensors: dict[str, Tensor]
    probabilities: npt.NDArray[np.float64]
    train_accuracy: float
    seconds: float
    rate: float | None = None
    epochs: int | None = None
    diverged: bool = False
    with_crops: npt.NDArray[np.float64] | None = None


def solve_depth_0(
    data: LabelledRows, part: Part, spec: SweepSpec, crops: CroppedRows | None = None
) -> DepthFit:
    """The solved head of all training pictures of a part; crops of the features are predicted."""
    started = time.perf_counter()
    head, said = _solved(data, part.train, part.judged, spec.probe)
    right = accuracy_on(head, data, part.train)
    fit = DepthFit(head, {}, said, right, time.perf_counter() - started)
    if crops is None:
        return fit
    places = np.flatnonzero(part.judged)
    return replace(fit, with_crops=with_crops(head, data, crops, places, said, spec.averaging))


def starting_head(data: LabelledRows, part: Part, spec: SweepSpec) -> LinearHead:
    """The head that training starts from: it has not seen the pictures that stop it."""
    if spec.solved_start:
        return _solved(data, part.fit, part.stop, spec.probe)[0]
    multi = data.targets.ndim == 2
    width, classes = data.features.shape[1], len(data.classes)
    return untrained_head(classes, width, spec.probe.loss, spec.training.seed, multi_label=multi)


def _solved(
    data: LabelledRows, rows: Bools, scored: Bools, spec: ProbeSpec
) -> tuple[LinearHead, npt.NDArray[np.float64]]:
    """The head of some rows at the C of the least held-out log-loss, and what it says of others."""
    solving = Solving(data, spec, None)
    path = solving.cross_validate(rows, solving.folds(rows, spec.folds), score=scored)
    best = path.whole[path.held_out.best]
    return best.head, best.probabilities


class Tuning:
    """Trainings of the depths of one part and seed, each from the one before.

    Args:
        data: the pictures.
        part: what is trained on and judged.
        spec: how.
        seed: of the training.
        head: where the first one starts.
    """

    def __init__(
        self, data: LabelledRows, part: Part, spec: SweepSpec, seed: int, head: LinearHead
    ) -> None:
        self._data, self._part, self._spec, self._seed = data, part, spec, seed
        self._head = head
        self._tensors: dict[str, Tensor] = {}

    def go_on_from(self, fit: DepthFit) -> None:
        """Start the next depth from this one, if depths build on each other."""
        if self._spec.progressive:
            self._head, self._tensors = fit.head, fit.tensors

    def fit(self, course: Course, progress: Progress | None = None) -> DepthFit:
        """Train a depth.

        Raises:
            TrainingError: the training cannot be carried out; it says why.
        """
        started = time.perf_counter()
        data, part, activations = self._data, self._part, course.given
        model = _joined(course, self._head, self._tensors)
        fit, stop = (activations.examples(data, rows) for rows in (part.fit, part.stop))
        fit = replace(fit, weights=_weights(fit.targets, self._spec.probe))
        rate, found = self._train(model, fit, stop, course, progress)
        tuned = found.model
        right = correct(self._probabilities(tuned, fit), fit.targets)
        judged = np.empty((0, len(data.classes)))
        if part.judged.any():
            judged = self._probabilities(tuned, activations.examples(data, part.judged))
        done = DepthFit(
            head=head_of(tuned),
            tensors=tuned_tensors(tuned),
            probabilities=judged,
            train_accuracy=float(right.mean()),
            seconds=time.perf_counter() - started,
            rate=rate,
            epochs=found.best_epoch,
            diverged=found.status is TrainingStatus.DIVERGED,
        )
        return self._with_crops(done, tuned, activations)

    def _with_crops(self, fit: DepthFit, model: TunedModel, given: Activations) -> DepthFit:
        """The same, and what it says of the crops of the pictures held out, if there are any."""
        data = self._data
        crops = given.cropped(data, self._part.judged)
        if not crops:
            return fit
        said = np.stack([fit.probabilities, *(self._probabilities(model, c) for c in crops)])
        together = averaged(said, self._spec.averaging, multi_label=data.targets.ndim == 2)
        return replace(fit, with_crops=together)

    def _train(
        self,
        model: TunedModel,
        fit: Examples,
        stop: Examples,
        course: Course,
        progress: Progress | None,
    ) -> tuple[float, Trained]:
        """The base rate, and the training at it."""
        spec = self._training()

        def on_smaller(start: TunedModel, at: TrainingSpec) -> TunedModel:
            for stage in course.smaller:
                start = self._on(stage, start, at, progress)
            return _joined(course, head_of(start), _carried(start))

        found = choose_rate(
            model,
            fit,
            spec,
            validation=stop,
            rates=self._spec.rates or (spec.rate,),
            units=course.rung.units,
            progress=progress,
            before=on_smaller if course.smaller else None,
        )
        return found.rate, found.trained

    def _on(
        self, stage: Stage, start: TunedModel, at: TrainingSpec, progress: Progress | None
    ) -> TunedModel:
        """Trained on smaller pictures; none is judged there, and all epochs are run."""
        model = _joined(stage, head_of(start), _carried(start))
        fit, spec = (
            stage.given.examples(self._data, self._part.fit),
            replace(at, epochs=stage.epochs),
        )
        return train(model, fit, spec, units=stage.rung.units, progress=progress).model

    def _training(self) -> TrainingSpec:
        return replace(self._spec.training, seed=self._seed, temper=True)

    def _probabilities(self, model: TunedModel, examples: Examples) -> npt.NDArray[np.float64]:
        spec = self._spec.training
        logits = logits_of(model, examples, batch_size=spec.batch_size, memory=spec.memory)
        return head_of(model).probabilities_of(logits)


def _joined(at: Course | Stage, head: LinearHead, tensors: dict[str, Tensor]) -> TunedModel:
    return model_of(at.rung.trainable, head, tuned=tensors, stem=at.rung.stem)


def _carried(model: TunedModel) -> dict[str, Tensor]:
    """What is the network's at any size: parameters and statistics, not constants of a trace."""
    own = dict(model.tail.named_parameters()).keys() | {
        f"{layer}.{name}"
        for layer, module in layers_with_statistics(model.tail)
        for name, _ in module.named_buffers(recurse=False)
    }
    return {name: tensor for name, tensor in tuned_tensors(model).items() if name in own}


def _weights(targets: npt.NDArray[Any], spec: ProbeSpec) -> npt.NDArray[np.float64] | None:
    """(n,) of training pictures: as the solved head's, every class alike if so asked."""
    if not spec.balanced:
        return None
    if targets.ndim == 2:
        raise ProbeError(
            "balanced classes: a training weighs pictures, which have several labels here; leave "
            "out --class-weight"
        )
    return 1 / np.bincount(targets)[targets]
