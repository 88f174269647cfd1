"""The sides of `extract.py`: featcache, the loop people write, and featcache's halves alone.

Every function here is called in a process of its own. Libraries are imported before the clock
starts; networks are loaded, and workers started, after it has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from extract_networks import BATCH, NETWORKS, Network, load, transform, write_weights
from measuring import WORKERS_START, Gauge, Usage, cores

WORKERS = 2
"""Processes that decode beside the loop that people write, where nobody says otherwise."""

_WARMED_BY = 2
"""Batches before a forward pass is timed."""


@dataclass(frozen=True)
class Job:
    """One network on one folder of pictures.

    Attributes:
        key: of `NETWORKS`.
        pictures: folder of class folders, of `count` pictures.
        folder: of weights, caches and features.
        device: of the forward pass, on every side.
    """

    key: str
    pictures: Path
    count: int
    folder: Path
    device: str = "cpu"

    @property
    def network(self) -> Network:
        """What runs."""
        return NETWORKS[self.key]

    @property
    def on_gpu(self) -> bool:
        """Whether anything else than processor cores computes."""
        return self.device != "cpu"

    @property
    def weights(self) -> Path:
        """A state dict under the network's own names."""
        return self.folder / f"{self.key}.safetensors"


@dataclass(frozen=True, eq=False)
class Run:
    """What one side did.

    Attributes:
        count: pictures.
        usage: of the process.
        by: what ran it, in words.
        features: file of `paths` (relative to the pictures) and `features` (count, D); None where
            they aren't comparable.
        passes: seconds of decoding and forward passes; outside: of what else, by name; engine: what
            was taken; why: that. Where featcache says so.
    """

    count: int
    usage: Usage
    by: str = ""
    features: Path | None = None
    passes: float | None = None
    engine: str = ""
    why: str = ""
    outside: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def seconds(self) -> float:
        """Wall clock of all pictures."""
        return self.usage.seconds

    @property
    def each(self) -> float:
        """Seconds a picture."""
        return self.seconds / self.count


def prepare(job: Job) -> None:
    """Write the weights, and read every picture once: no side is to wait for the disk."""
    write_weights(job.network, job.pictures, job.weights)
    for path in job.pictures.rglob("*.jpg"):
        path.read_bytes()


def ours(job: Job, engine: str, *, compiled: bool = False) -> Run:
    """`featcache.extract` into a fresh cache; engines compile anew, unless it is said they did."""
    import timm  # noqa: F401 - imported before the clock starts
    import torchvision  # noqa: F401

    import featcache.api
    from featcache.engines import has_openvino
    from featcache.store.cache import Cache

    if has_openvino():
        import featcache.engines.openvino
    extract = featcache.api.extract  # it is imported when it is asked for

    request = featcache.api.ExtractRequest(
        data=job.pictures,
        backbone=job.network.backbone,
        weights=job.weights if job.network.random else None,
        out=_emptied(job.folder / f"cache-{engine}"),
        engine=engine,
        device=job.device if job.on_gpu else "auto",
    )
    home = job.folder / "home"  # where engines keep what they compiled
    os.environ["XDG_CACHE_HOME"] = str(home if compiled else _emptied(home))
    _wake(job)
    with Gauge() as gauge:
        result = extract(request)
    cache = Cache(Path(result.cache))
    stream, index = cache.stream(), cache.index
    kept = keep(job, engine, list(index.paths), stream.read(stream.positions(index.hashes)))
    ran = result.engine
    where = ran["device"] if job.on_gpu else f"{ran['threads']} threads"
    by = f"{ran['name']}, {where}"
    rate = result.images_per_second
    passes = result.computed / rate if rate else None
    why = "; ".join((ran["why"], *result.warnings))
    outside = result.profile.outside if result.profile else {}
    return Run(result.computed, gauge.usage, by, kept, passes, str(ran["name"]), why, outside)


def usual(job: Job, workers: int = WORKERS) -> Run:
    """The loop people write: ImageFolder, a DataLoader with workers, features in a list."""
    import timm  # noqa: F401 - imported before the clock starts
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    _wake(job)
    with Gauge() as gauge:
        model = load(job.network, job.weights).to(job.device)
        dataset = ImageFolder(job.pictures, transform(job.network, model))
        loader = DataLoader(
            dataset,
            batch_size=BATCH,
            num_workers=workers,
            pin_memory=job.on_gpu,
            multiprocessing_context=WORKERS_START,
        )
        kept = list[torch.Tensor]()
        with torch.inference_mode():
            for pixels, _ in loader:
                kept.append(model(pixels.to(job.device, non_blocking=True)).cpu())
        features = torch.cat(kept).numpy()
    paths = [Path(path).relative_to(job.pictures).as_posix() for path, _ in dataset.samples]
    by = job.device if job.on_gpu else f"{torch.get_num_threads()} threads"
    by = f"{by}, {workers} workers"
    return Run(len(paths), gauge.usage, by, keep(job, "usual", paths, features))


