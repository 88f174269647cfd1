"""Pictures from strangers: thousands of damaged ones, each pixels or a skip, and nothing else.

Run as a script this file decodes mutations of a folder's files, for a parent that sees crashes.
"""

from __future__ import annotations

import io
import os
import random
import resource
import selectors
import struct
import subprocess
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from skimage import data

from featcache.errors import PictureError
from featcache.images.decode import MAX_PIXELS
from featcache.images.loading import pixels_of_views
from featcache.recipe import Preprocessing, Recipe, View

QUICK, THOROUGH = 1_000, 60_000
SECONDS = 60
"""What any picture may take, on a busy machine."""

MEMORY = 16 * MAX_PIXELS + (256 << 20)
"""Bytes that any picture may take: the largest WebP there is; of others it is half as much."""

KINDS = {"truncated", "damaged", "not a picture", "too large", "too narrow", "no defined white"}
PREPROCESSING = Preprocessing((24, 24), (28,), (0.5,) * 3, (0.5,) * 3)
RECIPES = [Recipe("0" * 64, "x", PREPROCESSING, name) for name in ("pillow", "pillow-draft")]

Bytes = bytearray
Mutation = Callable[[Bytes, random.Random, list[bytes]], Bytes]


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    """A file of copies, since Pillow leaves its settings in what it saved."""
    stream = io.BytesIO()
    if "append_images" in options:
        options["append_images"] = [frame.copy() for frame in options["append_images"]]  # type: ignore[attr-defined]
    image.copy().save(stream, format_, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x0132] = 6, "A camera", "2026:01:01 00:00:00"
    tags.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0a comment"
    return tags.tobytes()


