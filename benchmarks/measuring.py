"""Time and memory of one piece of work in a process of its own, and what machine it ran on."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

QUIET_LOAD = 0.5
"""Load average over which timings are said to be doubtful."""

WORKERS_START = "fork" if "fork" in get_all_start_methods() else "spawn"
"""How workers of loaders start: as they do where nobody says otherwise on Linux."""

_STATUS = Path("/proc/self/status")
_SAMPLED_EVERY = 0.05  # seconds
_WORKERS_EVERY = 20  # samples: what workers share is slow to count


class Gauge:
    """Seconds and memory of a `with` block; memory in bytes, None where the system has no /proc.

    VmHWM is read and not `ru_maxrss`: the latter is handed from a process to the one it starts.

    Attributes:
        seconds: wall clock.
        before: resident when the block began: libraries, and features that were read.
        peak: the largest that the process was resident (VmHWM), pages of mapped files included.
        anonymous: the largest seen of RssAnon, sampled: without pages of mapped files.
        together: the largest seen of the process and its workers (Pss: what they share counts
            once), sampled each second; None where there were none.
        cpu: seconds of all cores, workers that have ended included.
    """

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0
        self.before = self.peak = self.anonymous = self.together = None

    def __enter__(self) -> Self:
        self.before = _status("VmRSS")
        self.cpu = -_cpu_seconds()
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu += _cpu_seconds()
        self.peak = _status("VmHWM")
        self._done.set()
        self._sampler.join()

    def _sample(self) -> None:
        for number in itertools.count():
            if self._done.wait(_SAMPLED_EVERY):
                return
            now = _status("RssAnon")
            if now is None:
                return
            self.anonymous = max(self.anonymous or 0, now)
            if number % _WORKERS_EVERY == 0 and (workers := _workers()):
                together = sum(map(_proportional, ("self", *workers)))
                self.together = max(self.together or 0, together)

    @property
    def usage(self) -> Usage:
        """What was measured."""
        return Usage(self.seconds, self.before, self.peak, self.anonymous, self.together, self.cpu)


@dataclass(frozen=True)
class Usage:
    """What a `Gauge` measured; see there."""

    seconds: float
    before: int | None
    peak: int | None
    anonymous: int | None
    together: int | None
    cpu: float


def _status(name: str) -> int | None:
    """Bytes of a line of /proc/self/status."""
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _cpu_seconds() -> float:
    """Of this process, and of those it has started and seen end."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _workers() -> list[str]:
    """Numbers of the processes that this one's main thread has started."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return path.read_text().split() if path.exists() else []


def _proportional(process: str) -> int:
    """Bytes a process has, each page divided by those that share it; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def apart(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in a fresh process, which has imported nothing but the file of `work`."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()


def machine(*packages: str) -> dict[str, object]:
    """Where and with what the numbers were made; more packages are named where installed."""
    load = os.getloadavg()
    always = ("featcache", "numpy", "scipy", "scikit-learn", "torch")
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in always} | _installed(packages),
        "threads": apart(_threads),
        "load_average": load,
    }


def _installed(packages: Iterable[str]) -> dict[str, str]:
    found = dict[str, str]()
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _threads() -> dict[str, int]:
    """How many threads each library's products use when nobody says otherwise."""
    import sklearn.linear_model  # noqa: F401 - loads the libraries that it uses
    import torch
    from threadpoolctl import threadpool_info

    pools = {f"{p['user_api']} {p['prefix']}": p["num_threads"] for p in threadpool_info()}
    return {"torch": torch.get_num_threads()} | pools


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def count(text: str) -> int:
    """An argument that is a number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number from 1")
    return int(text)


def print_machine(described: Mapping[str, Any], load: float) -> None:
    """What was measured on, and whether it was quiet."""
    versions = described["versions"]
    print(f"{described['cpu']}, {described['cores']} cores, Python {described['python']}")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print("threads:", ", ".join(f"{k} {v}" for k, v in described["threads"].items()))
    print(f"load average at the start {load:.2f}")
    if load > QUIET_LOAD:
        print(f"WARNING: over {QUIET_LOAD}: something else is running, the times are doubtful")
    print(flush=True)
