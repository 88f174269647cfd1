"""Importing torch, torchvision and timm: most of what a command's start takes, and how they wait.

torchvision and timm ask for torch's compiler while they are imported, and neither uses it then:
torchvision 0.29 takes one function of `torch._dynamo` (with sympy and most of `torch.distributed`
behind it), and timm 1.0.31 decorates methods of one network with `torch.compiler.disable`. Within
`compiler_deferred` both are given functions that import the compiler when they are called, and then
are what they stand for. Versions that ask for nothing, or for something else, are imported as ever.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo.utils"

_FEW_CORES = 8
"""Below so many, threads of all kinds share them; from there on decoding has its own processes."""

_kept = False


def keep_imports() -> None:
    """For a process of featcache's own: what it imports is never looked through for garbage.

    Otherwise the first collection after the imports goes through some 600,000 objects of theirs.
    """
    global _kept
    _kept = True


def let_waiting_threads_sleep() -> None:
    """For a process of featcache's own, before it imports torch; what the user set stays.

    OpenMP's threads wait busily, for each other and for the next operation. Where something else
    computes too, those that wait then hold the cores that the last one needs: with one neighbour on
    two cores a forward pass took twice as long. Alone, it took the same.
    """
    if (os.cpu_count() or 1) < _FEW_CORES:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@contextmanager
def collector_paused() -> Generator[None, None, None]:
    """Within it, import much: every module stays, and is not looked through for garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if _kept:
                gc.freeze()
            gc.enable()


@contextmanager
def compiler_deferred() -> Generator[None, None, None]:
    """Within it, import what asks for torch's compiler only by the way."""
    import torch.compiler

    if "torch._dynamo" in sys.modules:  # somebody uses it
        yield
        return
    utilities, disable = _Utilities(_NAME), _real_disable()
    sys.modules[_NAME], torch.compiler.disable = utilities, _disable
    try:
        yield
    finally:
        torch.compiler.disable = disable
        utilities.withdraw()


@functools.cache
def _real_disable() -> Callable[..., Any]:
    """Asked before it is replaced, and then the same in every thread."""
    import torch.compiler

    return torch.compiler.disable


class _Utilities(ModuleType):
    """Stands for `torch._dynamo.utils` until something else than `is_compile_supported` is used."""

    def is_compile_supported(self, device_type: Any) -> Any:
        """What the real one says."""
        self.withdraw()
        return importlib.import_module(_NAME).is_compile_supported(device_type)

    def withdraw(self) -> None:
        """Leave the place to the real one."""
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of the import system
            raise AttributeError(name)
        self.withdraw()
        return getattr(importlib.import_module(_NAME), name)


def _disable(
    fn: Callable[..., Any] | None = None, *options: Any, **named_options: Any
) -> Callable[..., Any]:
    """`torch.compiler.disable`, which is called, as this was, when the function is."""
    if fn is None:
        return lambda given: _disable(given, *options, **named_options)

    @functools.cache
    def disabled() -> Callable[..., Any]:
        return _real_disable()(fn, *options, **named_options)

    @functools.wraps(fn)
    def called(*args: Any, **named: Any) -> Any:
        return disabled()(*args, **named)

    return called
