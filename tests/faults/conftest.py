"""Deeds that change a disk, each recorded once: what it found, what it changed, what it left."""

from __future__ import annotations

import os
import re
import shutil
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.backbones.registry import Backbone, load_backbone
from featcache.classifier import files
from featcache.classifier.files import ClassifierFile
from featcache.classifier.joined import join
from featcache.classifier.parity import CheckedRows, choose_rows, save_checked
from featcache.errors import CacheMissingError
from featcache.extraction.deriving import Means, derive, derived
from featcache.extraction.jobs import Job
from featcache.extraction.pipeline import Slot
from featcache.extraction.running import run
from featcache.heads.linear import LinearHead
from featcache.images.policies import views_of
from featcache.images.sources import open_source
from featcache.store import files as store_files
from featcache.store.cache import Cache
from featcache.store.files import TEMPORARY
from featcache.store.findings import list_findings, read_findings, write_findings
from featcache.store.steps import Steps
from featcache.store.upkeep import prune_files, verify_files

from .injecting import Change, Watched
from .power import Tree, lay, tree_of

BATCH = 4

CACHE, CLASSIFIER = "cache", "saved.fc"
"""Where deeds leave what they make."""

Act = Callable[[Path], object]


@dataclass(frozen=True)
class Deed:
    """Something that changes a disk, which was recorded when nothing went wrong.

    Attributes:
        disk: the folder it changes.
        before: what is there at first. whole: what is compared of what it leaves.
        act: the deed. changes: that it makes.
        look: fails where what is there is neither right nor plainly said to be wrong.
        finished: what was finished from.
    """

    disk: Path
    before: Tree
    act: Act
    look: Act
    changes: tuple[Change, ...]
    whole: Tree
    finished: set[tuple] = field(default_factory=set)

    def lay(self, tree: Tree | None = None) -> Path:
        """Put the disk into a state, else into the first one, as a new process finds it."""
        store_files._settled.clear()
        shutil.rmtree(self.disk, ignore_errors=True)
        self.disk.mkdir()
        lay(self.before if tree is None else tree, self.disk)
        return self.disk

    def finish_once(self) -> None:
        """Finish what is there, if it was not seen before."""
        found = essence(tree_of(self.disk))
        if found not in self.finished:
            self.finish()
        self.finished.add(found)

    def finish(self) -> None:
        """Look, do it again as nobody stops it, and expect what it leaves then."""
        self.look(self.disk)
        with Watched(self.disk):
            self.act(self.disk)
        self.look(self.disk)
        assert compared(tree_of(self.disk)) == self.whole


def compared(tree: Tree) -> Tree:
    """Files that are compared between caches; beside a classifier a draft may be left for a day."""
    names = {".lock", "log.jsonl"}
    files = {k: v for k, v in tree.items() if v is not None and Path(k).name not in names}
    return {k: v for k, v in files.items() if "/" in k or not k.startswith(TEMPORARY)}


def essence(tree: Tree, *, journals: bool = False) -> tuple:
    """What of a tree could make a difference: names of temporary files are of chance.

    Nobody reads these, nor what a lock file holds; a journal is another every time.
    """
    temporary = re.compile(rf"{re.escape(TEMPORARY)}[^/]*$")
    read = {k: v for k, v in tree.items() if not temporary.search(k) and Path(k).name != ".lock"}
    read |= {k: b"" for k in read if Path(k).name == "log.jsonl" and not journals}
    left = {str(Path(k).parent) for k in tree if temporary.search(k)}
    return tuple(sorted(read.items())), tuple(sorted(left))


def recorded(disk: Path, act: Act, look: Act) -> Deed:
    """A deed, done once on the disk as it is."""
    before = tree_of(disk)
    store_files._settled.clear()
    with Watched(disk) as watched:
        act(disk)
    return Deed(disk, before, act, look, tuple(watched.changes), compared(tree_of(disk)))


