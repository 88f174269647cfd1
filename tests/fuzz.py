"""Give featcache files that a seeded mutator made of whole ones, in a process of its own.

    python fuzz.py KIND FOLDER SEED COUNT

KIND is "shard", "index", "manifest", "calibration", "record" or "rows" (of a result) with FOLDER a
cache that has pixels of calibration and a result `found`; or "fc", with FOLDER holding `whole.fc`.
Checksums are put right after each mutation, so that what is behind them is reached. Memory is
limited and each file has its time: who exceeds either dies, or says so. Prints one JSON object: how
many were refused by a typed error that names the file, how many were read, and every other outcome
in full.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import random
import resource
import shutil
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import FeatcacheError
from featcache.recipe import canonical_json, sha256_json
from featcache.store import documents, hdf5
from featcache.store import manifest as manifests
from featcache.store.cache import Cache
from featcache.store.calibration import CALIBRATION, calibration_name, read_calibration
from featcache.store.findings import read_findings
from featcache.store.upkeep import verify_files

SPARE_BYTES = 1 << 30
"""Of address space beside what the process had when it began."""
SECONDS = 60
"""For one file, on a machine that may be busy."""

NUMBERS = [0, 1, -1, 7, 255, 4096, 1 << 31, 1 << 32, (1 << 62) - 1, 1 << 63, (1 << 64) - 1, 10**40]
STRANGE: list[Any] = [
    *(None, True, False, "", "\x00", "../../../etc/passwd", "/etc/passwd", "a" * 100_000, "\ud800"),
    *([], {}, [[]], {"a": {}}, 1e308, -0.0, 0.5, "\x1b[31m", "[/red]", "none", "float16", *NUMBERS),
]


def altered_bytes(content: bytes, rng: random.Random) -> bytes:
    """A file's bytes, altered in one to four ways."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        rng.choice([_flip, _flip, _number, _number, _splice, _cut, _insert, _copy_word])(
            changed, rng
        )
    return bytes(changed)


def _place(changed: bytearray, rng: random.Random) -> int:
    """Anywhere, but more often at the beginning of a page, where HDF5 says what is where."""
    if not changed:
        return 0
    if rng.random() < 0.7:
        page = rng.randrange(0, len(changed), 4096)
        return min(page + rng.randrange(200), len(changed) - 1)
    return rng.randrange(len(changed))


def _flip(changed: bytearray, rng: random.Random) -> None:
    if changed:
        changed[_place(changed, rng)] ^= 1 << rng.randrange(8)


def _number(changed: bytearray, rng: random.Random) -> None:
    place, size = _place(changed, rng), rng.choice([1, 2, 4, 8])
    place -= place % size
    number = rng.choice([*NUMBERS[:-1], len(changed), rng.randrange(len(changed) + 1)])
    changed[place : place + size] = (number % (1 << 8 * size)).to_bytes(size, "little")


def _splice(changed: bytearray, rng: random.Random) -> None:
    size = rng.choice([1, 8, 40, 512, 4096])
    start, place = _place(changed, rng), _place(changed, rng)
    changed[place : place + size] = changed[start : start + size]


