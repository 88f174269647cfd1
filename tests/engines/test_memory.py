"""Memory of large blocks stays with the process while an engine runs, and goes back afterwards."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from featcache.engines import memory

BLOCKS = """
import resource, sys
import torch
from featcache.engines.memory import kept_memory

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(100 << 18)  # 100 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

torch.ones(100 << 18)
plain = faults(5)
with kept_memory():
    with kept_memory():
        faults(20)  # finds its places
    kept = faults(5)
    held = resident()
print(plain, kept, held - resident(), faults(5))
"""


@pytest.mark.skipif(
    memory._glibc() is None, reason="without glibc nothing is done, as the next test says"
)
def test_pages_are_fetched_once_and_given_back_at_the_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS], capture_output=True, text=True, check=True
    )
    plain, kept, given_back, after = map(int, done.stdout.split())
    pages = 100 * (1 << 20) // resource.getpagesize()
    assert plain > pages
    assert kept < plain / 10
    assert given_back > 50 << 20
    assert after > kept


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with memory.kept_memory():
        pass
    assert memory._users.count == 0
