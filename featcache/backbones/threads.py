"""In how many threads torch does what is little: loading weights, a network on a picture or two.

torch's threads wait busily for each other at the end of every operation. Where something else keeps
the cores busy, that takes longer than small tensors and the layers of a light network do, in sum
seconds instead of tenths. Threads that sleep while they wait (`OMP_WAIT_POLICY=passive`, which the
`featcache` command chooses where cores are few) may share the layers; small tensors gain nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

LIGHT = 32_000_000
"""Parameters up to which a network is light: from MobileNets to ResNet-50 and ViT-S. One thread
takes two pictures through it in 0.1 to 0.4 s. Larger networks have larger layers, in which threads
gain more and wait less.
"""


_LOCK = threading.Lock()

_found: dict[int, int] = {}
"""How many threads those that are within found, by their own identifiers."""


@contextmanager
def one_thread() -> Generator[None, None, None]:
    """Within it torch computes in one thread; the count is put back afterwards.

    The count is the process's too: a thread that has not used torch yet would find the 1 of another
    that is within, and takes what that one had found. So nothing that lasts belongs in here.
    """
    me = threading.get_ident()
    with _LOCK:
        nested = me in _found
        if not nested:
            _found[me] = next(iter(_found.values()), None) or torch.get_num_threads()
            torch.set_num_threads(1)
    try:
        yield
    finally:
        if not nested:
            with _LOCK:
                torch.set_num_threads(_found.pop(me))


@contextmanager
def one_thread_if_light(network: nn.Module) -> Generator[None, None, None]:
    """The same for a light network where threads wait busily; all others keep torch's threads."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > LIGHT or os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":
        yield
        return
    with one_thread():
        yield
