"""Processes that decode change no pixel, are missed by nothing when killed, and outlive nobody."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from featcache import api
from featcache.extraction import pipeline
from featcache.extraction.pipeline import Decoders, Slot, Unusable, processes_for
from featcache.images import workers as module
from featcache.images.clock import Clock
from featcache.images.loading import Kind
from featcache.images.sources import Source, content_hash, open_source
from featcache.recipe import Preprocessing, Recipe, View

PREPROCESSING = Preprocessing((48, 48), (56,), (0.5,) * 3, (0.5,) * 3)
RECIPE = Recipe("0" * 64, "x", PREPROCESSING)
VIEWS = (View(), View("flip", 0, 1))
COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 crops of a photo, one of 17 megapixels, and a file that is no picture."""
    root, rng = tmp_path_factory.mktemp("pictures") / "cats", np.random.default_rng(0)
    cat = data.chelsea()
    (root / "cat").mkdir(parents=True)
    for number in range(COUNT):
        y, x = rng.integers(100, size=2)
        Image.fromarray(cat[y : y + 150, x : x + 180]).save(root / "cat" / f"{number:02}.jpg")
    Image.fromarray(cat).resize((4200, 4100)).save(root / "cat" / "large.jpg", quality=50)
    (root / "cat" / "none.png").write_bytes(b"no picture, but more than a few bytes")
    return root


def slots_of(source: Source) -> list[Slot]:
    paths = [sample.path for sample in source.scan().samples]
    return [Slot(content_hash(source.read(path)), path) for path in paths]


@contextmanager
def streaming(
    source: Source, slots: list[Slot], processes: int = 0, clock: Clock | None = None
) -> Generator[Iterator[Any], None, None]:
    """Pixels of slots, by two threads or by processes."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Decoders(source, threads=processes or 2) as decoders,
    ):
        patch.setattr(pipeline, "MANY_CORES", 1 if processes else 99)
        decoders.expect(len(slots))
        stream = decoders.stream(Kind.of(RECIPE, VIEWS), slots, ahead=8, clock=clock or Clock())
        with closing(stream):
            yield stream


def pixels(
    source: Source, slots: list[Slot], processes: int = 0, clock: Clock | None = None
) -> list[Any]:
    with streaming(source, slots, processes, clock) as stream:
        return list(stream)


def same(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(
        a == b if isinstance(a, Unusable) else np.array_equal(a, b)
        for a, b in zip(some, others, strict=True)
    )


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that are started, each before it is asked for anything."""
    processes: list[Any] = []

    class Noted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            processes.append(self)

    monkeypatch.setattr(module.subprocess, "Popen", Noted)
    return processes


def many(slots: list[Slot]) -> list[Slot]:
    """So many that workers are there before the last."""
    return [slot for slot in slots if not slot.path.endswith("large.jpg")] * 30


def test_pixels_are_those_of_threads(folder: Path, started: list[Any]) -> None:
    source, clock = open_source(folder), Clock()
    slots = many(slots_of(source))
    expected = pixels(source, slots)
    assert same(pixels(source, slots, processes=2, clock=clock), expected)
    assert clock.elsewhere > 0
    assert {isinstance(each, Unusable) for each in expected} == {True, False}
    assert [process.poll() is not None for process in started] == [True, True]


def test_what_may_pass_is_tried_again_here(folder: Path, tmp_path: Path) -> None:
    """A picture too large for a worker, one that changed, one that is gone."""
    source = open_source(folder)
    slots = slots_of(source)
    large = next(slot for slot in slots if slot.path.endswith("large.jpg"))
    others = [Slot(b"?" * 32, slots[0].path), Slot(b"?" * 32, "cat/gone.jpg"), large]
    others = [slots[1]] * 800 + others
    found = pixels(source, others, processes=1)
    assert found[-3].reason.startswith("it changed while it was read")
    assert found[-2].reason.startswith("missing")
    assert found[-1].shape == (2, 48, 48, 3)
    assert same(found, pixels(source, others))


