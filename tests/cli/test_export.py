"""`featcache export` writes what it says, and says how to read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def test_a_cache_goes_out(invoke: Any, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "drinks.npz"
    done = invoke("export", cache, "-o", file, "--result", "none")
    assert done.exit_code == 0, done.output
    assert "24 pictures, 2 classes, penultimate 96" in done.stdout
    assert "left out, since they have no features: 1" in done.stdout
    assert np.load(file)["features"].shape == (24, 96)
    again = invoke("export", cache, "-o", file)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "is there already; give another name, or --overwrite" in again.output
    assert f"see what is in the cache: featcache info {cache}\n" in done.stderr
    exec(done.stdout[done.stdout.index("import numpy") :], {})


def test_json_says_the_same(invoke: Any, cache: Path, tmp_path: Path) -> None:
    done = invoke("export", cache, "-o", tmp_path / "x", "--format", "csv", "--json")
    told = json.loads(done.stdout)
    assert (told["rows"], told["skipped"], told["format"]) == (24, 1, "csv")
    assert told["bytes"] == (tmp_path / "x").stat().st_size
    assert done.stderr == ""


def test_a_classifier_goes_out(invoke: Any, cache: Path, classifier: Path, tmp_path: Path) -> None:
    done = invoke("export", classifier, "-o", tmp_path / "x.torchscript")
    assert done.exit_code == 0, done.output
    assert "takes pixels: uint8 (N, 32, 32, 3)\ngives probabilities: float32 (N, 2)" in done.stdout
    assert f"try it on a page: featcache serve {classifier}\n" in done.stderr
    assert "checked on 8 pictures: log-probabilities differ by " in done.stdout
    compile(done.stdout[done.stdout.index("import json") :], "example", "exec")
    for source, option in ((classifier, "--views"), (cache, "--input=uint8")):
        refused = invoke("export", source, "-o", tmp_path / "y", option)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert f"{option.partition('=')[0]} is for the export of a" in refused.output
