"""What a picture costs on its way to pixels: decoders side by side, and the whole way step by step.

Pictures are JPEGs of 500 x 375 (Oxford Pets' size) and of 4000 x 3000 (phones), made from photos
that ship in packages, or with --photos from those of a folder. Times are of one thread, in CPU
time, the least of several rounds; decoders other than Pillow run where they are installed.

    python benchmarks/decoding.py [--rounds 3] [--photos DIR] [--json decoding.json]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import count, machine, print_machine
from PIL import Image, ImageOps

from featcache.extraction.pipeline import Slot, stream_pixels
from featcache.images.decode import decode
from featcache.images.loading import pixels_of_views
from featcache.images.memory import reused_memory
from featcache.images.sources import content_hash
from featcache.images.transforms import to_pixels
from featcache.recipe import Decoder, Preprocessing, Recipe, View

SMALL, LARGE = (500, 375), (4000, 3000)
PREPROCESSING = Preprocessing((224, 224), (256,), (0.5,) * 3, (0.5,) * 3, "shorter", "bicubic")
MANY = 8  # pictures a stream, at least
GRAIN = 4.0  # standard deviation of what is added to enlarged photos, as a sensor does

Decode = Callable[[bytes], np.ndarray]


def photos(folder: Path | None) -> list[Image.Image]:
    """Photos to make pictures of."""
    if folder is not None:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[:6]
        return [Image.open(path).convert("RGB") for path in paths]
    from skimage import data
    from sklearn.datasets import load_sample_images

    arrays = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    return [Image.fromarray(array) for array in (*arrays, *load_sample_images().images)]


def resized(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A photo at a size, with grain."""
    pixels = np.asarray(photo.resize(size, Image.Resampling.LANCZOS)).astype(np.float32)
    grain = np.random.default_rng(0).normal(0, GRAIN, (*pixels.shape[:2], 1))
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def corpus(originals: list[Image.Image]) -> dict[str, list[bytes]]:
    """JPEG files by kind."""
    small = [resized(photo, SMALL) for photo in originals] * 4
    large = [resized(photo, LARGE) for photo in originals[:2]]
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "500 4:2:0": [jpeg(photo, subsampling=2) for photo in small],
        "500 4:4:4": [jpeg(photo, subsampling=0) for photo in small],
        "500 progressive": [jpeg(photo, progressive=True) for photo in small],
        "500 grey": [jpeg(photo.convert("L")) for photo in small],
        "500 upright": [jpeg(photo.transpose(Image.Transpose.ROTATE_90)) for photo in small],
        "12 MP 4:2:0": [jpeg(photo, subsampling=2) for photo in large],
        "12 MP 4:4:4": [jpeg(photo, subsampling=0) for photo in large],
        "12 MP progressive": [jpeg(photo, progressive=True) for photo in large],
        "12 MP turned": [jpeg(photo, exif=turned) for photo in large],
    }


def jpeg(photo: Image.Image, **options: Any) -> bytes:
    """A file of quality 90."""
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def by_pillow(content: bytes) -> np.ndarray:
    """(H, W, 3), as `Image.open` gives it."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def others() -> Iterator[tuple[str, Decode]]:
    """Decoders that are installed, which give (H, W, 3) of a JPEG as it is stored."""
    from torchvision.io import ImageReadMode, decode_jpeg

    def by_torchvision(content: bytes) -> np.ndarray:
        tensor = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return decode_jpeg(tensor, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()

    yield "torchvision", by_torchvision
    with suppress(ImportError):
        import simplejpeg  # type: ignore[import-not-found]

        yield "simplejpeg", simplejpeg.decode_jpeg
    with suppress(ImportError):
        import imagecodecs  # type: ignore[import-not-found]

        yield (
            "imagecodecs",
            lambda content: imagecodecs.jpeg8_decode(content, outcolorspace="RGB"),
        )
    with suppress(ImportError):
        import cv2  # type: ignore[import-not-found]

        cv2.setNumThreads(1)
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        yield "opencv", lambda content: cv2.imdecode(np.frombuffer(content, np.uint8), flags)


def milliseconds(work: Callable[[Any], object], items: list[Any], rounds: int) -> float:
    """CPU time an item, the least of several rounds; the first one warms up."""
    least = float("inf")
    for _ in range(rounds + 1):
        started = time.process_time()
        for item in items:
            work(item)
        least = min(least, time.process_time() - started)
    return 1e3 * least / len(items)


def compare_decoders(files: dict[str, list[bytes]], rounds: int) -> list[dict[str, Any]]:
    """A row each of decoder and kind: time, and whether its pixels are Pillow's."""
    decoders = {"pillow": by_pillow, **dict(others())}
    return [
        {
            "decoder": name,
            "kind": kind,
            "equal": all(np.array_equal(work(c), by_pillow(c)) for c in contents),
            "milliseconds": milliseconds(work, contents, rounds),
        }
        for kind, contents in files.items()
        for name, work in decoders.items()
    ]


