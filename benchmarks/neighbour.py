"""Loading a network and torch's work on it beside a neighbour that keeps all cores busy.

Run it: python benchmarks/neighbour.py [--alone]. Each line is a process of its own: threads that
wait busily, OpenMP's default, and threads that sleep, in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

NETWORK, PICTURES, TURNS = "efficientnet_lite0", 8, 3


def neighbour() -> None:
    """A convolution in a loop, until the process is ended."""
    import torch

    layer, pixels = torch.nn.Conv2d(32, 32, 3, padding=1), torch.randn(2, 32, 56, 56)
    with torch.no_grad():
        while True:
            layer(pixels)


def side() -> None:
    """Print the seconds of a load, of a forward pass, and of one with its backward pass."""
    import torch

    from featcache.backbones.registry import load_backbone

    started = time.perf_counter()
    stem = load_backbone(NETWORK).stem
    loading = time.perf_counter() - started
    pixels = torch.randn(PICTURES, 3, 224, 224)
    with torch.no_grad():
        forward = median_seconds(lambda: stem(pixels))
    stem.requires_grad_()
    training = median_seconds(lambda: stem(pixels).mean().backward())
    print(f"load {loading:.2f} s, forward {forward:.2f} s, forward and backward {training:.2f} s")


def median_seconds(work: Callable[[], object], runs: int = 3) -> float:
    """Of several runs, after one that is not counted."""
    work()
    seconds: list[float] = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Run both sides in turn, beside a neighbour or alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alone", action="store_true", help="without a neighbour")
    parser.add_argument("--as", dest="role", choices=("neighbour", "side"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        {"neighbour": neighbour, "side": side}[options.role]()
        return
    command = [sys.executable, __file__, "--as"]
    beside = None if options.alone else subprocess.Popen([*command, "neighbour"])
    try:
        for policy in ("active", "passive") * TURNS:
            own = {"OMP_WAIT_POLICY": "passive"} if policy == "passive" else {}
            print("sleeps       " if own else "waits busily ", end="", flush=True)
            subprocess.run([*command, "side"], check=True, env=os.environ | own)
    finally:
        if beside:
            beside.kill()


if __name__ == "__main__":
    main()
