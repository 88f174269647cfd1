"""Pillow's modes become 8-bit RGB as a person sees it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from PIL import Image

from featcache.errors import PictureError
from featcache.images.decode import decode

WHITE = [255, 255, 255]


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def pixels(content: bytes) -> np.ndarray:
    image = decode(content)
    assert image.mode == "RGB"
    return np.asarray(image)


def png(width: int, rows: list[bytes], depth: int, colour: int, **chunks: bytes) -> bytes:
    """A PNG written by hand: bit depth and colour type as in its specification, 11.2.1."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    extra = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def grey_tiff(width: int, row: bytes, bits: int, photometric: int) -> bytes:
    """A little-endian TIFF of one row, written by hand."""
    short, long = 3, 4
    entries = [
        (256, long, width),
        (257, long, 1),
        (258, short, bits),
        (259, short, 1),
        (262, short, photometric),
        (273, long, 8),
        (277, short, 1),
        (278, long, 1),
        (279, long, len(row)),
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(row)) + row + directory + b"\0\0\0\0"


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_on_white(format_: str) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, colour in enumerate([(255, 0, 0, 255), (0, 0, 255, 0), (0, 0, 0, 51)]):
        image.putpixel((x, 0), colour)
    options = {"lossless": True} if format_ == "WEBP" else {}
    assert pixels(encoded(image, format_, **options))[0].tolist() == [[255, 0, 0], WHITE, [204] * 3]


def test_grey_with_alpha() -> None:
    image = Image.new("LA", (2, 1))
    image.putpixel((0, 0), (100, 255))
    image.putpixel((1, 0), (100, 0))
    for format_ in ("PNG", "TIFF"):
        assert pixels(encoded(image, format_))[0].tolist() == [[100] * 3, WHITE]


@given(arrays(np.uint8, (4, 5, 4)))
def test_alpha_is_a_weighted_mean_with_white(rgba: np.ndarray) -> None:
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(pixels(encoded(Image.fromarray(rgba), "PNG")) - expected).max() <= 1


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 51])])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 0])
    image.putdata([0, 1, 2])
    shown = pixels(encoded(image, "PNG", transparency=transparency))[0].tolist()
    assert shown[:2] == [[255, 0, 0], WHITE]
    assert shown[2] == ([0] * 3 if transparency == 1 else [204] * 3)


def test_transparent_gif() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    assert pixels(encoded(image, "GIF", transparency=1))[0].tolist() == [[255, 0, 0], WHITE]


def test_plain_palette_grey_and_one_bit() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    for format_ in ("PNG", "GIF", "BMP", "TIFF"):
        assert pixels(encoded(image, format_))[0].tolist() == [[255, 0, 0], [0, 255, 0]]
        assert pixels(encoded(Image.new("L", (1, 1), 7), format_)).tolist() == [[[7] * 3]]
        assert pixels(encoded(Image.new("1", (1, 1), 1), format_)).tolist() == [[WHITE]]


def test_one_transparent_colour_in_rgb_and_grey() -> None:
    rgb = png(2, [bytes([1, 2, 3, 4, 5, 6])], 8, 2, tRNS=struct.pack(">HHH", 1, 2, 3))
    assert pixels(rgb)[0].tolist() == [WHITE, [4, 5, 6]]
    grey = png(2, [bytes([9, 7])], 8, 0, tRNS=struct.pack(">H", 9))
    assert pixels(grey)[0].tolist() == [WHITE, [7] * 3]
    one_bit = png(2, [b"\x40"], 1, 0, tRNS=struct.pack(">H", 0))
    assert pixels(one_bit)[0].tolist() == [WHITE, WHITE]


@pytest.mark.parametrize(("depth", "row"), [(2, b"\x1b"), (4, b"\x01\x23")])
def test_one_transparent_colour_in_few_bits_of_grey(depth: int, row: bytes) -> None:
    step = 255 // (2**depth - 1)
    shown = pixels(png(4, [row], depth, 0, tRNS=struct.pack(">H", 1)))[0, :, 0].tolist()
    assert shown == [0, 255, 2 * step, 3 * step]


def test_one_transparent_colour_in_16_bits() -> None:
    grey = png(2, [struct.pack(">HH", 1000, 30000)], 16, 0, tRNS=struct.pack(">H", 1000))
    assert pixels(grey)[0, :, 0].tolist() == [255, 117]
    rgb = png(
        2,
        [struct.pack(">6H", 1000, 2000, 3000, 0, 0, 0)],
        16,
        2,
        tRNS=struct.pack(">3H", 1000, 2000, 3000),
    )
    assert pixels(rgb)[0].tolist() == [WHITE, [0, 0, 0]]


