"""Results on stdout, progress and remarks on stderr; nothing in a name can disturb a terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache import api
from featcache.recipe import Stream
from featcache.results import ChangeCounts, InfoResult, Prediction, Staleness
from featcache.store import documents
from featcache.store.cache import Cache
from featcache.store.findings import write_findings
from featcache.store.index import write_index
from featcache.store.strings import Strings
from featcache_cli.predict import write_csv
from featcache_cli.probe import ProtocolName, bytes_of
from featcache_cli.rendering import printable

LIGHT = ("--backbone", "timm/test_resnet", "--weights", "random", "--image-size", "32")
SMALL = ("timm/test_resnet", "--image-size", "32")
ESCAPE = re.compile("\x1b|\r")


def test_extract_tells_what_is_to_be_written_for_cuts(
    invoke: Any, pictures: Path, tmp_path: Path
) -> None:
    options = ("--out", tmp_path / "c", *LIGHT, "--cut", "layer1.0", "--pool", "none")
    first = invoke("extract", pictures, *options)
    assert f"{tmp_path / 'c'}: 0.00 GB of activations are to be written" in first.stderr
    assert "are to be written" not in invoke("extract", pictures, *options).stderr


def test_extract(invoke: Any, pictures: Path, tmp_path: Path) -> None:
    result = invoke("extract", pictures, "--out", tmp_path / "my cache", *LIGHT)
    assert result.exit_code == 0
    assert "25 pictures in 2 classes: 24 computed, 0 reused, 1 skipped" in result.stdout
    assert "features: penultimate, 96 float32\n" in result.stdout
    assert "engine: torch on cpu (a trial of engines needs 64 pictures" in result.stdout
    assert re.search(r"cat/broken\.jpg +not a picture", result.stdout)
    cache = shlex.quote(str(tmp_path / "my cache"))
    assert f"probe it: featcache probe {cache}" in result.stderr


def test_where_the_time_went(invoke: Any, pictures: Path, tmp_path: Path) -> None:
    command = ("extract", pictures, "--out", tmp_path / "c", *LIGHT, "--profile")
    told = invoke(*command).stdout
    for stage in ("read", "decode", "transform", "forward", "write", "idle"):
        assert re.search(rf"^{stage} +[\d.]+ +\d+%", told, re.MULTILINE)
    assert re.search(r"cores; the forward pass waited [\d.]+ s for pixels, [\d.]+ s for wri", told)
    parts = re.search(
        r"^([\d.]+) s before and after: network ([\d.]+), scan ([\d.]+), engine ([\d.]+), "
        r"rest ([\d.]+)$",
        told,
        re.MULTILINE,
    )
    assert parts
    whole, *each = map(float, parts.groups())
    assert whole == pytest.approx(sum(each), abs=0.03)
    assert "profile: nothing was computed" in invoke(*command).stdout


def test_probe(invoke: Any, cache: Path, tmp_path: Path) -> None:
    command = ("probe", cache, "--cv", "2", "--tol", "0.5", "--save", tmp_path / "d.fc")
    result = invoke(*command)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert re.fullmatch(r" +C  accuracy  log-loss *", lines[1])
    assert sum("chosen" in line for line in lines) == 1
    assert re.search(
        r"^accuracy [\d.]+%  \(95% interval [\d.]+% to [\d.]+%\)$", result.stdout, re.MULTILINE
    )
    assert (
        "how: nested cross-validation (2 outer, 3 inner folds); interval: Wilson" in result.stdout
    )
    assert f"saved, and checked from pixels: {tmp_path / 'd.fc'}" in result.stdout
    assert f"use it: featcache predict {tmp_path / 'd.fc'} PICTURE" in result.stderr


def test_probe_weighs_and_smooths(invoke: Any, cache: Path) -> None:
    """The options reach the solver: other heads, of the same pictures."""
    command = ("probe", cache, "--cv", "2", "--tol", "0.1", "--json")
    plain = json.loads(invoke(*command).stdout)
    for option in (("--class-weight", "balanced"), ("--label-smoothing", "0.2")):
        other = json.loads(invoke(*command, *option, "--memory", "1.5GiB").stdout)
        assert other["n_train"] == plain["n_train"]
        balanced = option[0] == "--class-weight"  # which both classes are already
        assert (other["path"] == plain["path"]) == balanced
        assert other["result"] != plain["result"]


def test_every_protocol_can_be_asked_for() -> None:
    from featcache.probing.protocols import PROTOCOLS

    assert [name.value for name in ProtocolName] == list(PROTOCOLS)


def test_a_probe_with_everything(invoke: Any, cache: Path, tmp_path: Path) -> None:
    command = ("probe", cache, "--cv", "2", "--tol", "0.1", "--cut", "all", "--suspects", "3")
    more = ("--shots", "1,2,all", "--seeds", "2", "--plot", tmp_path / "p.png")
    result = invoke(*command, *more, "--against", cache)
    assert result.exit_code == 0, result.output
    shots = re.findall(r"^ +(1|2|all) +[\d.]+% ", result.stdout, re.MULTILINE)
    assert shots == ["1", "2", "all"]
    assert "where the classes separate" in result.stdout
    assert "pictures that both held out" in result.stdout
    assert re.search("likely label errors|no label is likely wrong", result.stdout)
    with Image.open(tmp_path / "p.png") as drawn:
        assert drawn.width > 2 * drawn.height
    wrong = invoke(*command, "--plot", tmp_path / "p.docx")
    assert wrong.exit_code == 2
    assert ".pdf or .svg" in wrong.stderr


@pytest.mark.parametrize("head", ["ridge", "knn"])
def test_other_heads(invoke: Any, cache: Path, head: str) -> None:
    result = invoke("probe", cache, "--cv", "2", "--head", head)
    assert result.exit_code == 0, result.output
    assert f"{head} on 24 pictures, 2 classes; in closed form" in result.stdout
    assert sum("chosen" in line for line in result.stdout.splitlines()) == 1
    assert "keep it" not in result.stderr
    assert f"a classifier to keep: featcache probe {cache} --save my.fc" in result.stderr


def test_a_device_that_is_not_there(invoke: Any, cache: Path) -> None:
    result = invoke("probe", cache, "--device", "no-such")
    assert result.exit_code == 1
    assert "device 'no-such': not on this machine; use 'cpu'" in result.stderr


def test_sizes_are_read_as_people_write_them() -> None:
    assert [bytes_of(text) for text in ("2GB", "1.5gib", "500 MB", "4096")] == [
        2 * 10**9,
        3 * 2**29,
        5 * 10**8,
        4096,
    ]


def test_predict(invoke: Any, classifier: Path, pictures: Path) -> None:
    result = invoke("predict", classifier, pictures / "cat")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["picture", "label", "probability", "then"]
    assert len(re.findall(r"\d+\.\d%", result.stdout)) == 2 * 12
    assert "unreadable" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    unsure = invoke("predict", classifier, pictures / "cat", "--min-probability", "1")
    assert "unsure" in unsure.stdout


def test_no_readable_picture_is_exit_1(invoke: Any, classifier: Path, pictures: Path) -> None:
    result = invoke("predict", classifier, pictures / "cat" / "broken.jpg", "missing.png")
    assert result.exit_code == 1
    assert result.stdout.count("unreadable") == 2
    one = invoke("predict", classifier, pictures / "cat" / "00.jpg", "missing.png")
    assert one.exit_code == 0


def test_info_verify_and_prune(invoke: Any, cache: Path, pictures: Path) -> None:
    info = invoke("info", cache).stdout
    assert f"source: {pictures}" in info.replace("\n", "")
    assert "classes: 2: cat 13, coffee 12" in info
    assert "cat/broken.jpg" in info
    assert "fresh: the source and the backbone are as they were" in info
    assert "all as committed" in invoke("verify", cache).stdout
    assert "removed 0 rows" in invoke("prune", cache).stdout


def test_verify_is_exit_1_where_something_is_damaged(
    invoke: Any, pictures: Path, tmp_path: Path
) -> None:
    assert invoke("extract", pictures, "--out", tmp_path / "c", *LIGHT).exit_code == 0
    (shard,) = (tmp_path / "c").glob("shards/*/*.h5")
    shard.write_bytes(shard.read_bytes() + b"!")
    result = invoke("verify", tmp_path / "c")
    assert result.exit_code == 1
    assert "1 damaged" in result.stdout
    assert shard.name in result.stdout.replace("\n", "")


def test_backbones(invoke: Any) -> None:
    listed = invoke("backbones", "efficientnet_lite0")
    assert listed.stdout.splitlines()[0].split() == ["name", "library", "weights", "pixels"]
    assert "efficientnet_lite0" in listed.stdout
    none = invoke("backbones", "no-such-network")
    assert none.exit_code == 1
    assert "no backbone matches 'no-such-network'" in none.stderr
    assert "and" in invoke("backbones", "timm/").stdout.splitlines()[-1]


def test_cuts_are_kept_and_shown(invoke: Any, pictures: Path, tmp_path: Path) -> None:
    command = ("extract", pictures, "--out", tmp_path / "c", *LIGHT, "--cut", "layer2.0")
    first = invoke(*command)
    assert "24 computed" in first.stdout
    assert re.search(r"^  after layer2\.0, \d+ float32$", first.stdout, re.MULTILINE)
    more = invoke(*command, "--cut", "all", "--pool", "flatten", "--json")
    kept = json.loads(more.stdout)["features"]
    assert list(kept)[:2] == ["penultimate", "layer2.0"]
    assert len(kept) == 1 + len(json.loads(invoke("layers", *SMALL, "--json").stdout))
    assert {info["dtype"] for cut, info in kept.items() if cut != "penultimate"} == {"float16"}


def test_a_unit_that_is_not_there(invoke: Any, pictures: Path, tmp_path: Path) -> None:
    result = invoke("extract", pictures, "--out", tmp_path / "c", *LIGHT, "--cut", "layer9")
    assert result.exit_code == 1
    assert "no unit is called 'layer9'; from the top there are: layer4.0" in result.stderr
    token = invoke("extract", pictures, *LIGHT, "--cut", "layer4.0", "--pool", "cls")
    assert token.exit_code == 1
    assert "take --pool avg" in token.stderr


def test_layers(invoke: Any) -> None:
    listed = invoke("layers", *SMALL)
    header = ["depth", "unit", "shape", "kB", "parameters", "trainable", "frozen", "cost"]
    assert listed.stdout.splitlines()[0].split() == header
    assert listed.stdout.splitlines()[1].split()[:2] == ["1", "layer4.0"]
    rows = json.loads(invoke("layers", *SMALL, "--json").stdout)
    keys = {"depth", "name", "shape", "bytes", "params", "params_trainable", "params_frozen"}
    keys |= {"cost_share"}
    assert all(set(row) == keys for row in rows)
    assert 0.99 < sum(row["cost_share"] for row in rows) <= 1
    assert [row["params_trainable"] for row in rows] == sorted(
        row["params_trainable"] for row in rows
    )


@pytest.mark.parametrize("command", ["extract", "probe", "predict", "info", "verify", "prune"])
def test_json_alone_is_on_stdout(
    invoke: Any,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    pictures: Path,
    cache: Path,
    classifier: Path,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    arguments = {
        "extract": (pictures, "--out", cache, *LIGHT),
        "probe": (cache, "--cv", "2", "--tol", "0.5"),
        "predict": (classifier, pictures / "cat"),
    }
    done = invoke(command, *arguments.get(command, (cache,)), "--json")
    assert done.exit_code == 0

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    value = json.loads(done.stdout, parse_constant=refuse)
    assert not ESCAPE.search(done.stdout)
    if command == "predict":
        assert len(value) == 13
        assert all({"path", "label", "probability", "top"} <= set(entry) for entry in value)
    else:
        assert value["cache"] == str(cache)


def test_csv(invoke: Any, classifier: Path, pictures: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b'a,"b"\n\xff.jpg')
    (tmp_path / name).write_bytes((pictures / "cat" / "00.jpg").read_bytes())
    result = invoke("predict", classifier, tmp_path, "missing.png", "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(rows[0]) == ["path", "label", "probability", "error"]
    assert rows[0]["path"] == str(tmp_path / r'a,"b"\n\udcff.jpg')
    assert "\n" not in rows[0]["path"]
    assert 0 < float(rows[0]["probability"]) <= 1
    assert rows[1] == {
        "path": "missing.png",
        "label": "",
        "probability": "",
        "error": "missing: there is no such file",
    }


FORMULAS = ["=1+2.jpg", "+1.jpg", "-x.jpg", "@sum.jpg", "＝1.jpg", "'quoted.jpg", "'=both.jpg"]  # noqa: RUF001


def test_no_name_is_a_formula_in_csv_and_every_name_comes_back(
    invoke: Any,
    classifier: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = ["a=b.jpg", "鹿\u3000(1).jpg", "C:\\n.jpg"]
    for name in (*FORMULAS, *plain):
        shutil.copy(pictures / "cat" / "00.jpg", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    result = invoke("predict", "--csv", "--", classifier, *FORMULAS, *plain)
    found = [row["path"] for row in csv.DictReader(io.StringIO(result.stdout))]
    assert found == [f"'{name}" for name in FORMULAS] + plain
    assert [name.removeprefix("'") for name in found] == [*FORMULAS, *plain]


def test_no_label_of_a_cell_is_a_formula(capsys: pytest.CaptureFixture[str]) -> None:
    several = Prediction("a.jpg", None, 0.5, labels=("cat", "=1+2", "a\tb"))
    write_csv([several, Prediction("b.jpg", "@one", 0.5)])
    _, first, second = csv.reader(io.StringIO(capsys.readouterr().out))
    assert first[1] == r"cat;'=1+2;a\tb"
    assert second[1] == "'@one"


def test_names_cannot_disturb_a_terminal(
    run: Any, classifier: Path, pictures: Path, tmp_path: Path
) -> None:
    content = (pictures / "cat" / "00.jpg").read_bytes()
    for name in (b"a\nb.jpg", b"[red]c.jpg", b"d:cat:.jpg", b"e\xff.jpg", b"f\x1b[31m.jpg"):
        Path(tmp_path, os.fsdecode(name)).write_bytes(content)
    done = run("predict", classifier, *sorted(tmp_path.iterdir()), COLUMNS="300")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    for shown in (r"a\nb.jpg", "[red]c.jpg", "d:cat:.jpg", r"e\udcff.jpg", r"f\x1b[31m.jpg"):
        assert f"/{shown} " in text
    assert not ESCAPE.search(text)


def test_names_in_errors_cannot_either(invoke: Any) -> None:
    shown = invoke("probe", "no\n[red]such\x1b[31m:cat:").stderr
    assert "[red]such" in shown
    assert ":cat:" in shown
    assert not ESCAPE.search(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain é", "plain é"), ("a\nb", "a\\nb"), ("\udcff", "\\udcff"), ("\u202e", "\\u202e")],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable("[red]x[/red]") == "\\[red]x\\[/red]"


def test_colours_only_where_asked(
    invoke: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ESCAPE.search(invoke("info", cache).output)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[32mfresh" in invoke("info", cache).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in invoke("info", cache).stdout


def test_pillows_warnings_do_not_clutter(run: Any, pictures: Path, tmp_path: Path) -> None:
    """A JPEG whose EXIF ends too soon is read all the same; Pillow warns about it."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x09\0"  # a directory of nine entries without one
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    for label in ("cat", "coffee"):
        (tmp_path / "p" / label).mkdir(parents=True)
        for name in ("00.jpg", "01.jpg"):
            jpeg = (pictures / label / name).read_bytes()
            (tmp_path / "p" / label / name).write_bytes(jpeg[:2] + segment + jpeg[2:])
    with (
        pytest.warns(UserWarning, match="Corrupt EXIF"),
        Image.open(tmp_path / "p" / "cat" / "00.jpg") as image,
    ):
        image.getexif()
    done = run("extract", tmp_path / "p", "--out", tmp_path / "c", *LIGHT)
    assert done.returncode == 0
    assert b"4 computed, 0 reused, 0 skipped" in done.stdout
    assert done.stderr.decode().splitlines() == [f"probe it: featcache probe {tmp_path / 'c'}"]


