"""How much threads decode at once, and what they find again."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image

from featcache.errors import PictureError
from featcache.images import decode as decoding
from featcache.images.decode import decode, decoded
from featcache.images.loading import pictures_in_order, pixels_of_views
from featcache.images.memory import Budget, reused_memory
from featcache.recipe import Preprocessing, Recipe, View

RECIPE = Recipe("0" * 64, "x", Preprocessing((32, 32), (36,), (0.5,) * 3, (0.5,) * 3))


SMALL = Preprocessing((8, 8), (9,), (0.5,) * 3, (0.5,) * 3)


def jpeg(side: int, seed: int = 0, **options: object) -> bytes:
    stream = io.BytesIO()
    rows = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(rows).save(stream, "JPEG", **options)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Budget:
    """Of 100 x 100 pixels, in place of the process's."""
    small = Budget(10_000)
    monkeypatch.setattr(decoding, "DECODED", small)
    return small


def test_threads_never_hold_more_than_there_is() -> None:
    budget, least, alone = Budget(100), [100], []

    def work(pixels: int) -> None:
        with budget.held(pixels):
            least.append(budget.free)
            alone.extend([budget.free] if pixels >= 100 else [])
            time.sleep(0.001)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [60, 30, 250, 10, 99, 1, 100, 40] * 5))
    assert min(least) >= 0
    assert alone == [0] * 10, "larger than all there is: alone, but let in"
    assert budget.free == 100


def test_a_large_one_is_not_passed_by_for_ever() -> None:
    budget, order = Budget(100), []

    def work(pixels: int) -> None:
        with budget.held(pixels):
            order.append(pixels)

    with ThreadPoolExecutor(4) as pool:
        with budget.held(50):
            large = pool.submit(work, 100)
            while not budget._turn.locked():
                time.sleep(0.001)
            small = [pool.submit(work, 1) for _ in range(3)]
            time.sleep(0.02)
            assert order == [], "small ones went first"
        large.result(10)
        assert all(future.result(10) is None for future in small)
    assert order == [100, 1, 1, 1]


def test_pixels_are_held_until_the_block_ends_whatever_ends_it(budget: Budget) -> None:
    with decoded(jpeg(60)) as image:
        assert (budget.free, image.size) == (10_000 - 3_600, (60, 60))
    assert budget.free == 10_000
    with pytest.raises(PictureError, match="too narrow"), decoded(jpeg(60)):
        raise PictureError("too narrow")
    with pytest.raises(PictureError, match="truncated"):
        decode(jpeg(60)[:500])
    assert budget.free == 10_000


def test_a_draft_holds_what_it_takes(budget: Budget) -> None:
    with decoded(jpeg(160), draft_for=RECIPE.preprocessing):
        assert budget.free == 10_000 - 80 * 80
    with decoded(jpeg(90, progressive=True), draft_for=SMALL):
        assert budget.free == 10_000 - 90 * 90, "its coefficients are all in memory"


def test_a_warning_does_not_hold_a_picture_twice(budget: Budget) -> None:
    block = b"Exif\0\0II*\0\x08\0\0\0\x02\0"  # two entries, of which none is there
    stream = io.BytesIO()
    Image.new("RGB", (100, 100)).save(stream, "JPEG", exif=block)
    done = threading.Thread(target=decode, args=(stream.getvalue(),), daemon=True)
    done.start()  # with pytest's filters, by which warnings are errors
    done.join(10)
    assert not done.is_alive(), "it waits for itself"
    assert budget.free == 10_000


def test_a_small_budget_changes_neither_order_nor_bytes(budget: Budget) -> None:
    contents = [jpeg(side, seed) for seed, side in enumerate([40, 150, 20, 99, 101, 60] * 4)]

    def load(content: bytes) -> bytes:
        return pixels_of_views(content, RECIPE, (View(),), b"x").tobytes()

    expected = [load(content) for content in contents]
    assert list(pictures_in_order(load, contents, threads=6, ahead=12)) == expected
    assert budget.free == 10_000


def test_what_pillow_keeps_is_set_back() -> None:
    before = Image.core.get_blocks_max()
    first, second = ExitStack(), ExitStack()
    first.enter_context(reused_memory(2))
    kept = Image.core.get_blocks_max()
    assert kept > before
    second.enter_context(reused_memory(4))
    first.close()
    assert Image.core.get_blocks_max() >= kept, "taken from who is still within"
    second.close()
    assert Image.core.get_blocks_max() == before


def test_memory_that_is_used_again_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    png = io.BytesIO()
    clear = Image.new("LA", (900, 700), (40, 0))
    clear.save(png, "PNG")
    fresh = decode(png.getvalue()).tobytes()
    with reused_memory(1):
        for seed in range(3):
            decode(jpeg(900, seed))
            assert decode(png.getvalue()).tobytes() == fresh


def run_length_bmp() -> bytes:
    """Marks that go right and up, one by one far beyond its million pixels."""
    width, height, palette = 1_000_000, 1, bytes(1024)
    marks = b"\0\2\xff\xff" * 400 + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(marks), 0, 0, 256, 0)
    begin = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", begin + len(marks), 0, 0, begin) + head + palette + marks


def tiff_of_shared_tags() -> bytes:
    """Hundreds of tags, each of the same megabyte."""
    shared = bytes(1 << 20)
    plain = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in plain.items()]
    entries += [struct.pack("<HHII", 40_000 + i, 7, len(shared), 8) for i in range(800)]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(shared)) + shared + directory


LIMITED = """
import resource, sys
from pathlib import Path
from featcache.images.decode import decode
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(decode(sys.stdin.buffer.read()).size)
"""


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="what a process has is told by Linux's /proc")
@pytest.mark.parametrize("make", [run_length_bmp, tiff_of_shared_tags])
def test_a_small_file_takes_no_large_memory(make: Callable[[], bytes], tried) -> None:
    """Pillow bounds these itself, since 13.0: an older one ends here with a MemoryError."""
    command = [sys.executable, "-c", LIMITED]
    done = subprocess.run(command, input=make(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() in ("(1000000, 1)", "(8, 8)")
    tried("a small picture that asks for much memory", 1, sees="pixels")