def _copy_word(changed: bytearray, rng: random.Random) -> None:
    start, place = (8 * (_place(changed, rng) // 8) for _ in range(2))
    changed[place : place + 8] = changed[start : start + 8]


def _cut(changed: bytearray, rng: random.Random) -> None:
    place = _place(changed, rng)
    del changed[place : place + rng.choice([1, 8, 4096, len(changed)])]


def _insert(changed: bytearray, rng: random.Random) -> None:
    place = _place(changed, rng)
    changed[place:place] = rng.randbytes(rng.choice([1, 8, 4096]))


def altered_json(value: Any, rng: random.Random) -> Any:
    """A JSON value, altered in one to three places."""
    changed = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        holders = [h for h in _holders(changed) if len(h)]
        if not holders:
            return changed
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        _alter(holder, key, rng, value)
    if isinstance(changed, dict) and changed and rng.random() < 0.02:
        changed[rng.choice(list(changed))] = _deep(rng.choice([100, 900, 5000]))
    return changed


def _holders(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, (dict, list)) else []
    return own + [holder for item in inner for holder in _holders(item)]


def _alter(holder: Any, key: Any, rng: random.Random, whole: Any) -> None:
    kind, old = rng.randrange(5), holder[key]
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.append(copy.deepcopy(old))
    elif kind == 1:
        holder[rng.choice(["", "x", "../x", key + "x"])] = copy.deepcopy(old)
    elif kind == 2 and isinstance(old, int):
        holder[key] = old + rng.choice([-1, 1, 1 << 20, -(1 << 20)])
    elif kind == 3 and isinstance(old, str) and old:
        place = rng.randrange(len(old))
        holder[key] = old[:place] + rng.choice(["0", "f", "/", "..", "\n"]) + old[place + 1 :]
    elif kind == 4:
        holder[key] = copy.deepcopy(rng.choice(_holders(whole)))
    else:
        holder[key] = copy.deepcopy(rng.choice(STRANGE))


def _deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
"""In the place of what is nested deeper than Python writes."""


def text_of(body: Any) -> bytes:
    """The bytes of a document with its digest."""
    try:
        return documents.encode(body)
    except (RecursionError, ValueError):
        return DEEP


def plain_text(value: Any) -> bytes:
    """JSON."""
    try:
        return json.dumps(value).encode()
    except (RecursionError, ValueError):
        return DEEP


class Mutant:
    """One cache, of which one file is replaced again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest, _ = documents.decode((folder / "manifest.json").read_bytes())
        self.shard = sorted(folder.glob("shards/*/*.h5"))[0]
        self.index = next(folder.glob("index-*.h5"))
        self.result = folder / "results" / "found"
        self.record, _ = documents.decode((self.result / "result.json").read_bytes())
        self.rows = next(self.result.glob("rows-*.h5"))
        self.pixels = folder / CALIBRATION
        self.recipe = manifests.load(folder).recipe
        files = self.shard, self.index, self.rows, self.pixels
        self.whole = {path: path.read_bytes() for path in files}

    def put_shard(self, rng: random.Random) -> None:
        content, body = altered_bytes(self.whole[self.shard], rng), copy.deepcopy(self.manifest)
        self.shard.write_bytes(content)
        (entry,) = body["streams"].values()
        entry["shards"][0]["sha256"] = hashlib.sha256(content).hexdigest()
        self.put(body)

    def put_index(self, rng: random.Random) -> None:
        content, body = altered_bytes(self.whole[self.index], rng), copy.deepcopy(self.manifest)
        self.index.write_bytes(content)
        body["index"]["sha256"] = hashlib.sha256(content).hexdigest()
        self.put(body)

    def put_manifest(self, rng: random.Random) -> None:
        self.put(altered_json(self.manifest, rng))

    def put_calibration(self, rng: random.Random) -> None:
        self.pixels.write_bytes(altered_bytes(self.whole[self.pixels], rng))
        name = "0" * 64
        with contextlib.suppress(FeatcacheError):
            arrays = hdf5.map_arrays(self.pixels)
            name = next((calibration_name(array) for array in arrays.values()), name)
        self.recipe = replace(self.recipe, precision="int8", calibration=name)

    def put_record(self, rng: random.Random) -> None:
        (self.result / "result.json").write_bytes(text_of(altered_json(self.record, rng)))

    def put_rows(self, rng: random.Random) -> None:
        content = altered_bytes(self.whole[self.rows], rng)
        sha256 = hashlib.sha256(content).hexdigest()
        for old in self.result.glob("rows-*.h5"):
            old.unlink()
        (self.result / f"rows-{sha256[:16]}.h5").write_bytes(content)
        (self.result / "result.json").write_bytes(text_of({**self.record, "rows_sha256": sha256}))

    def put(self, body: Any) -> None:
        (self.folder / "manifest.json").write_bytes(text_of(body))

    def use(self) -> None:
        """What commands do with a cache: verify it, list it, read every row."""
        verify_files(self.folder)
        opened = Cache(self.folder)
        index = opened.index
        for texts in (index.paths, index.label_names, index.group_names, index.skip_paths):
            list(texts)
        labels = [index.labels_of(row) for row in range(len(index))]
        np.bincount(index.label_codes, minlength=len(index.label_names))
        opened.vector_cuts()
        for key, entry in opened.manifest.streams.items():
            reader = opened.reader(key)
            opened.missing(reader)
            opened.views_of(entry.stream)
            positions = reader.positions(index.hashes)
            rows = reader.read(positions[positions >= 0])
            assert rows.shape[1:] == entry.shape
            dict(reader.skips)
        assert len(labels) == len(index)
        opened.stream()

    def use_calibration(self) -> None:
        """What a start of an int8 network does."""
        pixels = read_calibration(self.folder, self.recipe)
        assert pixels.shape == (len(pixels), *self.recipe.preprocessing.size, 3)

    def use_result(self) -> None:
        """What a comparison does with a result."""
        record, rows = read_findings(self.folder, "found")
        json.dumps(record)
        sum(float(np.asarray(array, np.float64).sum()) for array in rows.values())


class Classifier:
    """A .fc file that is replaced again and again."""

    def __init__(self, folder: Path) -> None:
        self.file, self.content = folder / "changed.fc", (folder / "whole.fc").read_bytes()
        length = 8 + int.from_bytes(self.content[:8], "little")
        self.header, self.tensors = json.loads(self.content[8:length]), self.content[length:]

    def put(self, rng: random.Random) -> None:
        kind = rng.randrange(4)
        if kind == 0:
            self.file.write_bytes(altered_bytes(self.content, rng))
            return
        header, tensors = copy.deepcopy(self.header), self.tensors
        if kind == 1:
            header = altered_json(header, rng)
        else:
            description = json.loads(header["__metadata__"]["featcache"])
            del description["digest"]
            header["__metadata__"]["featcache"] = self.signed(altered_json(description, rng))
        if kind == 3:
            tensors = altered_bytes(tensors, rng)
        text = plain_text(header)
        self.file.write_bytes(struct.pack("<Q", len(text)) + text + tensors)

    def signed(self, description: Any) -> str:
        try:
            return canonical_json({**description, "digest": sha256_json(description)})
        except (RecursionError, ValueError, TypeError):
            return json.dumps({"digest": 0})

    def use(self) -> None:
        from featcache.classifier import files

        content = files.read(self.file)
        features = np.zeros((2, (content.hidden or content.head).coef.shape[1]), np.float32)
        with np.errstate(all="ignore"):  # any bits are some number
            content.head.probabilities_of(content.logits(features))
        files.encode(content)


def steps(kind: str, folder: Path) -> tuple[Callable[[random.Random], None], Callable[[], None]]:
    """What makes the next file, and what uses it."""
    if kind == "fc":
        classifier = Classifier(folder)
        return classifier.put, classifier.use
    mutant = Mutant(folder)
    uses = {"record": mutant.use_result, "rows": mutant.use_result}
    uses["calibration"] = mutant.use_calibration
    return getattr(mutant, f"put_{kind}"), uses.get(kind, mutant.use)


def limit() -> None:
    """Limit the memory of this process, and let a file that takes too long end it."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + SPARE_BYTES, size + SPARE_BYTES))


def main() -> None:
    kind, folder, seed, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    own = folder.with_name(f"{folder.name}-{kind}-{seed}")
    shutil.copytree(folder, own)
    if kind == "fc":
        from featcache.classifier import files  # noqa: F401 - before memory is limited
    put, use = steps(kind, own)
    limit()
    told = {"refused": 0, "read": 0, "wrong": []}
    for number in range(seed, seed + count):
        put(random.Random(number))
        signal.alarm(SECONDS)
        try:
            use()
            told["read"] += 1
        except FeatcacheError as error:
            told["refused"] += 1
            if str(own) not in str(error):
                told["wrong"].append(f"{number}: names no file: {error}"[:2000])
        except Exception:  # noqa: BLE001 - which it is, is the finding
            told["wrong"].append(f"{number}: {traceback.format_exc()}"[-3000:])
        signal.alarm(0)
    shutil.rmtree(own)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
