"""Pictures as they are given to a transformer: paths, Pillow's images, or arrays of pixels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from featcache.errors import PictureError, SourceError
from featcache.images.decode import pixels_of
from featcache.images.files import read_file
from featcache.images.listing import Listing, Sample
from featcache.images.sources import content_hash
from featcache.naming import shown

Picture = str | np.ndarray
"""A file's path, or pixels (H, W) or (H, W, 3) uint8."""

_WANTED = (
    "give paths, PIL images or uint8 arrays (H, W, 3) as a list, or one uint8 array (N, H, W, 3)"
)


class GivenSource:
    """A source of pictures that someone holds, without labels; see `images.listing.Source`.

    Args:
        given: a list (or column) of paths, PIL images and uint8 arrays; or (N, H, W, 3) or
            (N, H, W) uint8.

    Raises:
        SourceError: it is something else.
    """

    def __init__(self, given: Any) -> None:
        self.name = "given"
        self.locator = {"kind": "given", "location": "pictures"}
        self._pictures = _pictures(given)

    def __len__(self) -> int:
        return len(self._pictures)

    @cached_property
    def contents(self) -> list[bytes]:
        """Content hash of each picture.

        Raises:
            PictureError: a file cannot be read; names it.
        """
        return [self._content(number) for number in range(len(self))]

    @cached_property
    def paths(self) -> list[str]:
        """Name of each picture: its path, or its content."""
        return [
            picture if isinstance(picture, str) else f"array {self.contents[number].hex()[:16]}"
            for number, picture in enumerate(self._pictures)
        ]

    def scan(self) -> Listing:
        """All pictures, in the order given."""
        samples = [Sample(path, (), None, None, None) for path in self.paths]
        return Listing(samples, {}, [], ())

    def read(self, path: str) -> bytes | np.ndarray:
        """A file's bytes, or pixels."""
        picture = self._by_path[path]
        return read_file(".", picture) if isinstance(picture, str) else picture

    @cached_property
    def _by_path(self) -> dict[str, Picture]:
        return dict(zip(self.paths, self._pictures, strict=True))

    def _content(self, number: int) -> bytes:
        picture = self._pictures[number]
        if not isinstance(picture, str):
            return content_hash(picture)
        try:
            return content_hash(read_file(".", picture))
        except PictureError as error:
            raise PictureError(f"picture {number}, {shown(picture)}: {error}") from error


def _pictures(given: Any) -> list[Picture]:
    if isinstance(given, (str, os.PathLike, bytes, Image.Image)):
        raise SourceError(f"a single {type(given).__name__}: {_WANTED}")
    if not isinstance(given, (list, tuple)):
        given = _column(given)
    return [_picture(one, number) for number, one in enumerate(given)]


def _column(given: Any) -> Iterable[Any]:
    """The pictures of an array, of a frame's column, or of anything numpy makes an array of."""
    array = np.asarray(given)
    if array.dtype.kind in "OUT":
        if array.ndim == 2 and array.shape[1] == 1:
            return array[:, 0].tolist()
        if array.ndim == 1:
            return array.tolist()
    elif array.dtype == np.uint8 and _are_pictures(array.shape):
        return list(array)
    raise SourceError(f"an array {array.shape} {array.dtype} is no list of pictures: {_WANTED}")


def _are_pictures(shape: Sequence[int]) -> bool:
    """Whether pixels are of several pictures; (H, W, 3) is taken for a single one."""
    return (len(shape) == 4 and shape[3] == 3) or (len(shape) == 3 and shape[2] != 3)


def _picture(one: Any, number: int) -> Picture:
    if isinstance(one, (str, os.PathLike)):
        return os.fsdecode(one)
    if isinstance(one, Image.Image):
        return _of_image(one, number)
    array = np.asarray(one)
    grey_or_rgb = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not grey_or_rgb or not array.size:
        what = f"array {array.shape} {array.dtype}" if array.ndim else repr(one)[:80]
        raise SourceError(f"picture {number} is {what}: {_WANTED}")
    return np.ascontiguousarray(array)


def _of_image(image: Image.Image, number: int) -> np.ndarray:
    try:
        return pixels_of(image)
    except PictureError as error:
        raise PictureError(f"picture {number}, {image}: {error}") from error
