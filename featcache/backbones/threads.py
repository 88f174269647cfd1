"""In how many threads torch does what is little: loading weights, a network on a picture or two.

torch's threads wait for each other at the end of every operation. Where something else keeps the
cores busy, that takes longer than small tensors and the layers of a light network do, in sum
seconds instead of tenths; where nothing does, a second thread saves such work next to nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

LIGHT = 12_000_000
"""Parameters up to which a network is light: MobileNets, EfficientNet-B0 to B2, ResNet-18. One
thread takes two pictures through it in 0.1 to 0.3 s. Larger networks have larger layers, in which
threads gain more and wait less.
"""


@contextmanager
def one_thread() -> Generator[None, None, None]:
    """Within it torch computes in one thread; the count is put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread_if_light(network: nn.Module) -> Generator[None, None, None]:
    """The same where a network is light; a larger one keeps torch's threads."""
    if sum(parameter.numel() for parameter in network.parameters()) > LIGHT:
        yield
        return
    with one_thread():
        yield
