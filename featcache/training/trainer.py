"""Training of a tail and its head: epochs, early stop, the best weights kept.

With validation pictures the state before the first step is a candidate like every epoch's end: what
is returned has the lowest validation loss of all, so it is never worse there than the solved head
on the frozen tail. That loss is the log-loss that `evaluation.metrics` reports and by which C is
chosen, from logits that `LinearHead` computes: the number a probe would state.

Nothing global is left changed: torch's generators are set aside while it trains. On a CPU the same
seed and number of threads give the same bits.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from featcache.errors import TrainingError
from featcache.evaluation.metrics import Scores, score
from featcache.training.examples import Examples
from featcache.training.feeding import Batch, Feed
from featcache.training.groups import parameter_groups
from featcache.training.guard import statistics_unmoved, training_mode
from featcache.training.losses import TargetTable, batch_loss
from featcache.training.mixing import Mixer
from featcache.training.model import TunedModel, head_of
from featcache.training.schedules import optimizer_of, schedule_of
from featcache.training.spec import TrainingSpec

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); the stage is "train", the unit a step."""

_DRAW_MIXING = 3

_LOG_TEMPERATURES = (math.log(0.05), math.log(20.0))
"""What a seed is used for, beside order and views (`feeding`)."""


class TrainingStatus(enum.Enum):
    """How a training ended; the text is advice."""

    FINISHED = "all epochs were run"
    STOPPED_EARLY = "stopped early: the validation loss did not fall any more"
    DIVERGED = (
        "diverged: a loss was not finite, and the best weights before that are kept; give a "
        "smaller rate, or a longer warm-up"
    )


