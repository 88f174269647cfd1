"""In 80 columns, without colours, whatever things are called; and each command names the next."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from skimage import data

from featcache.rounding import digits
from featcache_cli.rendering import Ending, show, table

LIGHT = ("--weights", "random", "--image-size", "32")
NAMES = ("timm/test_resnet", "timm/test_efficientnet")
FAST = ("--cv", "2", "--tol", "0.5")
COMMANDS = ("extract", "probe", "compare", "predict", "layers", "backbones", "info", "verify")
COMMANDS = (*COMMANDS, "repair", "prune", "report", "export")
LONG = "a class of a very long name, so long that no table of eighty columns has room for it"
CJK = "とても長い名前のクラス・猫と犬と小鳥の写真をすべて集めたもの・第二版・改訂"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d|10[0-7])(?:;\d+)*m")
ESCAPE = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]")


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and two caches of them, in folders that a shell must have quoted."""
    root = tmp_path_factory.mktemp("a folder's $name") / "写真 [bold]"
    rng = np.random.default_rng(0)
    for name, photo in {LONG: data.chelsea(), CJK: data.coffee()}.items():
        (root / "pictures" / name).mkdir(parents=True)
        for i, (y, x) in enumerate(rng.integers(190, size=(9, 2))):
            stem = "ねこの写真" * 6 if i % 2 else "a picture of a long name " * 4
            crop = Image.fromarray(photo[y : y + 90, x : x + 90])
            crop.save(root / "pictures" / name / f"{stem} {i}.jpg")
    (root / "pictures" / LONG / "broken picture.jpg").write_bytes(b"this is no picture, surely")
    return root