def corpus(photo: Image.Image) -> dict[str, bytes]:
    """A real photo in every format and mode that is read, with what comes beside the pixels."""
    small = photo.crop((120, 60, 216, 132)).resize((60, 45))
    second = photo.crop((10, 20, 70, 65))
    grey, palette, clear = small.convert("L"), small.quantize(32), small.convert("RGBA")
    clear.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    floats = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a photo", zip=True)
    text.add_itxt("Author", "someone", "en", "Author", zip=True)
    beside = {"exif": exif(), "icc_profile": profile}
    animated = {"save_all": True, "append_images": [second]}
    return {
        "baseline": encoded(small, "JPEG", **beside, comment="a comment"),
        "progressive": encoded(small, "JPEG", progressive=True, quality=60),
        "restarts": encoded(small, "JPEG", restart_marker_blocks=2, subsampling=0),
        "large": encoded(photo.crop((0, 0, 240, 200)), "JPEG", exif=exif()),
        "grey": encoded(grey, "JPEG"),
        "cmyk": encoded(small.convert("CMYK"), "JPEG"),
        "mpo": encoded(small, "MPO", **animated),
        "png": encoded(small, "PNG", pnginfo=text, **beside),
        "png palette": encoded(palette, "PNG", transparency=3),
        "png bits": encoded(palette.quantize(4), "PNG", bits=2),
        "png deep": encoded(deep, "PNG"),
        "png alpha": encoded(clear, "PNG", optimize=True),
        "png grey alpha": encoded(clear.convert("LA"), "PNG"),
        "png one bit": encoded(grey.convert("1"), "PNG"),
        "png interlaced": interlaced(grey),
        "apng": encoded(small, "PNG", **animated),
        "webp": encoded(small, "WEBP", **beside),
        "webp lossless": encoded(clear, "WEBP", lossless=True, exact=True),
        "webp animated": encoded(small, "WEBP", **animated),
        "gif": encoded(palette, "GIF", transparency=3, comment=b"a comment"),
        "gif animated": encoded(small, "GIF", **animated),
        "bmp": encoded(small, "BMP"),
        "bmp palette": encoded(palette, "BMP"),
        "bmp run length": run_length(palette),
        "dib": encoded(small, "DIB"),
        "tiff": encoded(small, "TIFF", **beside),
        "tiff lzw": encoded(clear, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encoded(deep, "TIFF", compression="tiff_adobe_deflate"),
        "tiff packbits": encoded(palette, "TIFF", compression="packbits"),
        "tiff jpeg": encoded(small, "TIFF", compression="jpeg"),
        "tiff fax": encoded(grey.convert("1"), "TIFF", compression="group4"),
        "tiff float": encoded(floats, "TIFF", compression="tiff_lzw"),
        "tiff cmyk": encoded(small.convert("CMYK"), "TIFF"),
        "tiff lab": encoded(lab(small), "TIFF"),
        "tiff big": encoded(small, "TIFF", big_tiff=True),
        "tiff frames": encoded(small, "TIFF", **animated),
    }


def interlaced(grey: Image.Image) -> bytes:
    """A grey PNG in Adam7's seven passes, which Pillow reads and does not write."""
    rows = np.asarray(grey)
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    passes = [rows[top::down, left::right] for top, left, down, right in (*starts, (1, 0, 2, 1))]
    data = b"".join(b"\0" + row.tobytes() for part in passes for row in part)
    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 8, 0, 0, 0, 1)
    return png(chunks=[(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")])


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of chunks, each with the checksum that it should have."""
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def run_length(palette: Image.Image) -> bytes:
    """A BMP in runs, which Pillow reads and does not write."""
    rows = np.asarray(palette)[::-1]
    pixels = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in rows)
    pixels += b"\0\1"
    colours = bytes(palette.palette.palette).ljust(768, b"\0")[:768]  # type: ignore[union-attr]
    table = b"".join(colours[i + 2 : i - 1 if i else None : -1] + b"\0" for i in range(0, 768, 3))
    size = 14 + 40 + len(table) + len(pixels)
    header = struct.pack("<2sIII", b"BM", size, 0, 54 + len(table))
    header += struct.pack("<IiiHHIIiiII", 40, *palette.size, 1, 8, 1, len(pixels), 1, 1, 256, 0)
    return header + table + pixels


def lab(image: Image.Image) -> Image.Image:
    profiles = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
    return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))


def place(content: Bytes, chance: random.Random) -> int:
    """Somewhere in a file, half of the time where its header is."""
    end = min(len(content), 400) if chance.random() < 0.5 else len(content)
    return chance.randrange(max(end, 1))


def flip(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    for _ in range(chance.choice((1, 1, 2, 8, 40))):
        if content:
            content[place(content, chance)] ^= 1 << chance.randrange(8)
    return content


def extreme(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    """A number of one to eight bytes at the end of its range."""
    size, start = chance.choice((1, 2, 4, 4, 8)), place(content, chance)
    least, most = 0, 256**size - 1
    value = chance.choice((least, 1, most, most // 2, most // 2 + 1, most - 1, 60_000 & most))
    content[start : start + size] = value.to_bytes(size, chance.choice(("little", "big")))
    return content


def noise(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    start = place(content, chance)
    some = chance.randbytes(chance.choice((1, 4, 30, 300)))
    content[start : start + chance.choice((0, len(some)))] = some
    return content


def truncate(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    return content[: place(content, chance)]


def cut_out(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    start = place(content, chance)
    del content[start : start + chance.choice((1, 4, 40, 400))]
    return content


def repeat(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    start, length = place(content, chance), chance.choice((1, 8, 64, 512))
    content[start:start] = content[start : start + length] * chance.choice((1, 2, 30))
    return content


def swap(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    one, two = sorted((place(content, chance), place(content, chance)))
    return content[:one] + content[two:] + content[one:two]


def blank(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    start, length = place(content, chance), chance.choice((4, 40, 400))
    content[start : start + length] = bytes([chance.choice((0, 255))]) * length
    return content


def splice(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    """The head of one file and the tail of another."""
    other = chance.choice(others)
    return content[: place(content, chance)] + other[chance.randrange(len(other)) :]


def reordered(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    """Chunks of a PNG lost, doubled and moved, all with the right checksum; else a flip."""
    chunks = list(chunks_of(bytes(content)))
    if len(chunks) < 2:
        return flip(content, chance, others)
    for _ in range(chance.choice((1, 2))):
        name, data = chunks.pop(chance.randrange(len(chunks)))
        for _ in range(chance.choice((0, 1, 1, 2))):
            chunks.insert(chance.randint(0, len(chunks)), (name, data))
        if not chunks:
            break
    return Bytes(png(chunks))


def rechecked(content: Bytes, chance: random.Random, others: list[bytes]) -> Bytes:
    """A PNG damaged within its chunks, with the right checksums; else a flip."""
    chunks = list(chunks_of(bytes(content)))
    if not chunks:
        return flip(content, chance, others)
    at = chance.randrange(len(chunks))
    name, data = chunks[at]
    change = chance.choice((flip, extreme, noise, truncate))
    chunks[at] = name, bytes(change(Bytes(data), chance, others))
    return Bytes(png(chunks))


def chunks_of(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = 8 if content.startswith(b"\x89PNG") else len(content)
    while start + 12 <= len(content):
        (length,) = struct.unpack(">I", content[start : start + 4])
        yield content[start + 4 : start + 8], content[start + 8 : start + 8 + length]
        start += 12 + length


MUTATIONS: tuple[Mutation, ...] = (
    *(flip, flip, extreme, extreme, noise, truncate, cut_out, repeat, swap, blank, splice),
    *(reordered, rechecked),
)


def mutant(files: list[bytes], number: int) -> bytes:
    """The mutation of a number, always the same."""
    chance = random.Random(number)
    content = Bytes(chance.choice(files))
    for _ in range(chance.choice((1, 1, 2, 3))):
        content = chance.choice(MUTATIONS)(content, chance, files)
    return bytes(content)


def outcome(content: bytes, number: int) -> str:
    """ "pixels", or the kind of skip; anything else is raised."""
    recipe = RECIPES[number % len(RECIPES)]
    try:
        pixels = pixels_of_views(content, recipe, (View(),), b"x" * 32)
    except PictureError as error:
        reason = str(error)
        kind = reason.partition(":")[0]
        assert kind in KINDS, reason
        assert reason.isprintable(), repr(reason)
        assert len(reason) < 300, reason
        return kind
    assert (pixels.shape, pixels.dtype) == ((1, 24, 24, 3), np.uint8)
    return "pixels"


def main(folder: str, first: str, last: str) -> None:
    """Decode the mutations of some numbers; each is said before it is tried."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    files = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    for number in range(int(first), int(last)):
        content = mutant(files, number)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{outcome(content, number).replace(' ', '-')}\n")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, content in corpus(Image.fromarray(data.chelsea())).items():
        (folder / name).write_bytes(content)
    return folder


def test_what_is_mutated_is_read(files: Path) -> None:
    kinds = {path.name: outcome(path.read_bytes(), 0) for path in files.iterdir()}
    assert {name for name, kind in kinds.items() if kind != "pixels"} == {"tiff float"}


@pytest.mark.faults
def test_mutations_are_pixels_or_a_skip(files: Path, tried: Callable[..., None]) -> None:
    contents = [path.read_bytes() for path in sorted(files.iterdir())]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kinds = Counter(outcome(mutant(contents, number), number) for number in range(QUICK))
    assert caught == []
    assert min(kinds["pixels"], kinds["damaged"], kinds["truncated"]) > QUICK // 20, "all too alike"
    tried("damaged pictures", QUICK, sees=SEES)


@pytest.mark.slow
@pytest.mark.faults
def test_thousands_of_mutations_crash_hang_and_say_nothing(
    files: Path, tried: Callable[..., None]
) -> None:
    """In a child of limited memory, which would show a crash; see `main`."""
    number, failures, kinds = QUICK, [], Counter[str]()
    while number < THOROUGH and len(failures) < 10:
        failure, number, found = child(files, number)
        kinds += found
        failures += failure
    tried("damaged pictures", THOROUGH - QUICK, failures=len(failures), sees=SEES)
    assert failures == []
    assert kinds.total() == THOROUGH - QUICK
    assert min(kinds["pixels"], kinds["damaged"], kinds["truncated"]) > THOROUGH // 20


SEES = "a skip with its reason, or pixels"


def child(files: Path, first: int) -> tuple[list[str], int, Counter[str]]:
    """Failures of one child, the number to go on from, and how often each kind came out."""
    command = [sys.executable, "-P", "-W", "error", __file__, str(files), str(first), str(THOROUGH)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        selectors.DefaultSelector() as ready,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        ready.register(process.stdout, selectors.EVENT_READ)
        said = b""
        while part := ready.select(SECONDS) and os.read(process.stdout.fileno(), 1 << 16):
            said += part
        hangs = part == []
        if hangs:
            process.kill()
        errors = process.stderr.read().decode()
    lines = said.decode().split()
    numbers = [int(line) for line in lines if line.isdecimal()]
    kinds = Counter(line for line in lines if not line.isdecimal())
    if process.returncode == 0 and not errors:
        return [], THOROUGH, kinds
    why = "hangs" if hangs else f"exit {process.returncode}"
    return [f"{numbers[-1:]}: {why} {errors}"], max([first, *numbers]) + 1, kinds


if __name__ == "__main__":
    main(*sys.argv[1:])
