"""What Pillow and libtiff say of broken pictures beside raising it: kept from the user's terminal.

A picture that cannot be read is a skip with its reason, and one that can be read is no worse for a
torn EXIF block. Filters of warnings and libtiff's printing are the process's, so they are changed
only while pictures are decoded; the last one out restores them.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from PIL import Image

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else what is logged is printed, too

Handler = Callable[[Any], Any]


def _libtiff_handler() -> Handler:
    """Sets what libtiff does with an error, and gives what it did; None where it is out of reach.

    Pillow's own core is linked to it, and a symbol is looked for in what a library is linked to.
    """
    with contextlib.suppress(OSError, AttributeError):
        handler = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
        handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        return handler
    return lambda handler: None


class _Quiet:
    """Who wants it quiet, and what was set before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.set_handler = _libtiff_handler()
        self.handler: Any = None

    def enter(self) -> None:
        with self.lock:
            if not self.users:
                self.handler = self.set_handler(None)
            self.users += 1
            warnings.filterwarnings("ignore", module=_PILLOW)  # to the front, where it may be

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.set_handler(self.handler)
                ours = [entry for entry in warnings.filters if _is_ours(entry)]
                for entry in ours:
                    warnings.filters.remove(entry)  # type: ignore[attr-defined]


_PILLOW = r"PIL\.(?#featcache)"


def _is_ours(entry: tuple[Any, ...]) -> bool:
    return getattr(entry[3], "pattern", None) == _PILLOW


_quiet = _Quiet()


@contextmanager
def quiet_pillow() -> Generator[None, None, None]:
    """Within it Pillow warns of nothing, whatever the filters, and libtiff prints nothing."""
    _quiet.enter()
    try:
        yield
    finally:
        _quiet.leave()
