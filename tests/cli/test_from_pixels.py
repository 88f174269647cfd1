"""`probe --unfreeze` from pixels, as it is typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

QUICK = ("--tol", "0.5", "--cv", "2", "--batch-size", "8", "--unfreeze")


@pytest.fixture(scope="module")
def own(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(cache, tmp_path_factory.mktemp("own") / "drinks"))


def probed(invoke: Any, cache: Path, *options: str) -> dict[str, Any]:
    result = invoke("probe", cache, *QUICK, *options, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_whole_network_beside_random_weights(invoke: Any, own: Path, tmp_path: Path) -> None:
    options = ("all", "--epochs", "1", "--compare-scratch", "--save", str(tmp_path / "d.fc"))
    found = probed(invoke, own, *options)
    first, whole = found["unfreeze"]
    assert (first["depth"], whole["cut"], whole["bytes"]) == (0, "pixels", 0)
    assert whole["params_frozen"] == 0
    assert whole["params_trainable"] == whole["params_total"] == first["params_total"]
    assert found["scratch"]["cut"] == "scratch"
    assert found["scratch"]["params_trainable"] == whole["params_trainable"]
    assert found["scratch"]["against_depth_0"]["n"] == 24
    assert found["scratch"]["adjusted_p"] is None
    assert "scratch" not in found["advice"]
    assert Path(found["saved"]).is_file()


def test_live_growing_pictures_are_another_question(invoke: Any, own: Path) -> None:
    options = ("1", "--live", "--image-size", "24:1,32:1")
    found = [probed(invoke, own, *options, "--augment", policy) for policy in ("flip", "trivial")]
    assert found[0]["result"] != found[1]["result"]
    for one in found:
        assert [score["depth"] for score in one["unfreeze"]] == [0, 1]
        assert one["unfreeze"][1]["bytes"] == 0
        assert one["unfreeze"][1]["epochs"] <= 1
        assert one["scratch"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("1", "--image-size", "24:1,32:1"), "give --live, or --unfreeze all"),
        (("all", "--image-size", "24:1,28:1"), "the last size must be the cache's 32 x 32"),
        (("1", "--live", "--augment", "mirror"), "no such policy"),
    ],
)
def test_what_cannot_be_asked_for(invoke: Any, own: Path, options: Any, message: str) -> None:
    result = invoke("probe", own, *QUICK, *options)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize("option", ["--live", "--compare-scratch"])
def test_nothing_deeper_was_asked_for(invoke: Any, own: Path, option: str) -> None:
    result = invoke("probe", own, option)
    assert result.exit_code == 1
    assert f"{option} is about training deeper layers" in " ".join(result.output.split())


@pytest.mark.parametrize("sizes", ["128", "128:", "a:2", "128:2,:3", "0:2", "128:2:3"])
def test_sizes_that_are_misspelt(invoke: Any, own: Path, sizes: str) -> None:
    result = invoke("probe", own, "--unfreeze", "all", "--image-size", sizes)
    assert result.exit_code == 2
    assert "SIDE:EPOCHS" in result.output
