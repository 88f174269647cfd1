"""Mapped shards that are kept open: those used last, of all readers of a process together.

A map holds an open file, of which a process may have a thousand or so, and a cache of many views
has more shards than that.
"""

from __future__ import annotations

import errno
import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable

from featcache.errors import StoreError
from featcache.store.shards import Shard

_PLENTY = 4096
"""Where the system names no limit."""

_lock = threading.Lock()
_kept: OrderedDict[tuple[int, int], Shard] = OrderedDict()
"""By reader and number; the one used last at the end."""

_readers = itertools.count()


def most_maps() -> int:
    """Shards that may be kept: for half of the files that this process may open."""
    try:
        import resource
    except ImportError:  # not on POSIX, where a map holds no file open
        return _PLENTY
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _PLENTY if files == resource.RLIM_INFINITY else max(files // 2, 1)


class Maps:
    """The mapped shards of one reader, by number."""

    def __init__(self) -> None:
        self._reader = next(_readers)
        weakref.finalize(self, _forget, self._reader).atexit = False

    def get(self, number: int, open_it: Callable[[], Shard]) -> Shard:
        """A shard that is kept, or is opened and kept.

        Where the process has too many files open, all that are kept are let go first.
        """
        kept = self._kept(number)
        if kept is not None:
            return kept
        try:
            shard = open_it()
        except StoreError as error:
            if getattr(error.__cause__, "errno", None) != errno.EMFILE or not _let_go():
                raise
            shard = open_it()
        self._keep(number, shard)
        return shard

    def _kept(self, number: int) -> Shard | None:
        key = self._reader, number
        with _lock:
            if key in _kept:
                _kept.move_to_end(key)
            return _kept.get(key)

    def _keep(self, number: int, shard: Shard) -> None:
        """Keep a shard, and let go of those that were not used for longest where they are many."""
        with _lock:
            _kept[self._reader, number] = shard
            while len(_kept) > most_maps():
                _kept.popitem(last=False)


def _let_go() -> bool:
    """Let go of all shards; false if there is none."""
    with _lock:
        there = bool(_kept)
        _kept.clear()
        return there


def _forget(reader: int) -> None:
    """Let go of the shards of a reader that is gone; it may go while another holds the lock."""
    for key in [key for key in list(_kept) if key[0] == reader]:
        _kept.pop(key, None)
