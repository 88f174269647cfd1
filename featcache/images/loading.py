"""From a picture's content to the pixels of its views, alone or many in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from PIL import Image

from featcache.errors import PictureError
from featcache.images.ahead import in_order
from featcache.images.clock import Clock
from featcache.images.decode import decoded
from featcache.images.memory import reused_memory
from featcache.images.views import view_pixels
from featcache.recipe import DRAFT, Decoder, Preprocessing, Recipe, View

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Kind:
    """What is made of a picture: views of it, by a decoder and a preprocessing."""

    preprocessing: Preprocessing
    decoder: Decoder
    views: tuple[View, ...]

    @classmethod
    def of(cls, recipe: Recipe, views: Iterable[View]) -> Self:
        """Views as a recipe says."""
        return cls(recipe.preprocessing, recipe.decoder, tuple(views))


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
    (made,) = pixels_of_kinds(content, [Kind.of(recipe, views)], name, clock)
    if isinstance(made, Exception):
        raise made
    return made


Made = np.ndarray | PictureError | MemoryError


def pixels_of_kinds(
    content: bytes | np.ndarray, kinds: Sequence[Kind], name: bytes, clock: Clock | None = None
) -> list[Made]:
    """(V, H, W, 3) uint8 of each kind, or what `pixels_of_views` raises, from one decoding.

    Drafts are decoded kind by kind, since each preprocessing decides how large its draft is.

    Args:
        content: see `pixels_of_views`.
        kinds: what is asked for.
        name: of the content.
        clock: of the stages.
    """
    drafts = [[kind] for kind in kinds if kind.decoder == DRAFT]
    alike = drafts if len(drafts) == len(kinds) else [kinds]
    return [made for some in alike for made in _decoded_once(content, some, name, clock)]


def _decoded_once(
    content: bytes | np.ndarray, kinds: Sequence[Kind], name: bytes, clock: Clock | None
) -> list[Made]:
    stage = clock.stage if clock else nullcontext
    draft_for = kinds[0].preprocessing if kinds[0].decoder == DRAFT else None
    with ExitStack() as held:
        try:
            with stage("decode"):
                image = held.enter_context(decoded(content, draft_for=draft_for))
        except (PictureError, MemoryError) as error:
            return [error] * len(kinds)
        with stage("transform"):
            return [_views(image, kind, name) for kind in kinds]


def _views(image: Image.Image, kind: Kind, name: bytes) -> Made:
    try:
        return np.stack([view_pixels(image, kind.preprocessing, v, name) for v in kind.views])
    except (PictureError, MemoryError) as error:
        return error


def pictures_in_order(
    load_one: Callable[[Item], Loaded], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Loaded, None, None]:
    """`in_order` for what decodes pictures: the memory of large ones is used again."""
    with reused_memory(threads):
        yield from in_order(load_one, items, threads=threads, ahead=ahead)
