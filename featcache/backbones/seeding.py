"""Initialisation: the same on every run, with the global state left alone; or none at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, torch's CPU generator starts at `seed`; afterwards it is what it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def undrawn() -> Iterator[None]:
    """Within it normal and uniform draws of this thread into tensors are their means.

    For networks that get other weights: drawing those of ResNet-50 takes 0.2 s, those of VGG-16
    1.2. One thread at a time, since torch notes for the process that there is a mode.
    """
    with _ALONE, _Undrawn():
        yield


_ALONE = threading.RLock()

_DEFAULTS = {  # of the mean, of the bounds
    torch.ops.aten.normal_.default: (0.0,),
    torch.ops.aten.uniform_.default: (0.0, 1.0),
}


class _Undrawn(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in _DEFAULTS:
            return func(*args, **(kwargs or {}))
        drawn, *given = args  # by position, without what is as by default at the end
        mean_or_bounds = (*given, *_DEFAULTS[func][len(given) :])[: len(_DEFAULTS[func])]
        return drawn.fill_(sum(mean_or_bounds) / len(mean_or_bounds))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler, which takes a second, to keep it away from here."""
        return False
