"""Activations in batches: shuffled, within a memory budget, read ahead by a thread.

Where all rows fit the budget they are read once and kept, and each epoch is one uniform shuffle.
Where they do not, an epoch deals *blocks* of neighbouring pictures in random order, so that the
disk is read in stretches, and shuffles the pictures of a *window* of many blocks, which is what
memory holds. Rows of a size at which a stretch is one row are shuffled as well as by one shuffle.

The order is drawn before anything is read: neither threads nor their luck can change a batch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from featcache.images.ahead import in_order
from featcache.training.examples import Examples, Indexable

Ints = npt.NDArray[np.int64]
Item = TypeVar("Item")
Read = TypeVar("Read")

_STRETCH = 256 << 10
"""Bytes of neighbouring rows that are read together, at least; one row may be more."""

_ALIVE = 4
"""Windows in memory at once: in use, read ahead, being read, and the reader's own copy of that."""

_AHEAD = 2
"""Batches read ahead of the one in use, where a window is a batch."""

_DRAW_VIEWS, _DRAW_ORDER = 1, 2
"""What a seed is used for."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some pictures: pictures (b,) int64, and their activations (b, *shape) as stored."""

    pictures: Ints
    activations: npt.NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How an epoch is dealt.

    Attributes:
        edges: of batches among n pictures, from 0 to n.
        window: batches a window; block: neighbouring pictures a block.
    """

    edges: tuple[int, ...]
    window: int
    block: int

    def windows(self) -> Iterator[tuple[int, ...]]:
        """Edges of each window's batches."""
        last = len(self.edges) - 1
        for first in range(0, last, self.window):
            yield self.edges[first : min(first + self.window, last) + 1]


class Feed:
    """Batches of examples, epoch by epoch.

    Args:
        examples: what is read.
        batch_size: pictures a batch, at most; an epoch's batches differ by one at most.
        memory: bytes of activations to hold at once, about; never less than a few batches.
        seed: of order and views.
    """

    def __init__(self, examples: Examples, batch_size: int, memory: int, seed: int = 0) -> None:
        self._examples, self._seed = examples, seed
        self._views: Ints = examples.views
        self._rows: Indexable = examples.activations
        edges = batch_edges(len(examples), batch_size)
        if not self._fits(memory):
            self._layout = _windowed(edges, examples.row_bytes, memory)
        else:
            self._layout = Layout(edges, window=1, block=1)

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return len(self._layout.edges) - 1

    def epoch(self, number: int) -> Generator[Batch, None, None]:
        """Every picture once, in an order and with views that seed and number (from 1) decide."""
        rng = np.random.default_rng([self._seed, _DRAW_ORDER, number])
        n, V = self._views.shape  # noqa: N806 - the field's letter
        order = _by_place(self._views)[epoch_order(n, self._layout, rng)]
        view = views_drawn(n, V, self._seed, number)
        yield from self._batches(order, self._views[np.arange(n), view])

    def in_order(self) -> Generator[Batch, None, None]:
        """Every picture once with its plain view, in the order given."""
        yield from self._batches(np.arange(len(self._views)), self._views[:, 0])

    def _fits(self, memory: int) -> bool:
        """Whether rows are at hand at any place; reads and keeps those that can be kept."""
        if self._examples.made or type(self._rows) is np.ndarray:
            return True
        wanted, places = np.unique(self._views, return_inverse=True)
        if len(wanted) * self._examples.row_bytes > memory:
            return False
        self._rows = _kept(self._examples, wanted)
        self._views = places.reshape(self._views.shape)
        return True

    def _batches(self, order: Ints, position: Ints) -> Generator[Batch, None, None]:
        windows = list(self._layout.windows())
        ahead = 1 if self._layout.window > 1 else _AHEAD

        def read(edges: Sequence[int]) -> _Window:
            return self._read(edges, order[edges[0] : edges[-1]], position)

        for window in in_order(read, windows, threads=1, ahead=ahead):
            yield from window.batches()

    def _read(self, edges: Sequence[int], pictures: Ints, position: Ints) -> _Window:
        """A window's rows, read front to back."""
        wanted = position[pictures]
        front_to_back = np.argsort(wanted, kind="stable")
        held = self._rows[wanted[front_to_back]].reshape(-1, *self._examples.row_shape)
        return _Window(edges, pictures, held, np.argsort(front_to_back))


@dataclass(frozen=True, eq=False)
class _Window:
    """Rows of some batches: those of picture i are held[place[i]]."""

    edges: Sequence[int]
    pictures: Ints
    held: npt.NDArray[Any]
    place: Ints

    def batches(self) -> Iterator[Batch]:
        """Each of its batches, copied out when it is asked for."""
        for first, end in pairwise(self.edges):
            some = slice(first - self.edges[0], end - self.edges[0])
            yield Batch(self.pictures[some], self.held[self.place[some]])


def batch_edges(n: int, batch_size: int) -> tuple[int, ...]:
    """Edges of as few batches as hold n pictures, all of one size but for one picture."""
    count = max(1, -(-n // batch_size))
    return tuple(n * i // count for i in range(count + 1))


def epoch_order(n: int, layout: Layout, rng: np.random.Generator) -> Ints:
    """(n,) every number below n once: blocks in random order, shuffled within windows."""
    if layout.block == 1:
        return rng.permutation(n)
    starts = rng.permutation(np.arange(0, n, layout.block))
    order = np.concatenate([np.arange(s, min(s + layout.block, n)) for s in starts])
    for edges in layout.windows():
        rng.shuffle(order[edges[0] : edges[-1]])
    return order


def views_drawn(n: int, V: int, seed: int, epoch: int) -> Ints:  # noqa: N803 - the field's letter
    """(n,) which of its V views each picture gives in an epoch; epochs 1 to V take each once."""
    turn, step = divmod(epoch - 1, V)
    rng = np.random.default_rng([seed, _DRAW_VIEWS, turn])
    return rng.permuted(np.tile(np.arange(V), (n, 1)), axis=1)[:, step]


def _windowed(edges: tuple[int, ...], row_bytes: int, memory: int) -> Layout:
    largest = max(1, edges[1] - edges[0] + 1)
    window = max(1, memory // _ALIVE // (largest * row_bytes))
    return Layout(edges, window, max(1, -(-_STRETCH // row_bytes)))


def _by_place(views: Ints) -> Ints:
    """Pictures in the order in which their rows lie."""
    return np.argsort(views[:, 0], kind="stable")


def _kept(examples: Examples, positions: Ints) -> npt.NDArray[Any]:
    """Rows at positions in memory, read a stretch at a time."""
    kept = np.empty((len(positions), *examples.row_shape), examples.activations.dtype)
    step = max(1, 128 * _STRETCH // examples.row_bytes)
    for start in range(0, len(positions), step):
        some = examples.activations[positions[start : start + step]]
        kept[start : start + step] = some.reshape(-1, *examples.row_shape)
    return kept
