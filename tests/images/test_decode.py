"""Files become pixels: orientation, animations, limits, broken files."""

from __future__ import annotations

import io
import random
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from featcache.errors import PictureError
from featcache.images.decode import FORMATS, MAX_PIXELS, MAX_SCANS, decode

LOSSLESS = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "BMP": {},
}
# What turns the stored array into the one a person sees, by EXIF orientation.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def pixels(content: bytes | np.ndarray) -> np.ndarray:
    image = decode(content)
    assert image.mode == "RGB"
    return np.asarray(image)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def reason(content: bytes | np.ndarray) -> str:
    with pytest.raises(PictureError) as caught:
        decode(content)
    return str(caught.value)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_give_the_pixels_back(gradient: np.ndarray, kind: str) -> None:
    content = encoded(Image.fromarray(gradient), kind.split()[0], **LOSSLESS[kind])
    assert np.array_equal(pixels(content), gradient)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP"])
def test_lossy_formats_equal_pillow(photos: dict[str, Image.Image], format_: str) -> None:
    content = encoded(photos["chelsea 451 x 300"], format_)
    assert np.array_equal(pixels(content), np.asarray(Image.open(io.BytesIO(content))))


def test_dib_is_read() -> None:
    content = encoded(Image.new("RGB", (3, 2), (9, 8, 7)), "DIB")
    assert pixels(content).tolist() == [[[9, 8, 7]] * 3] * 2


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "TIFF lzw"])
def test_orientation(gradient: np.ndarray, kind: str, orientation: int) -> None:
    options = {**LOSSLESS[kind], "exif": exif(orientation)}
    content = encoded(Image.fromarray(gradient), kind.split()[0], **options)
    assert np.array_equal(pixels(content), UPRIGHT[orientation](gradient))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_of_a_jpeg(gradient: np.ndarray, orientation: int) -> None:
    image = Image.fromarray(gradient)
    plain = pixels(encoded(image, "JPEG"))
    turned = pixels(encoded(image, "JPEG", exif=exif(orientation)))
    assert np.array_equal(turned, UPRIGHT[orientation](plain))


@given(
    array=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    orientation=st.sampled_from(sorted(UPRIGHT)),
)
def test_orientation_of_any_shape(array: np.ndarray, orientation: int) -> None:
    content = encoded(Image.fromarray(array), "PNG", exif=exif(orientation))
    assert np.array_equal(pixels(content), UPRIGHT[orientation](array))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(gradient: np.ndarray, value: int) -> None:
    content = encoded(Image.fromarray(gradient), "PNG", exif=exif(value))
    assert np.array_equal(pixels(content), gradient)


@pytest.mark.parametrize(
    "block",
    [b"", b"garbage", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x05\x01", b"\0" * 40],
)
def test_broken_exif_is_ignored(gradient: np.ndarray, block: bytes) -> None:
    image = Image.fromarray(gradient)
    content = encoded(image, "JPEG", exif=b"Exif\0\0" + block)
    assert np.array_equal(pixels(content), pixels(encoded(image, "JPEG")))


def test_a_picture_does_not_hang_on_the_warning_filters(gradient: np.ndarray) -> None:
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x010F, 2, 99, 9999)
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + b"\0\0\0\0"
    content = encoded(Image.fromarray(gradient), "JPEG", exif=block)
    filters = list(warnings.filters)  # of pytest: warnings are errors
    assert pixels(content).shape == (20, 12, 3)
    assert warnings.filters == filters
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert pixels(content).shape == (20, 12, 3)
    assert caught == []
    with pytest.warns(UserWarning, match="EXIF|Tag data|Truncated"):
        Image.open(io.BytesIO(content)).getexif()  # whoever uses Pillow beside is warned still


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    first, second = (Image.new("RGB", (6, 4), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(first, kind, save_all=True, append_images=[second], **options)
    assert (pixels(content) == [255, 0, 0]).all()


def test_a_multi_picture_jpeg_gives_its_first() -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("white", "black"))
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    assert (pixels(content) == 255).all()


def test_content_counts_not_the_name(gradient: np.ndarray) -> None:
    assert reason(b"%PDF-1.7 and a lot more of it").startswith("not a picture: none of JPEG")
    assert reason(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic").startswith("not a picture: ")
    assert reason(encoded(Image.fromarray(gradient), "PPM")).startswith("not a picture: ")


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"GIF89a"])
def test_hardly_any_bytes(content: bytes) -> None:
    assert reason(content).startswith("truncated: ")


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_files(photos: dict[str, Image.Image], format_: str, part: float) -> None:
    content = encoded(photos["small"], format_)
    assert reason(content[: int(len(content) * part)]).startswith("truncated: ")


