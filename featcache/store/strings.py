"""Texts as one blob with offsets: fixed-size types only, file names kept byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

_UTF8, _KEEP = "utf-8", "surrogateescape"


class Strings(Sequence[str]):
    """An immutable list of texts, decoded one by one when asked for.

    Args:
        blob: (bytes,) uint8, the texts' bytes one after the other, in UTF-8; bytes of file names
            that are not UTF-8 are kept as `os.fsdecode` keeps them (surrogates).
        offsets: (n + 1,) int64; text i is `blob[offsets[i]:offsets[i + 1]]`.
    """

    def __init__(self, blob: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        self.blob = blob
        self.offsets = offsets

    @classmethod
    def checked(cls, blob: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> Self:
        """Take what was read from a file.

        Raises:
            ValueError: they are no texts.
        """
        fits = blob.dtype == np.uint8 and offsets.dtype == np.int64
        if not fits or blob.ndim != 1 or not are_offsets(offsets, len(blob)):
            raise ValueError("texts whose offsets do not fit")
        return cls(blob, offsets)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Strings:
        """Encode texts."""
        encoded = [text.encode(_UTF8, _KEEP) for text in texts]
        lengths = np.fromiter((len(e) for e in encoded), np.int64, len(encoded))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self.blob[self.offsets[i] : self.offsets[i + 1]].tobytes().decode(_UTF8, _KEEP)

    def __iter__(self) -> Iterator[str]:
        whole, bounds = self.blob.tobytes(), self.offsets.tolist()
        return (whole[a:b].decode(_UTF8, _KEEP) for a, b in pairwise(bounds))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Strings)
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.blob, other.blob)
        )

    __hash__ = None  # type: ignore[assignment]


def are_offsets(offsets: npt.NDArray[Any], size: int) -> bool:
    """Whether (n + 1,) whole numbers cut something of a size in n parts, one after the other."""
    ends = offsets.ndim == 1 and len(offsets) > 0 and (offsets[0], offsets[-1]) == (0, size)
    return bool(ends and (offsets[1:] >= offsets[:-1]).all())