def steps(contents: list[bytes], rounds: int) -> dict[str, float]:
    """Milliseconds of the parts of the way that featcache goes."""
    images = [decode(content) for content in contents]
    return {
        "sha256": milliseconds(content_hash, contents, rounds),
        "decode": milliseconds(decode, contents, rounds),
        "resize and crop": milliseconds(lambda i: to_pixels(i, PREPROCESSING), images, rounds),
    }


class InMemory:
    """A source whose paths are numbers."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents

    def read(self, path: str) -> bytes:
        """The content of a number."""
        return self.contents[int(path)]


def whole_way(contents: list[bytes], decoder: Decoder, rounds: int) -> float:
    """Milliseconds a picture from content to pixels, hashed as an extraction does it."""
    source: Any = InMemory(contents)
    slots = [Slot(content_hash(content), str(i)) for i, content in enumerate(contents)]
    slots *= max(MANY // len(contents), 1)  # so that memory is warm, as among thousands
    recipe = Recipe("", "", PREPROCESSING, decoder)

    def stream(_: object) -> None:
        for _ in stream_pixels(source, recipe, (View(),), slots, threads=1, ahead=4):
            pass

    return milliseconds(stream, [None], rounds) / len(slots)


def the_usual_way(contents: list[bytes], rounds: int) -> float:
    """The same by what people write, unhashed: Pillow, and timm's transform as far as the crop."""
    from torchvision import transforms as T  # noqa: N812 (its name everywhere)

    how = T.InterpolationMode.BICUBIC
    transform = T.Compose([T.Resize(256, how), T.CenterCrop(224)])

    def load(content: bytes) -> np.ndarray:
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        return np.array(transform(upright.convert("RGB")))

    return milliseconds(load, contents, rounds)


def farthest(contents: list[bytes]) -> float:
    """Mean difference in levels of drafts to whole pictures after the resize."""
    ways = [
        [pixels_of_views(c, Recipe("", "", PREPROCESSING, d), (View(),), b"") for c in contents]
        for d in ("pillow", "pillow-draft")
    ]
    return float(np.abs(np.subtract(*ways, dtype=np.int16)).mean())


def main() -> None:
    """Print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    described = machine()
    print_machine(described, load)
    files, rounds = corpus(photos(arguments.photos)), arguments.rounds
    found = {
        "machine": described,
        "versions": dict(_versions()),
        "decoders": compare_decoders(files, rounds),
        "ways": _ways(files, rounds),
    }
    _show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def _ways(files: dict[str, list[bytes]], rounds: int) -> dict[str, dict[str, float]]:
    ways = {}
    for kind, contents in files.items():
        with reused_memory(1):
            parts = steps(contents, rounds)
        ways[kind] = {
            **parts,
            "whole": whole_way(contents, "pillow", rounds),
            "whole, draft": whole_way(contents, "pillow-draft", rounds),
            "the usual way": the_usual_way(contents, rounds),
            "levels off, draft": farthest(contents),
        }
    return ways


def _versions() -> Iterator[tuple[str, str]]:
    packages = ("pillow", "torchvision", "simplejpeg", "imagecodecs", "opencv-python-headless")
    for name in packages:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def _show(found: dict[str, Any]) -> None:
    print(", ".join(f"{name} {number}" for name, number in found["versions"].items()))
    print("\nmilliseconds to decode a picture")
    for row in found["decoders"]:
        equal = "equal" if row["equal"] else "OTHER PIXELS"
        print(f"  {row['kind']:18}{row['decoder']:12}{row['milliseconds']:9.3f}  {equal}")
    print("\nmilliseconds from content to pixels")
    for kind, parts in found["ways"].items():
        print(f"  {kind}")
        for name, value in parts.items():
            print(f"    {name:20}{value:9.3f}")
        print(f"    = {parts['the usual way'] / parts['whole']:.2f} x as quick as the usual way")


if __name__ == "__main__":
    main()
