"""Which engine a job is worth, by a short measured trial on its own pictures."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.engines import Engine, Outputs, has_openvino
from featcache.engines.parity import refuse_different, refuse_disparity
from featcache.errors import EngineError
from featcache.recipe import Precision

FEWEST = 64
"""Pictures below which a trial takes longer than it can save."""

_COMPILED = "torch-compile"

_WORTH = {"openvino": 4.0, _COMPILED: 600.0}
"""Seconds that torch must have to go, for another engine to be made ready and tried."""

_APART = 3.0
"""Engines whose first runs are this far apart are not run again to tell which is quicker; a first
run can take over twice as long as those that follow."""

_RUNS, _LONG_ENOUGH = 2, 0.3
"""How often engines that are nearer run again; one that takes so many seconds does so once."""


@dataclass(frozen=True)
class Choice:
    """An engine, why it was taken, and what was refused."""

    engine: Engine
    why: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """What engines are tried on, and for.

    Attributes:
        make: makes an engine by its name.
        pixels: gives (at most so many, H, W, 3) uint8 of the job's own pictures.
        pictures: how many forward passes of one picture are to be done.
        batch_size: pictures a forward pass.
        precision: of the arithmetic.
    """

    make: Callable[[str], Engine]
    pixels: Callable[[int], npt.NDArray[np.uint8]]
    pictures: int
    batch_size: int = 32
    precision: Precision = "fp32"


def choose(name: str, trial: Trial) -> Choice:
    """The engine of a name; for "auto" the one that is quickest in a trial.

    An engine other than plain torch must agree with it on real pictures; one that does not is
    refused with a warning, and torch is taken. torch has no int8 to compare with: what that
    changes is compared with fp32 afterwards (`extraction/lowering`).

    Raises:
        EngineError: what was asked for is not there, or cannot run the network.
    """
    if trial.precision == "int8":
        return Choice(trial.make("openvino" if name == "auto" else name), "what has int8")
    reference = trial.make("torch")
    if name == "auto":
        return _quickest(reference, trial)
    if name == reference.name:
        return Choice(reference, "asked for")
    engine = trial.make(name)
    try:
        vouch(engine, reference, trial)
    except EngineError as error:
        return Choice(reference, f"{name} was refused", (f"{error}; torch is used",))
    return Choice(engine, "asked for")


def vouch(engine: Engine, reference: Engine, trial: Trial) -> None:
    """Refuse an engine that does not agree with the reference; see `refuse_disparity`."""
    pixels = _pixels(trial, engine)
    if len(pixels):
        refuse_disparity(engine, reference, pixels, trial.precision)


def _quickest(reference: Engine, trial: Trial) -> Choice:
    candidates = _candidates(reference)
    if not candidates:
        return Choice(reference, f"what runs on {reference.device} here")
    if trial.pictures < FEWEST:
        return Choice(reference, f"a trial of engines needs {FEWEST} pictures")
    pixels = _pixels(trial, reference, *candidates)
    if not len(pixels):
        return Choice(reference, "no picture for a trial of engines")
    expected, rate = _tried(reference, pixels)
    engines, rates, warnings = [reference], {reference.name: rate}, list[str]()
    for name in candidates:
        if trial.pictures / max(rates.values()) < _WORTH[name]:
            continue
        try:
            engine = trial.make(name)
            found, rate = _tried(engine, pixels)
            refuse_different(name, found, expected, trial.precision)
        except EngineError as error:
            warnings.append(f"{error}; it is not used")
            continue
        engines.append(engine)
        rates[name] = rate
    if len(engines) > 1 and max(rates.values()) < _APART * min(rates.values()):
        rates = {each.name: _tried_again(each, pixels, rates[each.name]) for each in engines}
    best = max(engines, key=lambda each: rates[each.name])
    why = _told(best, rates, len(pixels), trial.pictures, refused=bool(warnings))
    return Choice(best, why, tuple(warnings))


def _candidates(reference: Engine) -> list[str]:
    """Engines that may be quicker than torch on its device, the ones that start sooner first."""
    if reference.device != "cpu":
        return []
    if has_openvino():
        return ["openvino"]
    return [_COMPILED] if _can_compile() else []


def _can_compile() -> bool:
    """Whether torch finds what it compiles with for a CPU."""
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))


def _pixels(trial: Trial, engine: Engine, *candidates: str) -> npt.NDArray[np.uint8]:
    """Pictures of a trial: so many that all cores have work.

    What is compiled is compiled for one size of batch, so that is what it is tried on.
    """
    if _COMPILED not in (engine.name, *candidates):
        return trial.pixels(max(8, 4 * engine.threads))
    pixels = trial.pixels(trial.batch_size)
    return pixels[np.arange(trial.batch_size) % len(pixels)] if len(pixels) else pixels


def _tried(engine: Engine, pixels: npt.NDArray[Any]) -> tuple[Outputs, float]:
    """What an engine gives, and pictures a second."""
    with engine:
        found, seconds = _timed(engine, pixels)
        if engine.name == _COMPILED:  # that compiled it
            seconds = _timed(engine, pixels)[1]
    return found, len(pixels) / seconds


def _tried_again(engine: Engine, pixels: npt.NDArray[Any], rate: float) -> float:
    """Pictures a second in the best of the first run and of those that follow now."""
    seconds = len(pixels) / rate
    with engine:
        for _ in range(1 if seconds > _LONG_ENOUGH else _RUNS):
            seconds = min(seconds, _timed(engine, pixels)[1])
    return len(pixels) / seconds


def _timed(engine: Engine, pixels: npt.NDArray[Any]) -> tuple[Outputs, float]:
    """What a run gives, and the seconds it takes."""
    started = time.perf_counter()
    found = engine.run_all(pixels)
    return found, time.perf_counter() - started


def _told(best: Engine, rates: dict[str, float], rows: int, pictures: int, *, refused: bool) -> str:
    measured = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    if len(rates) == 1 and refused:
        return "the others were refused"
    if len(rates) == 1:
        seconds = pictures / rates[best.name]
        return f"about {seconds:.0f} s to go, too few for a trial of other engines"
    return f"pictures/s in a trial of {rows} pictures: {measured}"
