"""The sides of `unfreeze.py`: the same steps from cached activations, from pixels, and by fastai.

Every function here is called in a process of its own. The usual loop knows nothing of featcache but
the network, the batches (lists of pictures) and where the head starts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from measuring import WORKERS_START, Gauge, Usage

Dtype = Literal["float32", "float16"]

WARMUP, CLIP, DECAY, START = 0.1, 1.0, 0.01, 0
"""Share of the steps, norm of the gradients, weight decay, seed of the head."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        network: name of the backbone.
        weights: as `load_backbone` takes them; see `source`.
        depth: how many units train.
        size: side in pixels.
        folder: of `targets.npy`, `pixels.npy`, `activations-*.npy` and `pictures/`.
        classes: how many.
        rows: pictures to train on, from the first; those after it are tested on.
        batch_size, epochs, rate, seed: of the training.
    """

    network: str
    weights: str | None
    depth: int
    size: int
    folder: Path
    classes: int
    rows: int
    batch_size: int
    epochs: int
    rate: float
    seed: int = 0

    @property
    def source(self) -> str | None:
        """Of the weights: a file in the folder if there is one, else `weights`."""
        path = self.folder / "weights.safetensors"
        return str(path) if path.exists() else self.weights

    @property
    def targets(self) -> np.ndarray:
        """(n,) int64."""
        return np.load(self.folder / "targets.npy")

    def mapped(self, name: str) -> np.ndarray:
        """A memory map of (n, ...) rows."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    @property
    def paths(self) -> list[Path]:
        """Of the JPEG files, in the order of the rows."""
        return sorted((self.folder / "pictures").rglob("*.jpg"), key=lambda path: path.name)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What it took to cache activations once.

    Attributes:
        units: names of those that train, from the top.
        shape: of one activation.
        decoding, forward: seconds for all pictures, one after the other.
        trained, total: parameters.
    """

    units: tuple[str, ...]
    shape: tuple[int, ...]
    decoding: float
    forward: float
    trained: int
    total: int


@dataclass(frozen=True, eq=False)
class Run:
    """What one side did.

    Attributes:
        losses: of each step.
        seconds: of each step but the first.
        usage: of the process, the first step included.
        right: (m,) bool of the tested pictures.
    """

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    usage: Usage
    right: np.ndarray

    @property
    def step(self) -> float:
        """Mean seconds a step."""
        return float(np.mean(self.seconds))


class _Clock:
    """Seconds between calls."""

    def __init__(self) -> None:
        self.ticks = list[float]()

    def __call__(self, *_: object) -> None:
        self.ticks.append(time.perf_counter())

    @property
    def seconds(self) -> tuple[float, ...]:
        return tuple(np.diff(self.ticks).tolist())


def prepare(job: Job) -> Prepared:
    """Decode JPEG files where there are some, run the stem once, keep its activations."""
    import torch

    decoding = 0.0
    if not (job.folder / "pixels.npy").exists():
        pictures = _Pictures(job.paths, job.size, _backbone(job).preprocessing)
        started = time.perf_counter()
        pixels = [picture.numpy() for picture in pictures]
        decoding = time.perf_counter() - started
        np.save(job.folder / "pixels.npy", np.stack(pixels))
    if job.weights == "random":
        _calibrate(job)
    backbone, split, units = _cut(job)
    pixels, started = job.mapped("pixels"), time.perf_counter()
    with torch.inference_mode():
        activations = np.concatenate(
            [
                split.stem(torch.from_numpy(pixels[i : i + job.batch_size].copy())).numpy()
                for i in range(0, len(pixels), job.batch_size)
            ]
        )
    forward = time.perf_counter() - started
    for dtype in ("float32", "float16"):
        np.save(job.folder / f"activations-{dtype}.npy", activations.astype(dtype))
    trained = sum(p.numel() for p in split.tail.parameters()) + job.classes * (backbone.width + 1)
    return Prepared(tuple(units), split.shape, decoding, forward, trained, backbone.parameters)


def cached(job: Job, dtype: Dtype) -> Run:
    """featcache: tail and head from cached activations."""
    from featcache.training.examples import Examples
    from featcache.training.model import model_of
    from featcache.training.spec import TrainingSpec
    from featcache.training.trainer import logits_of, train

    _, split, _ = _cut(job)
    activations, targets, clock = job.mapped(f"activations-{dtype}"), job.targets, _Clock()

    def examples(rows: np.ndarray) -> Examples:
        return Examples(activations, rows, targets[rows])

    spec = TrainingSpec(
        rate=job.rate,
        unit_decay=1.0,
        epochs=job.epochs,
        warmup=WARMUP,
        weight_decay=DECAY,
        clip=CLIP,
        batch_size=job.batch_size,
        seed=job.seed,
    )
    model = model_of(split.tail, _start(job))
    with Gauge() as gauge:
        trained = train(model, examples(np.arange(job.rows)), spec, progress=clock)
    tested, right = np.arange(job.rows, len(targets)), np.empty(0, bool)
    if len(tested):
        right = logits_of(trained.model, examples(tested)).argmax(axis=1) == targets[tested]
    losses = tuple(loss for epoch in trained.history for loss in epoch.losses)
    return Run(losses, clock.seconds, gauge.usage, right)


def usual(job: Job, *, decoding: bool) -> Run:
    """The loop people write: the whole network at every step, its lower part without gradient."""
    import torch
    from torch.nn import functional as F  # noqa: N812 (its name everywhere)

    backbone, network, head, trained = _whole(job)
    batches, clock, losses = _batches(job), _Clock(), list[float]()
    matrices = [p for p in trained if p.ndim >= 2]
    rest = [p for p in trained if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}],
        lr=job.rate,
        fused=True,
    )
    rising, steps = round(WARMUP * len(batches)), len(batches)

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    targets = torch.from_numpy(job.targets)
    pixels = _decoded(job, backbone, batches) if decoding else _in_memory(job, batches)
    torch.manual_seed(job.seed)
    with Gauge() as gauge:
        for some, x in zip(batches, pixels, strict=True):
            loss = F.cross_entropy(head(network(x)), targets[some])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, CLIP)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            clock()
    return Run(tuple(losses), clock.seconds, gauge.usage, _tested(job, network.eval(), head))


def fastai(job: Job) -> Run:
    """`freeze_to` and `fit` on the folder of pictures, seconds an epoch spread over its steps."""
    import multiprocessing
    import warnings

    multiprocessing.set_start_method(WORKERS_START, force=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai's imports warn
        from fastai.callback.core import Callback
        from fastai.data.transforms import Normalize
        from fastai.learner import Learner
        from fastai.losses import CrossEntropyLossFlat
        from fastai.vision.augment import Resize
        from fastai.vision.data import ImageDataLoaders
    from torch import nn

    backbone, network, head, trained = _whole(job)
    ours = {id(parameter) for parameter in trained}
    p = backbone.preprocessing
    loaders = ImageDataLoaders.from_folder(
        job.folder / "pictures",
        valid_pct=1 / job.batch_size,
        seed=job.seed,
        item_tfms=Resize(job.size),
        batch_tfms=Normalize.from_stats(p.mean, p.std, cuda=False),
        bs=job.batch_size,
        num_workers=_cores(),
        device="cpu",
    )
    clock, losses = _Clock(), list[float]()

    class Note(Callback):
        def after_batch(self) -> None:
            if self.training:
                losses.append(float(self.loss.detach()))
                clock()

    def groups(model: nn.Module) -> list[list[Any]]:
        frozen = [q for q in model.parameters() if id(q) not in ours]
        return [frozen, [q for q in model.parameters() if id(q) in ours]]

    learner = Learner(
        loaders,
        nn.Sequential(network, head),
        loss_func=CrossEntropyLossFlat(),
        splitter=groups,
        train_bn=False,
        cbs=[Note()],
    )
    learner.freeze_to(-1)
    with Gauge() as gauge, learner.no_logging():
        learner.fit(job.epochs, job.rate)
    return Run(tuple(losses), clock.seconds, gauge.usage, np.empty(0, bool))


class _Pictures:
    """A data set as people write it: Pillow and torchvision's transforms."""

    def __init__(self, paths: list[Path], size: int, preprocessing: Any) -> None:
        from torchvision import transforms

        self._paths = paths
        self._transform = transforms.Compose(
            [
                transforms.Resize(round(size / 0.875)),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize(preprocessing.mean, preprocessing.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Any:
        from PIL import Image

        if number >= len(self._paths):
            raise IndexError(number)
        with Image.open(self._paths[number]) as picture:
            return self._transform(picture.convert("RGB"))


def _decoded(job: Job, backbone: Any, batches: list[np.ndarray]) -> Iterable[Any]:
    import torch
    from torch.utils.data import DataLoader

    pictures: Any = _Pictures(job.paths, job.size, backbone.preprocessing)
    return DataLoader(
        pictures,
        batch_sampler=batches,
        num_workers=_cores(),
        multiprocessing_context=WORKERS_START,
        generator=torch.Generator(),  # else it would draw from the one that dropout draws from
    )


def _in_memory(job: Job, batches: list[np.ndarray]) -> Iterator[Any]:
    import torch

    pixels = np.load(job.folder / "pixels.npy")
    return (torch.from_numpy(pixels[some]) for some in batches)


def _batches(job: Job) -> list[np.ndarray]:
    """Pictures of each step, as featcache deals them."""
    from featcache.training.examples import Examples
    from featcache.training.feeding import Feed

    numbers = np.zeros((job.rows, 1), np.float32)
    dealt = Examples(numbers, np.arange(job.rows), np.zeros(job.rows, np.int64))
    feed = Feed(dealt, job.batch_size, 1 << 30, job.seed)
    return [b.pictures for number in range(1, job.epochs + 1) for b in feed.epoch(number)]


def _calibrate(job: Job) -> None:
    """Keep random weights with BatchNorm statistics of the pictures.

    Without, activations of a deep random network vanish, and losses would not depend on them.
    """
    import torch
    from safetensors.torch import save_file
    from torch import nn

    backbone = _backbone(job)
    norms = [m for m in backbone.stem.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, not a moving one
        norm.train()
    with torch.no_grad():
        backbone.stem(torch.from_numpy(job.mapped("pixels")[: job.batch_size].copy()))
    own = backbone.stem.network.state_dict()
    save_file(backbone.state() | own, job.folder / "weights.safetensors")


def _backbone(job: Job) -> Any:
    from featcache.backbones.registry import load_backbone

    return load_backbone(job.network, weights=job.source, image_size=job.size)


def _cut(job: Job) -> tuple[Any, Any, list[str]]:
    """The backbone, split below its topmost units, and their names."""
    from featcache.backbones.tracing import trace
    from featcache.backbones.units import list_units, split_at

    backbone = _backbone(job)
    traced = trace(backbone.stem, backbone.preprocessing.size)
    units = list_units(traced)
    split = split_at(traced, units[job.depth].name)
    return backbone, split, [unit.name for unit in units[: job.depth]]


def _whole(job: Job) -> tuple[Any, Any, Any, list[Any]]:
    """Backbone, network up to the feature, a linear layer, and the parameters that train."""
    import torch
    from torch import nn

    backbone, split, _ = _cut(job)
    start = _start(job)
    head = nn.Linear(backbone.width, job.classes)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(start.coef))
        head.bias.copy_(torch.from_numpy(start.bias))
    trained = [*split.tail.parameters(), *head.parameters()]
    for parameter in trained:
        parameter.requires_grad_()
    for module in split.tail.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    return backbone, backbone.stem, head, trained


def _start(job: Job) -> Any:
    """The head all sides start from: one on disk, else an untrained one."""
    from featcache.heads.linear import LinearHead
    from featcache.training.model import untrained_head

    path = job.folder / "head.npz"
    if path.exists():
        with np.load(path) as held:
            return LinearHead("softmax", held["coef"], held["bias"])
    return untrained_head(job.classes, _backbone(job).width, "softmax", START)


def _tested(job: Job, network: Any, head: Any) -> np.ndarray:
    import torch

    tested = np.arange(job.rows, len(job.targets))
    pixels = job.mapped("pixels")
    found = [np.empty(0, np.int64)]
    with torch.no_grad():
        for start in range(job.rows, len(job.targets), job.batch_size):
            x = torch.from_numpy(pixels[start : start + job.batch_size].copy())
            found.append(head(network(x)).argmax(dim=1).numpy())
    return np.concatenate(found) == job.targets[tested]


def solve_head(job: Job) -> None:
    """Keep the solved head of the training rows' features, for both loops to start from."""
    import torch

    from featcache.heads.solver import PathProblem, solve_path

    _, split, _ = _cut(job)
    activations = job.mapped("activations-float32")[: job.rows]
    with torch.no_grad():
        features = np.concatenate(
            [
                split.tail(torch.from_numpy(activations[i : i + job.batch_size].copy())).numpy()
                for i in range(0, job.rows, job.batch_size)
            ]
        )
    grid = np.array([SOLVED_AT])
    folds = np.ones((1, job.rows), bool)
    problem = PathProblem(features, job.targets[: job.rows], job.classes, folds, grid)
    (fit,) = solve_path(problem)
    np.savez(job.folder / "head.npz", coef=fit.head.coef, bias=fit.head.bias)


SOLVED_AT = 0.1
"""C of the solved head."""


def _cores() -> int:
    from featcache.engines import available_cores

    return available_cores()