def test_16_bit_rgb_keeps_the_high_byte() -> None:
    content = png(1, [struct.pack(">HHH", 0xFFFF, 0x8000, 0x00FF)], 16, 2)
    assert pixels(content)[0].tolist() == [[255, 128, 0]]


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "TIFF big-endian"])
def test_16_bit_grey_is_scaled_and_rounded(format_: str) -> None:
    samples = np.array([[0, 128, 129, 257, 1000, 32768, 65406, 65407, 65535]], np.uint16)
    if format_ == "TIFF big-endian":
        image = Image.frombytes("I;16B", (samples.size, 1), samples.astype(">u2").tobytes())
    else:
        image = Image.fromarray(samples)
    shown = pixels(encoded(image, format_.split()[0]))[0, :, 0]
    assert shown.tolist() == [round(v / 257) for v in samples[0].tolist()]


@given(arrays(np.uint16, (3, 4)))
def test_any_16_bit_grey(samples: np.ndarray) -> None:
    shown = pixels(encoded(Image.fromarray(samples), "PNG"))
    assert np.array_equal(shown[..., 0], np.rint(samples / 257))
    assert np.array_equal(shown[..., 0], shown[..., 2])


def test_deep_tiffs_with_white_at_zero_or_twelve_bits() -> None:
    deep = struct.pack("<3H", 0, 257, 65535)
    assert pixels(grey_tiff(3, deep, 16, 1))[0, :, 0].tolist() == [0, 1, 255]
    assert pixels(grey_tiff(3, deep, 16, 0))[0, :, 0].tolist() == [255, 254, 0]
    twelve = bytes.fromhex("000 800 fff 010".replace(" ", ""))
    assert pixels(grey_tiff(4, twelve, 12, 1))[0, :, 0].tolist() == [0, 128, 255, 1]


def test_32_bit_integers_within_16_bits() -> None:
    image = Image.fromarray(np.array([[0, 257, 65535]], np.int32))
    assert pixels(encoded(image, "TIFF"))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("samples", "are"),
    [
        (np.array([[0.5]], np.float32), "32-bit float samples"),
        (np.array([[65536]], np.int32), "integer samples beyond 16 bits or below zero"),
        (np.array([[-1]], np.int32), "integer samples beyond 16 bits or below zero"),
    ],
)
def test_samples_without_a_white_are_refused(samples: np.ndarray, are: str) -> None:
    with pytest.raises(PictureError, match=f"no defined white: {are}; convert it to 8-bit"):
        decode(encoded(Image.fromarray(samples), "TIFF"))


# Little ink, so that the naive formula is exact enough: 255 - (C + K), ...
INK = (10, 60, 110, 20)
PAPER = [228, 180, 134]


def without_adobe(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    assert jpeg[start + 4 : start + 9] == b"Adobe"
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def test_cmyk() -> None:
    image = Image.new("CMYK", (8, 8), INK)
    expected = np.asarray(image.convert("RGB"))[0, 0]
    assert np.abs(expected.astype(int) - PAPER).max() <= 4
    adobe = encoded(image, "JPEG", quality=100)  # Pillow writes Adobe's mark, and inverted ink
    assert np.abs(pixels(adobe)[0, 0].astype(int) - expected).max() <= 2
    assert np.array_equal(pixels(encoded(image, "TIFF"))[0, 0], expected)


def test_cmyk_without_adobes_mark_is_not_inverted() -> None:
    inverted = Image.new("CMYK", (8, 8), tuple(255 - ink for ink in INK))
    plain = without_adobe(encoded(inverted, "JPEG", quality=100))
    expected = np.asarray(Image.new("CMYK", (1, 1), INK).convert("RGB"))[0, 0]
    assert np.abs(pixels(plain)[0, 0].astype(int) - expected).max() <= 2


def test_ycck_jpeg() -> None:
    stored = (100, 128, 200, 255)  # Y, Cb, Cr, and no black as Adobe inverts it
    image = Image.new("CMYK", (8, 8), tuple(255 - value for value in stored))
    content = bytearray(encoded(image, "JPEG", quality=100))
    content[content.index(b"Adobe") + 11] = 2  # transform: YCCK
    # R, G, B = Y + 1.402 (Cr - 128), Y - 0.714 (Cr - 128), Y = 201, 49, 100, and C = 255 - R, ...
    # is what Adobe stores inverted: so much of the paper is seen.
    assert np.abs(pixels(bytes(content))[0, 0].astype(int) - [54, 206, 155]).max() <= 3
