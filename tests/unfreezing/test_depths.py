"""Which depths a text asks for, and what each trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.backbones.registry import load_backbone
from featcache.backbones.tracing import trace
from featcache.backbones.units import list_units
from featcache.errors import BackboneError, ProbeError
from featcache.recipe import PENULTIMATE
from featcache.unfreezing import PIXELS, ladder, parse_depths

UNITS = ("layer4.1", "layer4.0", "layer3.1", "layer3.0")


@pytest.mark.parametrize(
    ("text", "depths"),
    [
        ("0-3", (0, 1, 2, 3)),
        ("0,1,4", (0, 1, 4)),
        ("2", (0, 2)),
        (" 3 , 1-2", (0, 1, 2, 3)),
        ("layer4.0", (0, 2)),
        ("layer4.1,layer3.0", (0, 1, 4)),
        ("all", (0, 4)),
        ("", (0,)),
    ],
)
def test_depths_are_numbers_ranges_and_units(text: str, depths: tuple[int, ...]) -> None:
    assert parse_depths(text, UNITS) == depths


@pytest.mark.parametrize("text", ["5", "3-1", "0-9"])
def test_depths_that_the_network_has_not_are_refused_by_name(text: str) -> None:
    says = f"depths {text}: this network has 4 units; give numbers from 0 to 4, ascending"
    with pytest.raises(ProbeError, match=says):
        parse_depths(text, UNITS)


@pytest.mark.parametrize("text", ["layer9", "-1", "1.5"])
def test_what_is_no_depth_is_refused_by_name(text: str) -> None:
    with pytest.raises(ProbeError) as caught:
        parse_depths(text, UNITS)
    assert f"depth {text!r}: give numbers (0-3 or 0,1,4), units from the top" in str(caught.value)


UNTRACEABLE = """
import torch
preprocessing = {"size": [8, 8], "resize": [8], "mean": [0.5] * 3, "std": [0.5] * 3}
class Decides(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, 3, 1), torch.nn.Linear(3, 2)
    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        return self.fc(x if x.sum() > 0 else -x)
"""


def test_a_network_without_a_trace_has_depth_0_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deciding_network.py").write_text(UNTRACEABLE)
    monkeypatch.syspath_prepend(tmp_path)
    backbone = load_backbone("deciding_network:Decides")
    assert len(ladder(backbone, (0,))) == 1
    says = "deciding_network:Decides: it cannot be traced.*without a trace it can only be probed"
    with pytest.raises(BackboneError, match=says):
        ladder(backbone, (0, 1))


def test_depth_0_has_no_tail_to_train(backbone: Any) -> None:
    (rung,) = ladder(backbone, (0,))
    with pytest.raises(ValueError, match="depth 0 has no tail"):
        _ = rung.trainable


def test_a_depth_trains_its_units_from_the_activation_below_them(backbone: Any) -> None:
    traced = trace(backbone.stem, (32, 32))
    names = [unit.name for unit in list_units(traced)]
    rungs = ladder(backbone, (0, 1, 3, len(names)))
    assert [rung.cut for rung in rungs] == [PENULTIMATE, names[1], names[3], PIXELS]
    assert [rung.units for rung in rungs[:3]] == [(), tuple(names[:1]), tuple(names[:3])]
    units = {unit.name: unit.parameters for unit in list_units(traced)}
    assert rungs[1].trained == units[names[0]]
    assert rungs[2].trained == sum(units[name] for name in names[:3])
    assert rungs[0].trained == 0
    assert len({rung.total for rung in rungs}) == 1
    assert rungs[3].trained == rungs[3].total


def test_a_tail_goes_on_where_the_stem_ends(backbone: Any) -> None:
    from featcache.backbones.units import split_at

    rung = ladder(backbone, (0, 2))[1]
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    stem = split_at(trace(backbone.stem, (32, 32)), rung.cut).stem
    with torch.no_grad():
        assert torch.equal(rung.tail(stem(pixels)), backbone.stem(pixels))