def look_at_cache(disk: Path) -> None:
    """Whatever is committed is whole and can be read; or there is no cache yet."""
    try:
        assert verify_files(disk / CACHE)[2] == []
    except CacheMissingError:
        return
    cache = Cache(disk / CACHE)
    for key in cache.manifest.streams:
        reader = cache.reader(key)
        assert np.isfinite(reader.read(np.arange(len(reader)))).all()


def forked(call: Callable[[], object]) -> int:
    """Call something in a child process, which ends with 0 if nothing is raised; returns it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: those here are idle
        child = os.fork()
    if child == 0:
        code = 1
        try:
            call()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)  # nothing comes out in the child
    return child


def ended(child: int) -> int:
    """The exit code of a child; of one that was killed, the signal below zero."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Laboratory:
    """Makes deeds with a light network on pictures of its own."""

    def __init__(self, root: Path, jpegs: Mapping[str, bytes], light: Mapping[str, Any]) -> None:
        self.root, self.disk = root, root / "disk"
        self.disk.mkdir()
        self._jpegs = list(jpegs.items())
        options = {"weights": light["weights"], "image_size": light["image_size"]}
        self.backbone: Backbone = load_backbone(light["backbone"], **options)

    def pictures(self, start: int, stop: int) -> None:
        """Add pictures."""
        for path, content in self._jpegs[start:stop]:
            place = self.root / "pictures" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    def job(self, disk: Path, **options: Any) -> Job:
        """An extraction of them."""
        plan = {"batch_size": BATCH, "shard_rows": BATCH, "threads": 1, "engine": "torch"}
        source = open_source(self.root / "pictures")
        return Job(disk / CACHE, source, self.backbone, **{**plan, **options})

    def extraction(self, **options: Any) -> Deed:
        """A cache of three shards a stream, from nothing."""
        self.pictures(0, 10)
        return recorded(self.disk, lambda disk: run(self.job(disk, **options)), look_at_cache)

    def int8(self) -> Deed:
        """A cache whose network is calibrated on pictures that it keeps."""
        pytest.importorskip("nncf")
        return self.extraction(engine="openvino", precision="int8")

    def more_pictures(self) -> Deed:
        """Another index, and shards beside those that are there."""
        self.pictures(0, 6)
        run(self.job(self.disk))
        self.pictures(6, 12)
        return recorded(self.disk, lambda disk: run(self.job(disk)), look_at_cache)

    def derivation(self) -> Deed:
        """Two cuts, derived from a deeper one."""
        self.pictures(0, 6)
        run(self.job(self.disk, cuts=("layer2.0",), pooling="none"))
        parent = Cache(self.disk / CACHE).stream("layer2.0").entry.stream
        streams = [derived(parent, cut) for cut in ("layer3.0", "layer4.0")]
        means = Means(batch_size=BATCH, shard_rows=BATCH)
        act = lambda disk: derive(disk / CACHE, self.backbone, streams, means)  # noqa: E731
        return recorded(self.disk, act, look_at_cache)

    def pruning(self) -> Deed:
        """A cache that lost pictures: shards that are rewritten, one that goes, an old index."""
        self.pictures(0, 12)
        run(self.job(self.disk))
        Steps(self.disk / CACHE, "sweep").write("step", {"depth": 1}, {"row": np.arange(3)})
        for path, _ in self._jpegs[2:9]:
            (self.root / "pictures" / path).unlink()
        run(self.job(self.disk))

        def look(disk: Path) -> None:
            look_at_cache(disk)
            cache = Cache(disk / CACHE)
            assert not any(cache.missing(cache.reader(key)) for key in cache.manifest.streams)

        return recorded(self.disk, lambda disk: prune_files(disk / CACHE), look)

    def result(self) -> Deed:
        """A finding in the place of an earlier one."""
        old, new = ({"row": np.full(5, number)} for number in (1, 2))
        (self.disk / CACHE).mkdir()
        write_findings(self.disk / CACHE, "found", {"number": 1}, old)

        def look(disk: Path) -> None:
            assert list_findings(disk / CACHE) == ["found"]
            record, rows = read_findings(disk / CACHE, "found")
            assert (rows["row"] == record["number"]).all()

        act = lambda disk: write_findings(disk / CACHE, "found", {"number": 2}, new)  # noqa: E731
        return recorded(self.disk, act, look)

    def steps(self) -> Deed:
        """A sweep that keeps two steps, and forgets them as it ends."""

        (self.disk / CACHE).mkdir()

        def act(disk: Path) -> None:
            steps = Steps(disk / CACHE, "sweep")
            for depth in (1, 2):
                steps.write(f"depth-{depth}", {"depth": depth}, {"row": np.full(3, depth)})
            steps.remove()

        def look(disk: Path) -> None:
            for depth in (1, 2):
                kept = Steps(disk / CACHE, "sweep").read(f"depth-{depth}")
                assert kept is None or (kept[0]["depth"] == kept[1]["row"]).all()

        return recorded(self.disk, act, look)

    def saving(self) -> Deed:
        """A classifier in the place of an earlier one."""
        self.pictures(0, 6)
        run(self.job(self.root))
        old, new = self._classifier(1), self._classifier(2)
        rows = self._checked(new)
        (self.disk / CLASSIFIER).write_bytes(files.encode(old))
        written = {files.encode(content) for content in (old, new)}

        def look(disk: Path) -> None:
            assert (disk / CLASSIFIER).read_bytes() in written
            files.read(disk / CLASSIFIER)

        act = lambda disk: save_checked(disk / CLASSIFIER, new, join, rows)  # noqa: E731
        return recorded(self.disk, act, look)

    def _classifier(self, seed: int) -> ClassifierFile:
        """One of three classes, never trained."""
        cache, random = Cache(self.root / CACHE), np.random.default_rng(seed)
        reader, manifest = cache.stream(), cache.manifest
        coef = random.normal(size=(3, reader.shape[0])).astype(np.float32)
        head = LinearHead("softmax", coef, np.zeros(3, np.float32))
        stream, classes = reader.entry.stream, ("a", "b", "c")
        return ClassifierFile(head, classes, manifest.recipe, stream, manifest.backbone, {})

    def _checked(self, content: ClassifierFile) -> CheckedRows:
        """Real rows, and what it gives of them."""
        cache = Cache(self.root / CACHE)
        chosen, reader = choose_rows(len(cache.index)), cache.stream()
        slots = [Slot(cache.index.hashes[i].tobytes(), cache.index.paths[int(i)]) for i in chosen]
        features = reader.read(reader.positions(cache.index.hashes[chosen]))
        return CheckedRows(open_source(self.root / "pictures"), slots, content.logits(features))


