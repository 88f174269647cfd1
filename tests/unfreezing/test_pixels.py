"""Rows of pixels: what the engine sees, made anew at every asking, and never of another picture."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import functional as F  # noqa: N812 (its name everywhere)

from featcache.backbones.published import scaled
from featcache.engines import make_engine
from featcache.errors import AugmentationError, SourceMissingError
from featcache.images.transforms import to_pixels
from featcache.images.views import view_pixels
from featcache.recipe import View
from featcache.training.examples import Examples
from featcache.training.feeding import Feed
from featcache.unfreezing.pixels import PixelRows, fresh_views, pixels_of


def photo(case, picture: int) -> Image.Image:
    path = case.cache.index.paths[int(case.data.rows[picture])]
    return Image.open(case.pictures / path).convert("RGB")


def expected(case, picture: int, view: View, side: int = 32) -> np.ndarray:
    """By torchvision's own operations."""
    preprocessing = scaled(case.backbone.preprocessing, side)
    content = case.cache.index.hashes[case.data.rows[picture]].tobytes()
    pixels = view_pixels(photo(case, picture), preprocessing, view, content)
    return F.normalize(F.to_tensor(pixels), preprocessing.mean, preprocessing.std).numpy()


@pytest.mark.parametrize("side", [32, 24])
def test_rows_are_torchvisions_and_what_the_engine_sees(case, side) -> None:
    preprocessing = scaled(case.backbone.preprocessing, side)
    rows = pixels_of(case.cache, case.data, preprocessing, (View(),))
    assert rows.shape == (len(case.data), 3, side, side)
    wanted = np.array([7, 0, 30, 7])
    found = rows[wanted]
    assert found.dtype == rows.dtype == np.float32
    assert found.flags.c_contiguous
    for row, picture in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(row, expected(case, int(picture), View(), side))
    pixels = np.stack([to_pixels(photo(case, int(p)), preprocessing) for p in wanted])
    with make_engine("auto", nn.Identity(), preprocessing, device="cpu") as engine:
        np.testing.assert_array_equal(engine.run(pixels), found)
    assert rows[np.empty(0, np.int64)].shape == (0, 3, side, side)


def test_every_view_is_that_of_the_picture_and_its_number(case) -> None:
    views = fresh_views("standard", 3, 5, 2)
    assert views == (View(), View("standard", 3, 6), View("standard", 3, 7))
    rows = pixels_of(case.cache, case.data, case.backbone.preprocessing, views)
    assert rows.positions.shape == (len(case.data), 3)
    for picture, view in ((0, 0), (4, 1), (35, 2)):
        (row,) = rows[rows.positions[picture, view][None]]
        np.testing.assert_array_equal(row, expected(case, picture, views[view]))


def test_views_that_there_are() -> None:
    assert fresh_views("none", 0, 0, 9) == (View(),)
    assert fresh_views("flip", 4, 6, 9) == (View(), View("flip", 0, 1))
    first, then = fresh_views("trivial", 0, 0, 4), fresh_views("trivial", 0, 4, 4)
    assert not set(first[1:]) & set(then[1:]), "a later size sees the views of an earlier one"
    assert len(first) == len(then) == 5
    with pytest.raises(AugmentationError):
        fresh_views("mirror", 0, 0, 1)


def test_epochs_see_other_views_and_see_them_again_when_repeated(case) -> None:
    n, epochs = len(case.data), 3
    views = fresh_views("standard", 0, 0, epochs)
    rows = pixels_of(case.cache, case.data, case.backbone.preprocessing, views)
    data = Examples(rows, rows.positions, case.data.targets, made=True)

    def seen(seed: int, epoch: int) -> np.ndarray:
        held = np.empty((n, *data.row_shape), np.float32)
        with closing(Feed(data, 10, 2 << 30, seed).epoch(epoch)) as batches:
            for batch in batches:
                held[batch.pictures] = batch.activations
        return held

    found = [seen(0, epoch) for epoch in range(1, epochs + 1)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (found[a] != found[b]).any(axis=(1, 2, 3)).all(), "a picture looked the same twice"
    np.testing.assert_array_equal(seen(0, 2), found[1])
    assert (seen(1, 2) != found[1]).any()


def moved(rows: PixelRows, folder: Path) -> PixelRows:
    from featcache.images.sources import open_source

    return replace(rows, source=open_source(folder))


def test_another_picture_at_its_place_is_refused(case, tmp_path) -> None:
    rows = pixels_of(case.cache, case.data, case.backbone.preprocessing, (View(),))
    shutil.copytree(case.pictures, tmp_path / "p")
    rows = moved(rows, tmp_path / "p")
    paths = [tmp_path / "p" / rows.slots[i].path for i in (0, 1)]
    before = rows[np.arange(3)]
    paths[0].write_bytes(paths[1].read_bytes())
    with pytest.raises(SourceMissingError, match=rf"{rows.slots[0].path}.*changed"):
        rows[np.arange(3)]
    paths[0].unlink()
    with pytest.raises(SourceMissingError, match=rf"{rows.slots[0].path}.*missing"):
        rows[np.arange(3)]
    np.testing.assert_array_equal(rows[np.array([1, 2])], before[1:])


def test_pixels_of_a_folder_that_is_gone(case, tmp_path) -> None:
    shutil.copytree(case.cache.folder, tmp_path / "c")
    shutil.copytree(case.pictures, tmp_path / "p")
    from featcache import api
    from featcache.store.cache import Cache

    api.extract(tmp_path / "p", out=tmp_path / "d", backbone="timm/test_resnet", weights="random")
    shutil.rmtree(tmp_path / "p")
    cache = Cache(tmp_path / "d")
    with pytest.raises(SourceMissingError):
        pixels_of(cache, case.data, case.backbone.preprocessing, (View(),))


def test_torchs_generator_stays_where_it_was(case) -> None:
    views = fresh_views("randaugment:2,9", 0, 0, 1)
    rows = pixels_of(case.cache, case.data, case.backbone.preprocessing, views)
    before = torch.get_rng_state()
    first, again = rows[rows.positions[:4, 1]], rows[rows.positions[:4, 1]]
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, again)
