"""A view is what its policy, seed, content and number say, whoever computes it and beside what."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from featcache.errors import AugmentationError, PictureError
from featcache.images.augmentation import transform_of
from featcache.images.policies import canonical_policy, tta_views, views_of
from featcache.images.transforms import to_pixels
from featcache.images.views import view_pixels
from featcache.recipe import TTA, Preprocessing, View

RECIPE = Preprocessing((40, 56), (64,), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), interpolation="bicubic")
RANDOM = ("standard", "randaugment:2,9", "trivial", TTA)
CONTENT = bytes(range(32))


@pytest.fixture(scope="module")
def cat(photos: dict[str, Image.Image]) -> Image.Image:
    return photos["chelsea 451 x 300"]


def test_the_plain_view_is_the_evaluation_transform(photos: dict[str, Image.Image]) -> None:
    for photo in photos.values():
        plain = view_pixels(photo, RECIPE, View(), CONTENT)
        np.testing.assert_array_equal(plain, to_pixels(photo, RECIPE))


def test_a_flip_is_the_plain_view_in_a_mirror(photos: dict[str, Image.Image]) -> None:
    (_, flipped) = views_of("flip", 2, seed=7)
    for photo in photos.values():
        mirrored = np.array(Image.fromarray(to_pixels(photo, RECIPE)).transpose(0))
        np.testing.assert_array_equal(view_pixels(photo, RECIPE, flipped, CONTENT), mirrored)


@pytest.mark.parametrize("policy", RANDOM)
def test_a_view_has_the_recipes_size_whatever_the_picture(
    policy: str, photos: dict[str, Image.Image]
) -> None:
    for interpolation in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"):
        recipe = replace(RECIPE, interpolation=interpolation)
        for name in ("a tower", "one pixel high", "small"):
            pixels = view_pixels(photos[name], recipe, View(policy, 0, 1), CONTENT)
            assert (pixels.shape, pixels.dtype) == ((40, 56, 3), np.uint8)


@pytest.mark.parametrize("policy", RANDOM)
def test_policy_seed_content_and_number_alone_decide(policy: str, cat: Image.Image) -> None:
    view = View(policy, 3, 1)
    once = view_pixels(cat, RECIPE, view, CONTENT)
    torch.manual_seed(99)
    np.testing.assert_array_equal(view_pixels(cat, RECIPE, view, CONTENT), once)
    for other, content in [
        (replace(view, number=2), CONTENT),
        (replace(view, seed=4), CONTENT),
        (view, CONTENT[::-1]),
    ]:
        assert not np.array_equal(view_pixels(cat, RECIPE, other, content), once)


@pytest.mark.parametrize("policy", RANDOM)
def test_no_global_generator_moves(policy: str, cat: Image.Image) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for number in range(1, 9):
        view_pixels(cat, RECIPE, View(policy, 0, number), CONTENT)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_threads_and_order_change_no_pixel(cat: Image.Image) -> None:
    views = [View(policy, 0, number) for policy in RANDOM for number in range(1, 13)]
    alone = [view_pixels(cat, RECIPE, view, CONTENT) for view in views]
    with ThreadPoolExecutor(8) as threads:
        shuffled = random.Random(0).sample(range(len(views)), len(views))
        beside = threads.map(lambda i: view_pixels(cat, RECIPE, views[i], CONTENT), shuffled)
        for i, pixels in zip(shuffled, beside, strict=True):
            np.testing.assert_array_equal(pixels, alone[i])


@pytest.mark.parametrize("policy", RANDOM)
def test_a_view_is_what_torchvision_draws_from_the_same_generator(
    policy: str, cat: Image.Image
) -> None:
    """Our own generator stands for torch's global one, draw by draw."""
    import hashlib

    seed = hashlib.sha256(b"featcache view 5 1 " + CONTENT).digest()[:8]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(seed, "little", signed=True))
        expected = np.array(transform_of(policy, RECIPE)(cat))
    np.testing.assert_array_equal(view_pixels(cat, RECIPE, View(policy, 5, 1), CONTENT), expected)


def test_what_a_policy_does_is_told_by_its_name() -> None:
    """The name stands in keys: what changes here must take another name."""
    crop = (
        "RandomResizedCrop(size=(40, 56), scale=(0.35, 1.0), ratio=(0.75, 1.3333), "
        "interpolation=bicubic, antialias=True)"
    )
    mirror, fill = "RandomHorizontalFlip(p=0.5)", "fill=[128, 102, 76]"
    warp = "interpolation=InterpolationMode.BICUBIC"
    more = {
        "standard": [
            "RandomAffine(degrees=[-10.0, 10.0], shear=[-10.0, 10.0], interpolation=bicubic, "
            f"{fill})",
            "ColorJitter(brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.7, 1.3), "
            "hue=(-0.05, 0.05))",
        ],
        "randaugment:3,7": [
            f"RandAugment(num_ops=3, magnitude=7, num_magnitude_bins=31, {warp}, {fill})"
        ],
        "trivial": [f"TrivialAugmentWide(num_magnitude_bins=31, {warp}, {fill})"],
        TTA: [],
    }
    for policy, added in more.items():
        done = [line.strip() for line in repr(transform_of(policy, RECIPE)).splitlines()[1:-1]]
        assert done == [crop, mirror, *added]


def test_two_spellings_of_a_policy_are_one() -> None:
    assert canonical_policy(" RandAugment:2, 9") == canonical_policy("randaugment:02,009")
    assert canonical_policy("randaugment") == "randaugment:2,9"
    assert canonical_policy("Standard") == "standard"
    assert views_of("flip", 2, seed=1) == views_of("FLIP", 2, seed=2)  # nothing is drawn


@pytest.mark.parametrize(
    "policy", ["mixup", "", "randaugment:", "randaugment:2", "randaugment:2,x", "tta", "flip:1"]
)
def test_an_unknown_policy_is_refused_with_those_there_are(policy: str) -> None:
    with pytest.raises(AugmentationError) as refused:
        canonical_policy(policy)
    assert repr(policy) in str(refused.value)
    assert "none, flip, standard, randaugment:N,M, trivial" in str(refused.value)


@pytest.mark.parametrize("policy", ["randaugment:0,9", "randaugment:2,31"])
def test_numbers_that_randaugment_has_not_are_refused(policy: str) -> None:
    with pytest.raises(AugmentationError, match=rf"{policy}.*N from 1.*M from 0 to 30"):
        canonical_policy(policy)


@pytest.mark.parametrize(("policy", "count"), [("none", 2), ("flip", 3), ("standard", 0)])
def test_more_views_than_a_policy_has_are_refused(policy: str, count: int) -> None:
    with pytest.raises(
        AugmentationError, match=rf"{count} views by '{policy}': give .*; the plain picture is one"
    ):
        views_of(policy, count)


def test_senseless_seeds_and_crops_are_refused() -> None:
    with pytest.raises(AugmentationError, match="augment seed -1: give one from 0 to"):
        views_of("standard", 2, -1)
    with pytest.raises(
        AugmentationError, match="tta -1, seed 0: give how many random crops, from 0"
    ):
        tta_views(-1)
    assert tta_views(2, 5) == (View(TTA, 5, 1), View(TTA, 5, 2))


@pytest.mark.parametrize("policy", ["none", "flip", *RANDOM])
def test_a_picture_too_narrow_has_no_view_at_all(policy: str) -> None:
    line = Image.new("RGB", (30_000, 1))
    recipe = replace(RECIPE, resize=(400,))
    with pytest.raises(PictureError, match="too narrow"):
        view_pixels(line, recipe, View(policy, 0, int(policy != "none")), CONTENT)
