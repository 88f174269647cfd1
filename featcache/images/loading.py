"""From a picture's content to the pixels of its views, alone or many in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from typing import TypeVar

import numpy as np

from featcache.images.ahead import in_order
from featcache.images.clock import Clock
from featcache.images.decode import decoded
from featcache.images.memory import reused_memory
from featcache.images.views import view_pixels
from featcache.recipe import DRAFT, Recipe, View

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def pixels_of_views(
    content: bytes | np.ndarray,
    recipe: Recipe,
    views: Sequence[View],
    name: bytes,
    clock: Clock | None = None,
) -> np.ndarray:
    """Views of a picture, decoded once as a recipe says.

    Args:
        content: a file's bytes, or an array; see `decoded`.
        recipe: decoder and preprocessing.
        views: which ones.
        name: `content_hash` of the content.
        clock: of the stages "decode" and "transform".

    Returns:
        (V, H, W, 3) uint8.

    Raises:
        PictureError: it can't be decoded, or is too narrow; the text is the reason.
        MemoryError: there is too little memory just now.
    """
    preprocessing = recipe.preprocessing
    draft_for = preprocessing if recipe.decoder == DRAFT else None
    stage = clock.stage if clock else nullcontext
    with ExitStack() as held:
        with stage("decode"):
            image = held.enter_context(decoded(content, draft_for=draft_for))
        with stage("transform"):
            return np.stack([view_pixels(image, preprocessing, view, name) for view in views])


def pictures_in_order(
    load_one: Callable[[Item], Loaded], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Loaded, None, None]:
    """`in_order` for what decodes pictures: the memory of large ones is used again."""
    with reused_memory(threads):
        yield from in_order(load_one, items, threads=threads, ahead=ahead)
