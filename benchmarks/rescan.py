"""How long an unchanged folder takes to be confirmed, beside merely looking at its files.

Prints seconds of: the first extraction; `stat` of every file and reading and hashing every file,
which are the peers; and the extraction of the unchanged folder, with its ratio to both.

    python benchmarks/rescan.py [--pictures 10000] [--backbone timm/test_resnet]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from featcache.api import extract
from featcache.extraction.scanning import SETTLED_NS

CLASSES = 10
SIDE = 24


def make_pictures(root: Path, count: int) -> list[Path]:
    """Small JPEG files in class folders, no two alike."""
    rng = np.random.default_rng(0)
    paths = [root / f"class{i % CLASSES}" / f"{i:05d}.jpg" for i in range(count)]
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True)
    for path in paths:
        stream = io.BytesIO()
        noise = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(noise).save(stream, "JPEG")
        path.write_bytes(stream.getvalue())
    return paths


def seconds(work: Callable[[], object]) -> float:
    """Wall clock of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--backbone", default="timm/test_resnet")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder, "pictures"), Path(folder, "cache")
        paths = make_pictures(root, arguments.pictures)
        time.sleep(SETTLED_NS / 1e9 + 0.1)  # what was changed just now is hashed again

        def run() -> None:
            extract(root, backbone=arguments.backbone, weights="random", image_size=32, out=out)

        first = seconds(run)
        stats = seconds(lambda: [path.stat() for path in paths])
        hashes = seconds(lambda: [hashlib.sha256(path.read_bytes()).digest() for path in paths])
        again = min(seconds(run) for _ in range(3))
    print(f"{arguments.pictures} pictures, {arguments.backbone}")
    print(f"  first extraction             {first:8.3f} s")
    print(f"  stat of every file           {stats:8.3f} s")
    print(f"  hash of every file           {hashes:8.3f} s")
    print(f"  extraction, nothing changed  {again:8.3f} s")
    print(f"  = {again / stats:.1f} x stat, {again / hashes:.2f} x hash")


if __name__ == "__main__":
    main()
