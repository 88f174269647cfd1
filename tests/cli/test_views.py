"""Views on the command line: asked for, told, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from featcache_cli.rendering import digits, points

LIGHT = ("--backbone", "timm/test_resnet", "--weights", "random", "--image-size", "32")


def test_extract_info_and_prune_say_which_views_there_are(
    invoke: Any, pictures: Path, tmp_path: Path
) -> None:
    place = [pictures, *LIGHT, "--out", tmp_path / "c"]
    told = invoke("extract", *place, "--views", "3", "--tta", "1").stdout.replace("\n", " ")
    assert "views beside the plain one: 2 of standard (seed 0), 1 of tta (seed 0)" in told
    assert json.loads(invoke("extract", *place, "--json").stdout)["views"] == []
    again = json.loads(invoke("extract", *place, "--views", "3", "--json").stdout)
    assert again["views"] == [{"policy": "standard", "seed": 0, "count": 2}]
    assert (again["computed"], again["reused"]) == (0, 24)
    streams = json.loads(invoke("info", tmp_path / "c", "--json").stdout)["streams"]
    assert [stream["view"]["policy"] for stream in streams] == [
        "none",
        "standard",
        "standard",
        "tta",
    ]
    assert "view" in invoke("info", tmp_path / "c").stdout
    pruned = invoke("prune", tmp_path / "c").stdout
    assert "still there: views 2 of standard (seed 0), 1 of tta (seed 0)" in pruned


def test_what_cannot_be_made_is_refused_before_anything_is_written(
    invoke: Any, pictures: Path, tmp_path: Path
) -> None:
    place = [pictures, *LIGHT, "--out", tmp_path / "c"]
    for options, says in [
        (["--views", "2", "--augment", "mixup"], "none, flip, standard, randaugment:N,M, trivial"),
        (["--augment", "standard"], "give views 2 or more, or leave augment out"),
        (["--views", "3", "--augment", "flip"], "3 views by 'flip'"),
    ]:
        result = invoke("extract", *place, *options)
        assert (result.exit_code, result.stdout) == (1, "")
        assert says in result.stderr.replace("\n", " ")
    assert not (tmp_path / "c").exists()


def test_probe_says_what_trained_and_what_crops_gain(
    invoke: Any, pictures: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "c"
    invoke("extract", pictures, *LIGHT, "--out", cache, "--views", "2", "--tta", "2")
    options = [cache, "--cv", "2", "--tol", "0.5"]
    told = invoke("probe", *options, "--tta", "max").stdout.replace("\n", " ")
    assert "views that trained beside the plain one: 1 of standard (seed 0)" in told
    assert "with 2 random crops (max): " in told
    assert [layer["views"] for layer in all_cuts(invoke, pictures, cache)] == [1, 2]
    plain = json.loads(invoke("probe", *options, "--views", "1", "--json").stdout)
    assert (plain["views"], plain["tta"]) == ([], None)
    refused = invoke("probe", *options, "--views", "none")
    assert refused.exit_code == 2
    assert "give a number from 1, or all" in refused.stderr


def test_a_sweep_says_what_crops_gain_at_every_depth(
    invoke: Any, pictures: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "c"
    invoke("extract", pictures, *LIGHT, "--out", cache, "--tta", "2", "--augment-seed", "3")
    options = [cache, "--cv", "2", "--tol", "0.5", "--unfreeze", "1", "--epochs", "1"]
    told = invoke("probe", *options, "--tta", "max")
    lines = [line.strip() for line in told.stdout.splitlines()]
    first = lines.index("with 2 random crops (max), on the same pictures") + 1
    assert " ".join(lines[first].split()) == "depth plain with crops gain 95% interval p"
    found = json.loads(invoke("probe", *options, "--tta", "max", "--json").stdout)["unfreeze"]
    for row, score in zip(lines[first + 1 : first + 3], found, strict=True):
        tta = score["tta"]
        assert (tta["how"], tta["crops"], tta["gain"]["n"]) == ("max", 2, 24)
        shown = [f"{100 * share:.1f}%" for share in (score["accuracy"], tta["accuracy"])]
        gain = points(tta["gain"]["difference"], digits(tta["gain"]["ci95"]))
        assert row.split()[:4] == [str(score["depth"]), *shown, gain]
    assert "and 3 view(s)" in " ".join(told.stderr.split()), "the crops are told of beforehand"
    plain = json.loads(invoke("probe", *options, "--json").stdout)["unfreeze"]
    assert [score["tta"] for score in plain] == [None, None]
    assert [score["accuracy"] for score in plain] == [score["accuracy"] for score in found]


def test_predictions_draw_crops_by_a_seed(invoke: Any, classifier: Path, pictures: Path) -> None:
    command = ["predict", classifier, pictures / "cat", "--tta", "1", "--json"]
    first, again, other = (
        [row["probability"] for row in json.loads(invoke(*command, *seed).stdout)]
        for seed in ([], ["--tta-seed", "0"], ["--tta-seed", "7"])
    )
    assert first == again != other
    assert invoke(*command, "--tta-seed", "-1").exit_code == 2


def all_cuts(invoke: Any, pictures: Path, cache: Path) -> list[dict[str, Any]]:
    """Cuts probed alike, of which one has the plain view alone."""
    invoke("extract", pictures, *LIGHT, "--out", cache, "--cut", "layer3.0")
    options = ["probe", cache, "--cv", "2", "--tol", "0.5", "--cut", "all"]
    assert "views" in invoke(*options).stdout
    return json.loads(invoke(*options, "--json").stdout)["layers"]
