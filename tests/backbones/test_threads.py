"""What is little is computed in one thread: others would only be waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from featcache.backbones import registry, threads
from featcache.backbones.cuts import split_at_penultimate
from featcache.backbones.registry import load_backbone
from featcache.backbones.size import size_of
from featcache.backbones.tracing import trace
from featcache.engines import make_engine
from featcache.errors import BackboneError
from featcache.recipe import Preprocessing
from featcache.unfreezing.depths import traced_of

SIZE = (8, 8)


class Noting(nn.Conv2d):
    """A layer that notes in how many threads it runs."""

    def __init__(self, seen: list[int]) -> None:
        super().__init__(3, 4, kernel_size=3)
        self.seen = seen
        self.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch has three threads before and afterwards, and they wait busily."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


@pytest.fixture
def seen() -> list[int]:
    return []


@pytest.fixture
def network(seen: list[int]) -> nn.Sequential:
    layers = Noting(seen), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    return nn.Sequential(*layers).eval().requires_grad_(requires_grad=False)


@pytest.mark.usefixtures("three")
def test_a_light_network_is_looked_at_in_one_thread(network, seen: list[int]) -> None:
    split_at_penultimate(network, SIZE)
    trace(network, SIZE)
    assert set(seen) == {1}


@pytest.mark.usefixtures("three")
def test_a_larger_one_in_all(network, seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LIGHT", sum(p.numel() for p in network[0].parameters()) - 1)
    split_at_penultimate(network, SIZE)
    trace(network, SIZE)
    assert set(seen) == {3}


@pytest.mark.usefixtures("three")
def test_threads_that_sleep_share_it(
    network, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    split_at_penultimate(network, SIZE)
    assert set(seen) == {3}


@pytest.mark.usefixtures("three")
def test_what_fails_leaves_the_threads_as_they_were(seen: list[int]) -> None:
    with pytest.raises(BackboneError, match="does not run at 8 x 8 pixels"):
        split_at_penultimate(nn.Sequential(Noting(seen), nn.Linear(5, 2)).eval(), SIZE)
    assert set(seen) == {1}


@pytest.mark.usefixtures("three")
def test_weights_are_told_apart_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    told_apart = registry.tensors_sha256

    def noting(state: dict[str, Tensor]) -> str:
        found.append(torch.get_num_threads())
        return told_apart(state)

    monkeypatch.setattr(registry, "tensors_sha256", noting)
    backbone = load_backbone("timm/test_resnet", weights="random")
    layer = next(m for m in backbone.stem.modules() if isinstance(m, nn.Conv2d))
    layer.register_forward_pre_hook(lambda *_: found.append(torch.get_num_threads()))
    size_of(backbone)
    traced_of(backbone, 64)
    assert len(found) > 3
    assert set(found) == {1}


@pytest.mark.usefixtures("three")
def test_two_threads_and_one_within_itself_leave_the_count_as_it_was() -> None:
    entered, leave = threading.Event(), threading.Event()
    counts: list[int] = []

    def load() -> None:  # it never used torch before, and is within while the other leaves
        with threads.one_thread():
            counts.append(torch.get_num_threads())
            entered.set()
            leave.wait()
        counts.append(torch.get_num_threads())

    with threads.one_thread():
        with threads.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
        other = threading.Thread(target=load)
        other.start()
        assert entered.wait(60)
    assert torch.get_num_threads() == 3
    leave.set()
    other.join()
    assert counts == [1, 3]


@pytest.mark.usefixtures("three")
def test_openvino_is_shown_a_light_network_in_one_thread(network, seen: list[int]) -> None:
    pytest.importorskip("openvino")
    preprocessing = Preprocessing(SIZE, (8,), (0.5,) * 3, (0.5,) * 3)
    with make_engine("openvino", network, preprocessing, device="cpu"):
        pass
    assert seen
    assert set(seen) == {1}