def test_a_stale_cache_and_one_that_could_not_be_compared(
    invoke: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    real: InfoResult = api.info(cache)
    states = {
        "stale: weights: a here, b there": Staleness(
            True, None, ChangeCounts(), {}, ("weights: a here, b there",), None
        ),
        "new: 1: cat/[x].jpg": Staleness(
            True, None, ChangeCounts(new=1), {"new": ("cat/[x].jpg",)}, (), None
        ),
        "": Staleness(True, None, ChangeCounts(), {}, (), "the weights are gone"),
    }
    for shown, state in states.items():
        monkeypatch.setattr(api, "info", lambda _, s=state: replace(real, staleness=s))
        result = invoke("info", cache)
        assert shown in result.stdout
        assert "fresh" not in result.stdout
    assert "not compared with its backbone: the weights are gone" in result.stderr


@pytest.mark.slow
def test_demo(run: Any, tmp_path: Path) -> None:
    """The whole main job on the digits; minutes on two cores."""
    done = run("demo", "--out", tmp_path / "demo")
    assert done.returncode == 0
    (accuracy,) = re.findall(r"accuracy (\d+\.\d)%", done.stdout.decode())
    assert 90 < float(accuracy) < 98
    assert (tmp_path / "demo" / "digits.fc").is_file()
    assert done.stdout.count(b"-is-") == 8


def test_repair_tells_what_it_did(invoke: Any, cache: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(cache, tmp_path / "copy")
    shard = next(copy.glob("shards/*/*.h5"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    damaged = invoke("verify", copy)
    assert damaged.exit_code == 1
    assert f"featcache repair {copy}" in damaged.stderr
    dry = invoke("repair", copy, "--dry-run")
    assert dry.exit_code == 1
    assert "1 damaged, with 24 rows; nothing was changed" in dry.stdout
    repaired = invoke("repair", copy)
    assert repaired.exit_code == 0, repaired.stdout + repaired.stderr
    assert "1 damaged: 24 rows dropped, 0 results dropped, 24 rows computed" in repaired.stdout
    assert shard.read_bytes() == content
    again = json.loads(invoke("repair", copy, "--json").stdout)
    assert (again["whole"], again["damaged"], again["missing"]) == (True, [], 0)


EVIL = "\x1b[31mred\x1b]0;title\x07\r[/bold][link=file:///etc]\n"


def disguised(cache: Path, folder: Path) -> Path:
    """A copy of a cache in which every text a stranger can choose would disturb a terminal."""
    shutil.copytree(cache, folder)
    body, _ = documents.decode((folder / "manifest.json").read_bytes())
    index = Cache(folder).index
    names = Strings.of(f"{name}{EVIL}" for name in index.label_names)
    paths = Strings.of(f"{path}{EVIL}" for path in index.paths)
    file, sha256 = write_index(folder, replace(index, label_names=names, paths=paths))
    ((key, entry),) = body["streams"].items()
    entry["stream"]["cut"] = EVIL
    entry["plans"][0] |= {"engine": EVIL, "device": EVIL, "versions": {EVIL: EVIL}}
    moved = Stream.from_dict(entry["stream"]).key
    (folder / "shards" / key[:16]).rename(folder / "shards" / moved[:16])
    body |= {
        "streams": {moved: entry},
        "index": {**body["index"], "file": file, "sha256": sha256},
        "backbone": {"name": f"timm/{EVIL}", "locator": {"kind": EVIL}},
        "source": {"kind": EVIL, "location": EVIL},
    }
    (folder / "manifest.json").write_bytes(documents.encode(body))
    return folder


@pytest.mark.faults
def test_what_a_strangers_cache_says_cannot_disturb_a_terminal(
    invoke: Any, cache: Path, tmp_path: Path, tried: Any
) -> None:
    evil = disguised(cache, tmp_path / "evil")
    write_findings(evil, f"a{EVIL.replace('/', '')}", {"x": EVIL}, {"row": np.arange(3)})
    commands = [
        *(("info", evil), ("verify", evil), ("repair", evil), ("repair", evil, "--dry-run")),
        *(("probe", evil), ("probe", cache, "--cv", "2", "--against", evil), ("prune", evil)),
        ("probe", evil, "--unfreeze", "0-1"),
    ]
    for command in commands:
        said = invoke(*command)
        assert said.exception is None or isinstance(said.exception, SystemExit), command
        told = said.stdout + said.stderr
        assert told
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", told), (command, told)
    tried("terminal escapes in a cache", len(commands), sees="the escape, spelt out")
