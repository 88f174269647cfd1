"""JPEGs decoded at a fraction of their size: which, when, and how far off."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from featcache.errors import PictureError
from featcache.images.decode import decode
from featcache.images.loading import pixels_of_views
from featcache.images.transforms import to_pixels
from featcache.recipe import Preprocessing, Recipe, ResizeMode, View

MEAN = (0.5, 0.5, 0.5)
SHORTER = Preprocessing((56, 56), (64,), MEAN, MEAN, "shorter", "bicubic")
MODES: dict[ResizeMode, tuple[int, ...]] = {"shorter": (64,), "longer": (64,), "exact": (30, 90)}


def encoded(image: Image.Image, format_: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def turned(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.fixture(scope="module")
def large(photos: dict[str, Image.Image]) -> Image.Image:
    return photos["coffee 600 x 400"].resize((1200, 800), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1201, 803), (301, 201)),  # 803 / (2 * 64) = 6.3: a quarter
        ((1024, 1024), (128, 128)),
        ((1023, 1023), (256, 256)),
        ((256, 400), (128, 200)),
        ((255, 400), (255, 400)),
        ((40, 40), (40, 40)),
    ],
)
def test_both_sides_stay_at_least_twice_what_is_kept(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert decode(encoded(Image.new("RGB", size)), draft_for=SHORTER).size == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_orientation_turns_what_is_asked_too(
    large: Image.Image, mode: ResizeMode, orientation: int
) -> None:
    preprocessing = Preprocessing((16, 16), MODES[mode], MEAN, MEAN, mode)
    content = encoded(large, exif=turned(orientation))
    full, draft = decode(content), decode(content, draft_for=preprocessing)
    factor = full.width / draft.width
    assert round(factor) in (2, 4, 8)
    assert draft.height == pytest.approx(full.height / factor, abs=1)
    small = np.asarray(full.resize(draft.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(draft) - small).mean() < 2, "turned another way"


def test_it_is_pillows_draft(large: Image.Image) -> None:
    content = encoded(large, progressive=True)
    image = Image.open(io.BytesIO(content))
    image.draft("RGB", (2 * 96, 2 * 64))
    np.testing.assert_array_equal(decode(content, draft_for=SHORTER), image)


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF", "BMP"])
def test_other_formats_are_decoded_whole(large: Image.Image, format_: str) -> None:
    content = encoded(large, format_)
    assert decode(content, draft_for=SHORTER).tobytes() == decode(content).tobytes()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk(large: Image.Image, mode: str) -> None:
    content = encoded(large.convert(mode))
    draft = decode(content, draft_for=SHORTER)
    assert (draft.mode, draft.size) == ("RGB", (300, 200))
    difference = to_pixels(draft, SHORTER).astype(int) - to_pixels(decode(content), SHORTER)
    assert np.abs(difference).mean() < 2


def test_the_difference_is_small(photos: dict[str, Image.Image]) -> None:
    for name in ("coffee 600 x 400", "china 640 x 427", "astronaut 512 x 512"):
        content = encoded(photos[name], quality=92)
        ways = [
            pixels_of_views(content, Recipe("", "", SHORTER, decoder), (View(),), b"x")
            for decoder in ("pillow", "pillow-draft")
        ]
        difference = np.abs(np.subtract(*ways, dtype=int))
        assert 0 < difference.mean() < 3, name


@pytest.mark.parametrize("part", [0.002, 0.1, 0.5, 0.98])
def test_broken_files_have_the_same_reason(large: Image.Image, part: float) -> None:
    content = encoded(large)
    reasons = []
    for preprocessing in (None, SHORTER):
        with pytest.raises(PictureError) as caught:
            decode(content[: int(len(content) * part)], draft_for=preprocessing)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]


def test_what_is_too_narrow_is_still_refused() -> None:
    content = encoded(Image.new("RGB", (1, 60_000)))
    with pytest.raises(PictureError, match="too narrow"):
        pixels_of_views(content, Recipe("", "", SHORTER, "pillow-draft"), (View(),), b"x")
