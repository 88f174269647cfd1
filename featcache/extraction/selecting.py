"""The engines of a job: made once, chosen by a trial on its pictures, vouched for when resumed."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from functools import partial

import numpy as np
import numpy.typing as npt

from featcache.engines import Engine, available_cores, make_engine
from featcache.engines import Kept as Compiled
from featcache.engines.choosing import Choice, Trial, choose, vouch
from featcache.engines.torch import resolve_device
from featcache.extraction.jobs import DEFAULT_BATCH, Job
from featcache.extraction.kept import Kept, outputs_of, views_of
from featcache.extraction.passes import Contents
from featcache.extraction.pipeline import Unusable, blank_pixels, load
from featcache.extraction.scanning import Places
from featcache.images.loading import pictures_in_order
from featcache.recipe import Stream, sha256_json
from featcache.store.index import Index
from featcache.store.manifest import Plan


def device_of(job: Job) -> str:
    """The full name of the device that a job computes on, so that an engine is made once.

    Raises:
        EngineError: it is not on this machine.
    """
    openvino = job.engine == "openvino" or job.precision == "int8"
    if openvino and job.device == "auto":
        return "cpu"
    return str(resolve_device(job.device))


class Engines:
    """What runs the stems of a job.

    Args:
        job: what is asked.
        kept: its streams.
        index: where its contents lie.

    Attributes:
        first: the first choice, which later ones follow; None before.
        warnings: of all choices.
    """

    def __init__(self, job: Job, kept: Kept, index: Index) -> None:
        self.first: Choice | None = None
        self.warnings: list[str] = []
        self._job, self._kept, self._index = job, kept, index
        self._made: dict[str, Engine] = {}
        self._chosen: dict[str, Choice] = {}

    def of(self, streams: Collection[Stream], name: str, plan: Plan | None = None) -> Engine:
        """What runs the stem of some streams, on the device of a plan, else of the job.

        Raises:
            EngineError: it is not there.
        """
        job, stem = self._job, self._stem(streams)
        device, threads = (plan.device, plan.threads) if plan else (device_of(job), None)
        key = repr((stem, name, device, threads or available_cores()))
        if key not in self._made:
            self._made[key] = make_engine(
                name,
                self._kept.stem(streams),
                job.backbone.preprocessing,
                device=device,
                threads=threads,
                precision=job.precision,
                kept=Compiled(job.compiled, stem) if job.compiled else None,
                calibration=job.calibration,
            )
        return self._made[key]

    def choose(self, streams: Collection[Stream], missing: Contents) -> Choice:
        """What is to compute some contents of some streams; see `engines.choosing.choose`.

        The first choice is a trial's where "auto" was asked for; later ones are of the same name.
        """
        stem = self._stem(streams)
        if stem not in self._chosen:
            name = self.first.engine.name if self.first else self._job.engine
            choice = choose(name, self._trial(streams, missing))
            self.first = self.first or choice
            self.warnings += choice.warnings
            self._chosen[stem] = choice
        return self._chosen[stem]

    def vouch(self, streams: Collection[Stream], plan: Plan, contents: Contents) -> None:
        """Refuse to go on with a plan's engine where it does not agree with torch any more.

        Raises:
            EngineError: it is not there, or it disagrees.
        """
        engine = self.of(streams, plan.engine, plan)
        if plan.engine != "torch" and self._job.precision != "int8":
            vouch(engine, self.of(streams, "torch", plan), self._trial(streams, contents))

    def forget(self) -> None:
        """Let go of what was made, and its memory."""
        self._made.clear()
        self._chosen.clear()

    def _stem(self, streams: Collection[Stream]) -> str:
        """Names what gives the outputs of some streams."""
        return sha256_json([self._job.recipe.key, [list(each) for each in outputs_of(streams)]])

    def _trial(self, streams: Collection[Stream], contents: Contents) -> Trial:
        return Trial(
            make=partial(self.of, streams),
            pixels=lambda most: self._pixels(contents[:most]),
            pictures=len(contents) * len(views_of(streams)),
            batch_size=self._job.batch_size or min(DEFAULT_BATCH, len(contents)),
            precision=self._job.precision,
        )

    def _pixels(self, contents: Contents) -> npt.NDArray[np.uint8]:
        """(at most B, H, W, 3) of those contents that have pixels."""
        job = self._job
        loaded = pictures_in_order(
            partial(load, job.source, job.recipe),
            Places(self._index).slots(contents),
            threads=job.threads or available_cores(),
            ahead=len(contents),
        )
        with closing(loaded):
            usable = [pixels for pixels in loaded if not isinstance(pixels, Unusable)]
        return np.stack(usable) if usable else blank_pixels(job.backbone.preprocessing)[None][:0]