@dataclass(frozen=True)
class Epoch:
    """What one pass over the pictures gave.

    Attributes:
        number: from 1; 0 is the state before the first step.
        losses: of its batches, as they were trained on; none for epoch 0.
        validation: log-loss and accuracy on the validation pictures after it, if there are any;
            the log-loss is that at `temperature`.
        rates: of each group at its last step, by name; empty for epoch 0.
        temperature: the best one on the validation pictures, 1 unless the spec says `temper`.
    """

    number: int
    losses: tuple[float, ...]
    validation: Scores | None
    rates: dict[str, float]
    temperature: float = 1.0

    @property
    def train_loss(self) -> float | None:
        """Mean over the batches, which differ by one picture at most; None for epoch 0."""
        return fmean(self.losses) if self.losses else None

    @property
    def validation_loss(self) -> float | None:
        """Log-loss on the validation pictures, in nats."""
        return None if self.validation is None else self.validation.log_loss


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained tail and head, and how they came about.

    Attributes:
        model: with the best weights; in evaluation mode, on the device it was trained on.
        history: epoch 0 and every epoch that was run.
        best_epoch: whose weights these are.
        status: how it ended.
        seconds: of the whole.
    """

    model: TunedModel
    history: tuple[Epoch, ...]
    best_epoch: int
    status: TrainingStatus
    seconds: float

    @property
    def best(self) -> Epoch:
        """The epoch whose weights these are."""
        return self.history[self.best_epoch]

    @property
    def stopped_early(self) -> bool:
        """Whether epochs were left out since the validation loss did not fall."""
        return self.status is TrainingStatus.STOPPED_EARLY


def train(
    model: TunedModel,
    examples: Examples,
    spec: TrainingSpec,
    *,
    validation: Examples | None = None,
    units: Sequence[str] = (),
    progress: Progress | None = None,
) -> Trained:
    """Train the tail and head of a model; the one that is given stays as it is.

    Args:
        model: where it starts.
        examples: what it trains on.
        spec: how.
        validation: pictures, hard targets, by which the epoch is chosen; their plain views. None
            runs all epochs and keeps the last.
        units: names of the tail's units from the top, for rates that fall by unit.
        progress: see `Progress`.

    Raises:
        TrainingError: something that cannot be asked for; a loss that is not finite where no
            validation picture says which weights to go back to; statistics of a frozen BatchNorm
            that moved.
    """
    started = time.perf_counter()
    with _isolated(spec), _explained(spec):
        run = _Run(model.copied(spec.device), examples, spec, validation, units, progress)
        own = run.model
        with statistics_unmoved(own.stem if spec.batchnorm_moves else own):
            run.run()
    return Trained(
        own.eval(), tuple(run.history), run.best, run.status, time.perf_counter() - started
    )


def logits_of(
    model: TunedModel, examples: Examples, *, batch_size: int = 32, memory: int = 2 << 30
) -> npt.NDArray[np.float32]:
    """(n, K) logits of the plain views, in the order given, as the saved classifier gives them.

    The tail runs in evaluation mode and float32; the head is `LinearHead`'s product.
    """
    return _logits(model, Feed(examples, batch_size, memory))


class _Run:
    """One training under way.

    Attributes:
        model: trained in place.
        history: so far.
        best: epoch of the weights to keep.
        status: how it ended.
    """

    def __init__(
        self,
        model: TunedModel,
        examples: Examples,
        spec: TrainingSpec,
        validation: Examples | None,
        units: Sequence[str],
        progress: Progress | None,
    ) -> None:
        self.model, self.history, self.best = model, list[Epoch](), 0
        self.status = TrainingStatus.FINISHED
        self._spec, self._progress = spec, progress
        ours, theirs = _shared(spec.memory, examples, validation)
        self._feed = Feed(examples, spec.batch_size, ours, spec.seed)
        self._judge = None if validation is None else _Judge(validation, spec, theirs)
        self._targets = TargetTable(
            examples.targets,
            examples.weights,
            model.head.out_features,
            model.loss,
            spec.smoothing,
        )
        self._stepper = _Stepper(model, spec, units, self._feed.steps * spec.epochs, examples)
        self._kept = dict[str, Tensor]()

    def run(self) -> None:
        """Epochs until the last, an early stop or a loss that is not finite."""
        scores, temperature = self._scores()
        self._note(Epoch(0, (), scores, {}, temperature))
        for number in range(1, self._spec.epochs + 1):
            if not self._epoch(number):
                self._give_up(number)
                break
            if self._in_vain(number):
                self.status = TrainingStatus.STOPPED_EARLY
                break
        if self._kept:
            self.model.load_state_dict(self._kept, strict=False)
        with torch.no_grad():
            for tensor in (self.model.head.weight, self.model.head.bias):
                tensor.div_(self.history[self.best].temperature)

    def _in_vain(self, number: int) -> bool:
        """Whether to stop before the last epoch: too many went by without a better loss."""
        patience = self._spec.patience
        waited = patience is not None and number - self.best >= patience
        return self._judge is not None and waited and number < self._spec.epochs

    def _epoch(self, number: int) -> bool:
        """Run an epoch and judge it; false if something was not finite."""
        losses = self._losses(number)
        if losses is None or not self._stepper.is_finite():
            return False
        scores, temperature = self._scores()
        if self._judge and scores is None:
            return False
        self._note(Epoch(number, losses, scores, self._stepper.rates, temperature))
        return True

    def _losses(self, number: int) -> tuple[float, ...] | None:
        """Loss of each batch; None if one was not finite."""
        training_mode(self.model.tail, batchnorm_moves=self._spec.batchnorm_moves)
        losses = list[float]()
        with closing(self._feed.epoch(number)) as batches:
            for batch in batches:
                losses.append(self._stepper.step(batch, self._targets))
                if not math.isfinite(losses[-1]):
                    return None
                self._report(number, len(losses))
        return tuple(losses)

    def _give_up(self, number: int) -> None:
        """Note a divergence, where there are weights to go back to.

        Raises:
            TrainingError: there are none, since no validation picture says which were good.
        """
        self.status = TrainingStatus.DIVERGED
        if self._judge is None:
            rates = ", ".join(f"{name} {rate:.2g}" for name, rate in self._stepper.rates.items())
            raise TrainingError(
                f"epoch {number}: a loss, its gradient or a weight is not finite (rates: {rates}); "
                "give a smaller rate, or validation pictures to go back to the best weights by"
            )

    def _scores(self) -> tuple[Scores | None, float]:
        """On the validation pictures, and at which temperature; None as `_Judge.scores`."""
        return (None, 1.0) if self._judge is None else self._judge.scores(self.model)

    def _note(self, epoch: Epoch) -> None:
        """Note an epoch, and keep its weights if they are the best."""
        self.history.append(epoch)
        if self._judge is None:
            self.best = epoch.number
        elif epoch.validation_loss is None:
            raise TrainingError(
                "logits of the validation pictures are not finite before the first step; check the "
                "activations and the head"
            )
        elif not epoch.number or epoch.validation_loss < _loss(self.history[self.best]):
            self.best = epoch.number
            self._kept = {
                name: tensor.detach().clone()
                for name, tensor in self.model.state_dict().items()
                if not name.startswith("stem.")
            }

    def _report(self, epoch: int, done: int) -> None:
        if self._progress:
            steps = self._feed.steps
            self._progress("train", (epoch - 1) * steps + done, self._spec.epochs * steps)


class _Judge:
    """What validation pictures say of a model."""

    def __init__(self, validation: Examples, spec: TrainingSpec, memory: int) -> None:
        self._feed, self._targets = Feed(validation, spec.batch_size, memory), validation.targets
        self._temper = spec.temper

    def scores(self, model: TunedModel) -> tuple[Scores | None, float]:
        """Log-loss and accuracy at a temperature; None if a logit is not finite."""
        logits, head = _logits(model, self._feed), head_of(model)
        if not np.isfinite(logits).all():
            return None, 1.0

        def at(temperature: float) -> Scores:
            return score(head.probabilities_of(logits / temperature), self._targets)

        best = _best_temperature(at) if self._temper else 1.0
        return at(best), best


def _best_temperature(at: Callable[[float], Scores]) -> float:
    """Where the log-loss is least, which is convex in 1/T."""

    def loss(log_temperature: float) -> float:
        return at(math.exp(log_temperature)).log_loss or 0.0

    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded")
    return math.exp(float(found.x)) if found.fun < loss(0.0) else 1.0


class _Stepper:
    """One step after the other: forward, backward, clip, update, next rates."""

    def __init__(
        self,
        model: TunedModel,
        spec: TrainingSpec,
        units: Sequence[str],
        steps: int,
        examples: Examples,
    ) -> None:
        self._model, self._spec = model, spec
        self._device = torch.device(spec.device)
        self._optimizer = optimizer_of(spec, parameter_groups(model, spec, units))
        self._schedule = schedule_of(spec, self._optimizer, steps)
        self._parameters = [p for g in self._optimizer.param_groups for p in g["params"]]
        rng = np.random.default_rng([spec.seed, _DRAW_MIXING])
        self._mixer = Mixer(spec, examples.row_shape, rng)
        self.rates = dict[str, float]()

    def is_finite(self) -> bool:
        """Whether all weights are."""
        return all(bool(torch.isfinite(p).all()) for p in self._parameters)

    def step(self, batch: Batch, targets: TargetTable) -> float:
        """Train on a batch; its loss, which is not finite where the update was left out."""
        x, Y, weights = self._mixer(  # noqa: N806 - as in the mathematics
            _on_device(batch, self._device), *targets.at(batch.pictures, self._device)
        )
        with _autocast(self._device, enabled=self._spec.autocast):
            logits = self._model(x)
        loss = batch_loss(self._model.loss, logits, Y, weights)
        self._optimizer.zero_grad()
        loss.backward()
        limit = self._spec.clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, limit)
        self.rates = {group["name"]: group["lr"] for group in self._optimizer.param_groups}
        if not math.isfinite(float(norm)):
            return math.nan
        self._optimizer.step()
        self._schedule.step()
        return float(loss.detach())


@torch.no_grad()
def _logits(model: TunedModel, feed: Feed) -> npt.NDArray[np.float32]:
    model.eval()
    device = model.head.weight.device
    features = (model.features(_on_device(batch, device)) for batch in feed.in_order())
    head = head_of(model)
    return np.concatenate([head.logits(some.float().cpu().numpy()) for some in features])


def _on_device(batch: Batch, device: torch.device) -> Tensor:
    return torch.from_numpy(batch.activations).to(device, non_blocking=True).float()


def _autocast(device: torch.device, *, enabled: bool) -> torch.autocast:
    able = device.type == "cuda" and enabled and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=able)


def _loss(epoch: Epoch) -> float:
    return math.inf if epoch.validation_loss is None else epoch.validation_loss


def _shared(memory: int, *parts: Examples | None) -> list[int]:
    """The budget, shared by what each part holds."""
    sizes = [0 if part is None else part.views.size * part.row_bytes for part in parts]
    return [max(1, memory * size // sum(sizes)) for size in sizes]


@contextmanager
def _isolated(spec: TrainingSpec) -> Generator[None, None, None]:
    """Torch's generators start at the seed within it, and are what they were afterwards."""
    cuda = torch.device(spec.device).type == "cuda"
    devices: Iterable[torch.device] = [torch.device(spec.device)] if cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(spec.seed)
        if cuda:
            with torch.cuda.device(spec.device):
                torch.cuda.manual_seed(spec.seed)
        yield


@contextmanager
def _explained(spec: TrainingSpec) -> Generator[None, None, None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{spec.device}: a batch of {spec.batch_size} pictures does not fit its memory; give a "
            "smaller batch_size, or a shallower depth"
        ) from error