def decoding(job: Job) -> Run:
    """Pixels alone: featcache's threads or processes, one a core, and no network."""
    pixels = _pixels(job, job.count)
    with Gauge() as gauge:
        count = sum(1 for _ in pixels)
    return Run(count, gauge.usage, f"{cores()} threads or processes")


def forward(job: Job, engine: str, count: int) -> Run:
    """The network alone on pixels in memory, in full batches, all cores."""
    from featcache.engines import make_engine

    backbone = _backbone(job)
    whole = max(count // BATCH, 1) * BATCH
    pixels = np.concatenate(list(_pixels(job, min(whole, job.count))))
    batches = np.resize(pixels, (whole, *pixels.shape[1:])).reshape(-1, BATCH, *pixels.shape[1:])
    device = job.device if job.on_gpu else "auto"
    with make_engine(engine, backbone.stem, backbone.preprocessing, device=device) as running:
        for _ in running.run_each(batches[:_WARMED_BY]):
            pass
        with Gauge() as gauge:
            for _ in running.run_each(batches):
                pass
    where = running.device if job.on_gpu else f"{running.threads} threads"
    return Run(whole, gauge.usage, f"{running.name}, {where}")


def started(job: Job, *, fresh: bool) -> float:
    """Seconds of `featcache extract` from the command's start to its end.

    Args:
        job: its pictures are extracted.
        fresh: into a cache that was not there, else into the one that is.
    """
    out = job.folder / "cache-started"
    if fresh:
        _emptied(out)
    command = "from featcache_cli.app import main; main()"
    asked = [str(job.pictures), "--backbone", job.network.backbone, "--out", str(out)]
    return _seconds_of("-c", command, "extract", *asked)


def imported() -> float:
    """Seconds a process takes that imports what every extraction needs, and nothing else."""
    return _seconds_of("-c", "import torch, torchvision, timm")


def keep(job: Job, side: str, paths: list[str], features: np.ndarray) -> Path:
    """The file of a side's features."""
    path = job.folder / f"features-{side}.npz"
    np.savez(path, paths=np.array(paths), features=features)
    return path


def off_by(run: Run, reference: Run) -> float:
    """Largest ||a - b|| / ||b|| of a picture both have, a and b being its features."""
    if run.features is None or reference.features is None:
        return float("nan")
    with np.load(run.features) as ours_, np.load(reference.features) as theirs:
        mine, others = ours_["paths"], theirs["paths"]
        _, left, right = np.intersect1d(mine, others, return_indices=True)
        a, b = ours_["features"][left], theirs["features"][right].astype(np.float64)
    if len(left) != len(mine):
        raise ValueError(f"{run.features}: {len(mine) - len(left)} pictures the reference lacks")
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())


def _pixels(job: Job, count: int) -> Any:
    """(1, H, W, 3) pixels of the first pictures in turn, as an extraction has them decoded."""
    from featcache.extraction.pipeline import Decoders, Slot
    from featcache.images.clock import Clock
    from featcache.images.loading import Kind
    from featcache.images.sources import content_hash, open_source
    from featcache.recipe import View

    kind = Kind.of(_backbone(job).recipe(), [View()])
    source = open_source(job.pictures)
    paths = [sample.path for sample in source.scan().samples[:count]]
    slots = [Slot(content_hash(source.read(path)), path) for path in paths]

    def stream() -> Any:
        with Decoders(source, cores()) as decoders:
            decoders.expect(len(slots))
            yield from decoders.stream(kind, slots, ahead=2 * BATCH, clock=Clock())

    return stream()


def _backbone(job: Job) -> Any:
    from featcache.backbones.registry import load_backbone

    weights = job.weights if job.network.random else None
    return load_backbone(job.network.backbone, weights=weights)


def _wake(job: Job) -> None:
    """Start a GPU's driver: seconds that no side can save."""
    if job.on_gpu:
        import torch

        torch.zeros(1, device=job.device)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _seconds_of(*arguments: str) -> float:
    """Of Python, from its start to its end."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", *arguments], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{arguments}: exit code {done.returncode}; it said:\n{done.stderr}")
    return seconds