@pytest.fixture(scope="module")
def made(strange: Path) -> Iterator[list[Path]]:
    """The caches, made once, and a classifier of the first."""
    from featcache import api

    out = strange / "caches"
    options: dict[str, Any] = {"weights": "random", "image_size": 32, "cuts": ("all",)}
    names = ",".join(NAMES)
    caches = [
        Path(each.cache)
        for each in api.extract_each(strange / "pictures", backbone=names, out=out, **options)
    ]
    api.probe(caches[0], folds=2, tolerance=0.5, save=strange / "my class.fc")
    yield caches
    shutil.rmtree(out)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines of all tables that are printed."""
    lines: list[str] = []
    real = Console.print

    def watched(self: Console, *objects: Any, **options: Any) -> None:
        if objects and isinstance(objects[0], Table):
            with self.capture() as captured:
                real(self, *objects, **options)
            lines.extend(captured.get().splitlines())
        real(self, *objects, **options)

    monkeypatch.setattr(Console, "print", watched)
    return lines


def arguments(command: str, strange: Path, made: list[Path]) -> tuple[Any, ...]:
    pictures = strange / "pictures"
    given: dict[str, tuple[Any, ...]] = {
        "extract": (pictures, "--backbone", ",".join(NAMES), "--out", strange / "caches", *LIGHT),
        "probe": (
            *(made[0], *FAST, "--cut", "all", "--suspects", "5", "--shots", "1,2,all"),
            *("--seeds", "2", "--against", made[1]),
        ),
        "compare": (*made, *FAST),
        "predict": (strange / "my class.fc", pictures / LONG, pictures / CJK),
        "layers": (NAMES[0],),
        "backbones": ("timm/vit",),
        "report": (made[0], "--out", strange / "a page.html", "--points", "0"),
        "export": (made[0], "--out", strange / "rows.npz", "--overwrite"),
    }
    return given.get(command, (made[0],))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_fits_and_names_the_next(
    invoke: Callable[..., Any], strange: Path, made: list[Path], tables: list[str], command: str
) -> None:
    if command == "compare":
        invoke("probe", made[1], *FAST)
    if command == "probe":
        invoke("probe", made[1], *FAST)
    done = invoke(command, *arguments(command, strange, made))
    assert done.exit_code == 0, done.output
    assert max(map(cell_len, tables), default=0) <= 80
    assert bool(tables) == (command not in ("verify", "repair", "prune", "report", "export"))
    (told,) = [line for line in done.stderr.splitlines() if ": featcache " in line][-1:]
    reason, _, text = told.partition(": ")
    program, subcommand, *rest = shlex.split(text)
    assert (program, bool(reason)) == ("featcache", True)
    assert subcommand in COMMANDS
    paths = [argument for argument in rest if "/" in argument and argument not in NAMES]
    for path in paths:
        assert Path(path).exists() or path.startswith("timm/"), path
    assert paths or command in ("layers", "backbones")


def test_what_a_table_says_of_names_and_numbers(
    invoke: Callable[..., Any], strange: Path, made: list[Path]
) -> None:
    """Names are cut, of paths the end stays; no number is."""
    shown = invoke("predict", strange / "my class.fc", strange / "pictures").stdout
    rows = [line for line in shown.splitlines() if re.search(r"\d\.\d%|unreadable", line)]
    assert len(rows) == 19  # each picture in one line
    assert all(row.startswith("…") and ".jpg" in row for row in rows)
    assert "not a picture: none of" in shown
    compared = invoke("compare", *made, *FAST).stdout
    scores = [line for line in compared.splitlines() if re.search(r"\d to \d+ +\d+%", line)]
    assert len(scores) == 2  # of 18 pictures: no decimal
    assert all(line.lstrip("* ").startswith("timm/test_") for line in scores)


@pytest.mark.parametrize("command", ["predict", "probe", "info", "compare", "verify"])
def test_nothing_is_said_by_colour_alone(
    invoke: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    strange: Path,
    made: list[Path],
    command: str,
) -> None:
    given = arguments(command, strange, made)
    given = (made[0], *FAST) if command == "probe" else given

    def printed() -> tuple[str, list[str]]:
        """What is on stdout but for seconds, and the words that follow it on stderr."""
        done = invoke(command, *given)
        next_one = [line for line in done.stderr.splitlines() if ": featcache " in line][-1]
        return re.sub(r"\d+\.\d+ s\b", "", done.stdout), ESCAPE.sub("", next_one).split()

    plain = printed()
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = printed()
    assert ESCAPE.search(coloured[0]) or command == "verify"
    assert (ESCAPE.sub("", coloured[0]), coloured[1]) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(printed()[0])


@given(st.floats(0.0001, 0.5))
def test_the_last_digit_is_a_tenth_of_what_the_interval_leaves_open(half: float) -> None:
    decimals = digits((0.5 - half, 0.5 + half))
    step, tenth = 10.0**-decimals, 100 * half / 10
    assert step <= tenth * (1 + 1e-9) or decimals == 3
    assert 10 * step > tenth * (1 - 1e-9) or decimals == 0


def test_digits_of_several_are_those_of_the_narrowest() -> None:
    assert digits((0.9, 0.96)) == 1  # 93 to 3 points
    assert digits((0.6, 0.96)) == 0
    assert digits((0.6, 0.96), (0.948, 0.952)) == 2
    assert digits((1.0, 1.0)) == digits() == 1


@given(st.text(st.sampled_from("ab/é猫🐈 [x]\\"), max_size=60), st.integers(12, 60))
def test_an_ending_is_never_wider_than_its_room(text: str, width: int) -> None:
    rows = table("~path", ">n")
    rows.add_row(Ending(text), "1234567")
    console = Console(width=width, color_system=None, emoji=False)
    with console.capture() as captured:
        console.print(rows)
    _, row = captured.get().splitlines()
    assert cell_len(row) <= width
    assert row.rstrip().endswith("1234567")
    shown = row.rstrip().removesuffix("1234567").rstrip()
    assert text.rstrip().endswith(shown.removeprefix("…"))
    if math.isclose(cell_len(text), 0):
        assert not shown


def test_a_title_is_not_broken_by_a_narrow_table(capsys: pytest.CaptureFixture[str]) -> None:
    listing = table(">n", title="\naccuracy by number of training pictures (* highest)")
    listing.add_row("64")
    show(listing)
    title, header, row = capsys.readouterr().out.strip("\n").splitlines()
    assert title.strip() == "accuracy by number of training pictures (* highest)"
    assert (header.split(), row.split()) == (["n"], ["64"])
