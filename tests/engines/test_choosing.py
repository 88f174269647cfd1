"""The engine that is taken is the quickest in a trial, and never one that disagrees with torch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import pytest

from featcache.engines import choosing
from featcache.engines.choosing import FEWEST, Trial, choose
from featcache.engines.parity import largest_difference, refuse_disparity
from featcache.errors import EngineError


class Fake:
    """An engine that takes so many seconds a picture, and whose rows are off by some share."""

    threads, device = 2, "cpu"

    def __init__(self, name: str, seconds: float, off: float = 0.0) -> None:
        self.name, self.seconds, self.off = name, seconds, off
        self.seen, self.sizes = 0, set[int]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.run_all(batch)[0]

    def run_all(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        self.seen += len(batch)
        self.sizes.add(len(batch))
        time.sleep(self.seconds * len(batch))
        rows = batch.reshape(len(batch), -1).astype(np.float32)
        return (rows * (1 + self.off), rows[:, :2])

    def run_each(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
        return map(self.run_all, batches)


def pixels(most: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (most, 2, 2, 3), dtype=np.uint8)


def trial(*engines: Fake, pictures: int = 10**6, **options: Any) -> Trial:
    made = {engine.name: engine for engine in engines}

    def make(name: str) -> Fake:
        if name not in made:
            raise EngineError(f"no {name}")
        return made[name]

    return Trial(make, options.pop("pixels", pixels), pictures, **options)


TORCH = ("torch", 2e-3)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "has_openvino", lambda: True)


def test_the_quickest_is_taken_and_the_rates_are_told() -> None:
    for seconds, name in ((2e-4, "openvino"), (2e-2, "torch")):
        choice = choose("auto", trial(Fake(*TORCH), Fake("openvino", seconds)))
        assert choice.engine.name == name
        assert "in a trial of 8 pictures: torch 4" in choice.why
        assert "openvino" in choice.why
        assert not choice.warnings


def test_a_quicker_one_that_disagrees_is_refused_with_a_warning() -> None:
    choice = choose("auto", trial(Fake(*TORCH), Fake("openvino", 0, off=2e-3)))
    assert choice.engine.name == "torch"
    (warning,) = choice.warnings
    assert "'openvino' differs from torch by 2.0e-03 of a row's length on 8 of these" in warning
    assert choice.why == "the others were refused"


def test_one_that_was_asked_for_is_refused_too_where_it_disagrees() -> None:
    fine = choose("openvino", trial(Fake(*TORCH), Fake("openvino", 1, off=5e-4), pixels=few))
    assert (fine.engine.name, fine.why, fine.warnings) == ("openvino", "asked for", ())
    choice = choose("openvino", trial(Fake(*TORCH), Fake("openvino", 0, off=float("nan"))))
    assert choice.engine.name == "torch"
    assert choice.warnings[0].endswith("torch is used")


def few(most: int) -> np.ndarray:
    return pixels(1)


def test_a_lower_precision_may_differ_by_more() -> None:
    both = (Fake(*TORCH), Fake("openvino", 0, off=2e-2))
    assert choose("auto", trial(*both, precision="bf16")).engine.name == "openvino"
    assert choose("auto", trial(*both, precision="fp16")).engine.name == "torch"


def test_one_that_is_not_there_is_an_error_only_if_it_was_asked_for() -> None:
    assert choose("auto", trial(Fake(*TORCH))).warnings == ("no openvino; it is not used",)
    with pytest.raises(EngineError, match="no openvino"):
        choose("openvino", trial(Fake(*TORCH)))


def test_a_short_job_tries_nothing() -> None:
    torch, other = Fake(*TORCH), Fake("openvino", 0)
    choice = choose("auto", trial(torch, other, pictures=FEWEST - 1))
    assert (choice.engine.name, torch.seen, other.seen) == ("torch", 0, 0)
    assert choice.why == "a trial of engines needs 64 pictures"
    choice = choose("auto", trial(torch, other, pictures=1000))
    assert (choice.engine.name, other.seen) == ("torch", 0)
    assert choice.why.startswith("about ")


def test_on_an_accelerator_or_without_a_picture_there_is_no_trial() -> None:
    torch = Fake(*TORCH)
    assert choose("auto", trial(torch, pixels=lambda most: pixels(0))).engine is torch
    torch.device = "cuda"
    assert choose("auto", trial(torch)).why == "what runs on cuda here"
    assert torch.seen == 0


def test_compiling_is_tried_where_openvino_is_not_and_the_job_is_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "has_openvino", lambda: False)
    monkeypatch.setattr(choosing, "_can_compile", lambda: True)
    both = (Fake(*TORCH), Fake("torch-compile", 2e-4))
    assert choose("auto", trial(*both, pictures=10**5)).engine.name == "torch"  # 200 s to go
    assert choose("auto", trial(*both, pictures=10**6)).engine.name == "torch-compile"
    assert both[1].sizes == {32}  # what is compiled is tried on the job's own batches
    monkeypatch.setattr(choosing, "_can_compile", lambda: False)
    assert choose("auto", trial(*both)).engine.name == "torch"


def test_what_compiles_in_its_first_run_is_not_timed_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Compiling(Fake):
        def run_all(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
            if not self.seen:
                time.sleep(0.5)
            return super().run_all(batch)

    monkeypatch.setattr(choosing, "has_openvino", lambda: False)
    monkeypatch.setattr(choosing, "_can_compile", lambda: True)
    both = Fake(*TORCH), Compiling("torch-compile", 2e-4)
    assert choose("auto", trial(*both)).engine.name == "torch-compile"


def test_runs_are_repeated_only_to_tell_apart_what_is_about_as_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "_LONG_ENOUGH", 0.1)
    for apart, runs in ((choosing._APART, (1, 1)), (100.0, (3, 2))):  # a long one runs twice
        monkeypatch.setattr(choosing, "_APART", apart)
        both = Fake("torch", 4e-3), Fake("openvino", 4e-2)
        assert choose("auto", trial(*both)).engine.name == "torch"
        assert tuple(engine.seen // 8 for engine in both) == runs


def test_a_slow_first_run_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    class Waking(Fake):
        def run_all(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
            if not self.seen:
                time.sleep(8 * self.seconds)
            return super().run_all(batch)

    both = Waking("torch", 1e-2), Fake("openvino", 1.5e-2)
    assert choose("auto", trial(*both)).engine.name == "torch"


def test_differences_are_of_whole_rows_and_of_every_activation() -> None:
    expected = np.array([[3.0, 4.0], [0.0, 1.0]])
    found = np.array([[3.0, 4.005], [0.0, 1.0]])
    assert largest_difference([expected, found], [expected, expected]) == pytest.approx(1e-3)
    assert np.isnan(largest_difference([expected, found * np.nan], [expected, expected]))
    refuse_disparity(Fake("openvino", 0, off=9e-4), Fake(*TORCH), pixels(2), "fp32")
    with pytest.raises(EngineError, match=r"differs from torch by 1\.1e-03"):
        refuse_disparity(Fake("openvino", 0, off=1.1e-3), Fake(*TORCH), pixels(2), "fp32")