def test_killed_workers_are_missed_by_nothing(
    folder: Path, started: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(folder)
    slots = many(slots_of(source))
    expected, found = pixels(source, slots), list[Any]()
    with streaming(source, slots, 2) as stream, caplog.at_level(logging.WARNING):
        for number, each in enumerate(stream):
            found.append(each)
            if number == len(slots) // 2:
                for process in started:
                    process.kill()
    assert same(found, expected)
    (said,) = [record.message for record in caplog.records]
    assert said.startswith("a process that decodes pictures was ended")


def test_without_processes_this_one_decodes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        refused.append(args)
        raise BlockingIOError("Resource temporarily unavailable")

    source = open_source(folder)
    slots = many(slots_of(source))
    monkeypatch.setattr(module.subprocess, "Popen", refuse)
    assert same(pixels(source, slots, processes=2), pixels(source, slots))
    assert len(refused) == 1, "it asks no more where the system allows none"


def test_who_stops_early_leaves_no_process(folder: Path, started: list[Any]) -> None:
    source = open_source(folder)
    with streaming(source, many(slots_of(source)), 2) as stream:
        next(stream)
    assert [process.poll() is not None for process in started] == [True, True]


@pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX's")
def test_workers_end_with_a_process_that_is_killed(folder: Path) -> None:
    """And Ctrl-C in a terminal is not for them: they are in no group of its."""
    code = f"""
import sys; sys.path[:] = {sys.path!r}
from featcache.images import workers
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_workers import many, open_source, slots_of, streaming
source = open_source({str(folder)!r})
held = streaming(source, many(slots_of(source)), 2)
next(held.__enter__())
import gc
found = [o for o in gc.get_objects() if isinstance(o, workers._Worker)]
print(*(worker._process.pid for worker in found), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        assert all(os.getpgid(pid) == pid for pid in pids)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived the process it worked for"
        time.sleep(0.05)


def is_zombie(pid: int) -> bool:
    """Ended, and not waited for by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_they_decode_where_cores_and_pictures_are_many_and_files(folder: Path) -> None:
    files, digits = open_source(folder), open_source("digits")
    assert processes_for(files, 512, 16) == 16
    assert processes_for(files, 511, 16) == 0
    assert processes_for(files, 100_000, 4) == 0
    assert processes_for(digits, 100_000, 16) == 0


def test_killed_workers_are_replaced_at_the_next_start(folder: Path, started: list[Any]) -> None:
    source = open_source(folder)
    slots = [slot for slot in slots_of(source) if slot.path.endswith("jpg")][:4]
    kind, clock = Kind.of(RECIPE, VIEWS), Clock()
    with module.Workers(partial(pipeline._load_asked, source), again=lambda made: False) as workers:
        workers.start(1)
        workers._started[0]._welcome.join()
        started[0].kill()
        workers.load([((kind,), slots[0])], clock)
        assert len(workers) == 0
        workers.start(1)
        workers._started[0]._welcome.join()
        before = clock.elsewhere
        (made,) = workers.load([((kind,), slots[0])], clock)
        assert clock.elsewhere > before
    assert [process.poll() is not None for process in started] == [True, True]
    assert np.array_equal(made[0], pixels(source, slots[:1])[0])


def test_a_process_that_decodes_needs_no_torch() -> None:
    code = (
        "import sys, featcache.images.workers, featcache.extraction.pipeline;"
        "print([name for name in ('torch', 'timm', 'h5py', 'sklearn') if name in sys.modules])"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("backbone", ["timm/test_resnet", "timm/test_resnet,timm/test_vit"])
def test_a_cache_is_byte_for_byte_that_of_threads(
    folder: Path, tmp_path: Path, started: list[Any], by_processes: Any, backbone: str
) -> None:
    several = "," in backbone

    def extracted(name: str) -> tuple[Any, ...]:
        given: dict[str, Any] = {"weights": "random", "image_size": 32, "threads": 2}
        given |= {"backbone": backbone, "out": tmp_path / name}
        return api.extract_each(folder, **given) if several else (api.extract(folder, **given),)

    here = extracted("threads")
    assert not started
    asked = by_processes()
    there = extracted("processes")
    assert len(started) == 2
    assert sum(asked) == COUNT + 2, "each file once"
    assert [each.computed for each in there] == [COUNT + 1] * len(here)
    assert [each.skipped for each in there] == [each.skipped for each in here]
    assert [each.computed for each in extracted("processes")] == [0] * len(here)
    assert len(started) == 2, "nothing was to be decoded"
    assert written(tmp_path / "processes") == written(tmp_path / "threads")


def written(root: Path) -> dict[str, bytes]:
    """What is in files, but for the journals."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "log.jsonl")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