@pytest.mark.parametrize("format_", FORMATS)
def test_damaged_files_raise_nothing_else(photos: dict[str, Image.Image], format_: str) -> None:
    content = encoded(photos["small"].resize((16, 12)), format_)
    chance = random.Random(0)
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(min(len(content), 400))] = chance.randrange(256)
        try:
            assert decode(bytes(damaged)).mode == "RGB"
        except PictureError as error:
            kind = str(error).partition(":")[0]
            assert kind in {
                "truncated",
                "damaged",
                "not a picture",
                "too large",
                "no defined white",
            }


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size which holds no pixel at all."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + body + b"\0\0\0\0IDAT"


def test_decompression_bombs_are_refused_before_decoding() -> None:
    assert reason(png_header(20_000, 10_000)).startswith("too large: 20000 x 10000 pixels")
    gif = b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0) + b",\0\0\0\0"
    gif += struct.pack("<HHB", 60_000, 60_000, 0) + b"\x08"
    assert reason(gif).startswith("too large: ")
    assert reason(png_header(MAX_PIXELS + 1, 1)).startswith("too large: ")


def test_a_jpeg_of_endless_passes_is_refused() -> None:
    content = encoded(Image.new("RGB", (40, 40)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    repeated = content[:-2] + content[last:-2] * (MAX_SCANS - content.count(b"\xff\xda"))
    assert pixels(repeated + content[-2:]).shape == (40, 40, 3)
    assert reason(repeated + content[last:]) == (
        f"too large: {MAX_SCANS + 1} passes over its pixels, the limit is {MAX_SCANS}"
    )


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (1, 1)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_the_longest_and_the_least(format_: str, size: tuple[int, int]) -> None:
    if format_ == "WEBP":
        size = (min(size[0], 16_383), min(size[1], 16_383))  # which is all it can
    assert decode(encoded(Image.new("RGB", size, "white"), format_)).size == size


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("profile", [b"no profile", b"\0" * 128, b"\xff" * 4000])
def test_a_malformed_colour_profile_is_ignored(
    gradient: np.ndarray, format_: str, profile: bytes
) -> None:
    plain = encoded(Image.fromarray(gradient), format_)
    with_profile = encoded(Image.fromarray(gradient), format_, icc_profile=profile)
    assert np.array_equal(pixels(with_profile), pixels(plain))


@pytest.mark.parametrize(
    "chunk",
    [b"zzZz", b"npTc", b"fcTL", b"acTL", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"sRGB", b"tIME"],
)
def test_unusual_and_broken_chunks_are_ignored_or_a_skip(
    gradient: np.ndarray, chunk: bytes
) -> None:
    content = encoded(Image.fromarray(gradient), "PNG")
    body = chunk + b"\xffmade up\0\0"
    unusual = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    try:
        shown = pixels(content[:33] + unusual + content[33:])
    except PictureError as error:
        shown = gradient if str(error).startswith(("damaged: ", "truncated: ")) else None
    assert np.array_equal(shown, gradient)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_100_megapixels_are_decoded_without_a_warning(format_: str) -> None:
    content = encoded(Image.new("1", (10_000, 10_000), 1), format_)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode(content).getpixel((9_999, 9_999)) == (255, 255, 255)
    assert caught == []


def test_threads_get_the_same_pixels(photos: dict[str, Image.Image]) -> None:
    contents = [encoded(photos["small"], format_) for format_ in FORMATS] * 8
    expected = [pixels(content) for content in contents]
    together = threading.Barrier(8)

    def work(content: bytes) -> np.ndarray:
        together.wait(timeout=10)
        return pixels(content)

    with ThreadPoolExecutor(8) as pool:
        assert all(map(np.array_equal, pool.map(work, contents), expected))


def test_arrays(gradient: np.ndarray) -> None:
    assert np.array_equal(pixels(gradient), gradient)
    assert np.array_equal(pixels(gradient.swapaxes(0, 1)), gradient.swapaxes(0, 1))
    grey = gradient[..., 0]
    assert np.array_equal(pixels(grey), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)],
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    assert reason(array).startswith("not a picture: array ")