DEEDS: dict[str, Callable[[Laboratory], Deed]] = {
    "extraction": lambda lab: lab.extraction(),
    "views": lambda lab: lab.extraction(views=views_of("flip", 2, 0)),
    "cut": lambda lab: lab.extraction(cuts=("layer4.0",)),
    "int8": Laboratory.int8,
    "more pictures": Laboratory.more_pictures,
    "derivation": Laboratory.derivation,
    "prune": Laboratory.pruning,
    "result": Laboratory.result,
    "steps": Laboratory.steps,
    "classifier": Laboratory.saving,
}


@pytest.fixture(autouse=True)
def _always_one_thread(one_thread: None) -> None:
    """In every test of this room: processes are forked."""


@pytest.fixture
def laboratory(tmp_path: Path, jpegs, light) -> Laboratory:
    return Laboratory(tmp_path, jpegs, light)


def deeds() -> list[Any]:
    """Their names; to trace a network for its cuts, or to calibrate one, takes longest."""
    long = {"cut": [pytest.mark.slow], "int8": [pytest.mark.slow]}
    return [pytest.param(name, marks=long.get(name, [])) for name in DEEDS]


@pytest.fixture(params=deeds())
def deed(request: pytest.FixtureRequest, laboratory: Laboratory) -> Deed:
    """Each of them."""
    return DEEDS[request.param](laboratory)
