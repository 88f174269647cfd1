"""Everything that is asked of a training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from featcache.errors import TrainingError

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "one-cycle"]


@dataclass(frozen=True)
class TrainingSpec:
    """How a tail and its head are trained.

    Attributes:
        optimizer: "adamw", or "sgd" with a momentum of 0.9.
        rate: the base rate, which a schedule reaches; 0 changes nothing. usual ones of SGD
            are far larger, 0.01 say.
        head_factor: rate of the head over the base: 1 where it starts solved, 10 where untrained.
        unit_decay: rate of a unit over that of the unit above it; the topmost has it once.
        epochs: over all pictures, at most.
        warmup: share of all steps in which the rates rise.
        schedule: "cosine" falls to 0 after a linear warm-up; "one-cycle" is torch's OneCycleLR
            (Smith and Topin, arXiv 1708.07120), which cycles the momentum too.
        weight_decay: of matrices and kernels, never of biases and norms.
        mixup: alpha of mixup on activations (arXiv 1710.09412); cutmix: alpha of CutMix on maps
            (arXiv 1905.04899); with both, each batch has one of them. 0 is none.
        noise: standard deviation of what is added to activations, over their own.
        smoothing: share of every target that is given to all classes with a row alike.
        batch_size: pictures a step, at most; batches of an epoch differ by one picture at most.
        patience: epochs without a better validation loss, after which it stops; None never. The
            best weights are kept either way, and since rates fall to 0 the late epochs are often
            the best ones.
        temper: judge an epoch by its validation loss at the best temperature, and divide the head's
            logits by that one in the end. Training makes heads surer than they are right, which
            the plain loss of few pictures punishes before it sees that more of them are right.
        clip: norm that all gradients together are cut to; None leaves them.
        seed: of order, views, mixing, noise and dropout.
        device: "cpu", "cuda", "cuda:1" or "mps".
        autocast: on CUDA the tail runs in bfloat16 while it trains; never when it is judged.
        batchnorm_moves: BatchNorm of the tail normalises by the batch and moves its statistics.
        memory: bytes of activations held at once, about.

    Raises:
        TrainingError: a value that cannot be asked for.
    """

    optimizer: Optimizer = "adamw"
    rate: float = 3e-4
    head_factor: float = 1.0
    unit_decay: float = 0.7
    epochs: int = 20
    warmup: float = 0.1
    schedule: Schedule = "cosine"
    weight_decay: float = 0.01
    mixup: float = 0.0
    cutmix: float = 0.0
    noise: float = 0.0
    smoothing: float = 0.0
    batch_size: int = 32
    patience: int | None = None
    temper: bool = False
    clip: float | None = 1.0
    seed: int = 0
    device: str = "cpu"
    autocast: bool = True
    batchnorm_moves: bool = False
    memory: int = 2 << 30

    def __post_init__(self) -> None:
        for wrong, message in self._problems():
            if wrong:
                raise TrainingError(message)

    def _problems(self) -> Iterator[tuple[bool, str]]:
        for name, given, known in (
            ("optimizer", self.optimizer, get_args(Optimizer)),
            ("schedule", self.schedule, get_args(Schedule)),
        ):
            yield given not in known, f"{name} {given!r}: unknown; give {' or '.join(known)}"
        for name in ("rate", "head_factor", "weight_decay", "mixup", "cutmix", "noise"):
            value = getattr(self, name)
            yield not 0 <= value < float("inf"), f"{name} {value}: give 0 or a positive number"
        for name in ("epochs", "batch_size", "memory"):
            yield getattr(self, name) < 1, f"{name} {getattr(self, name)}: give at least 1"
        yield not 0 < self.unit_decay <= 1, f"unit_decay {self.unit_decay}: give above 0 to 1"
        for name in ("warmup", "smoothing"):
            value = getattr(self, name)
            yield not 0 <= value < 1, f"{name} {value}: give 0 to below 1"
        stops = self.patience is None or self.patience >= 1
        yield not stops, f"patience {self.patience}: give at least 1, or None"
        yield self.clip is not None and not self.clip > 0, f"clip {self.clip}: give a positive norm"
        yield not 0 <= self.seed < 2**32, f"seed {self.seed}: give one from 0 to 4294967295"
