"""`featcache report` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache import api


@pytest.fixture(scope="module")
def probed(cache: Path) -> str:
    return str(api.probe(cache, folds=2, tolerance=0.5).result)


def test_a_page_is_written(
    cache: Path, probed: str, invoke: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "a new folder" / "drinks.html"
    done = invoke("report", f"{cache}:{probed}", "-o", out, "--points", 0)
    assert done.exit_code == 0, done.output
    assert f"written: {out}" in done.stdout.replace("\n", "")
    assert f"result {probed}" in done.stdout
    assert f"open it in a browser: {out.as_uri()}\n" in done.stderr
    assert "drinks" in out.read_text("utf-8")


def test_json_says_what_was_written(
    cache: Path, probed: str, invoke: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "drinks.html"
    done = invoke("report", cache, "-o", out, "--points", 10, "--mistakes", 1, "--json")
    said = json.loads(done.stdout)
    assert (said["path"], said["cache"], said["result"]) == (str(out), str(cache), probed)
    assert said["bytes"] == out.stat().st_size
    assert said["left_out"] == 0


def test_a_cache_that_was_never_probed(
    pictures: Path, invoke: Callable[..., Any], tmp_path: Path
) -> None:
    light = {"backbone": "timm/test_resnet", "weights": "random", "image_size": 32}
    cache = api.extract(pictures, out=tmp_path / "fresh", **light).cache
    done = invoke("report", cache, "-o", tmp_path / "a.html")
    assert done.exit_code == 1
    assert f"was never probed; run `featcache probe {cache}` first" in done.stderr.replace("\n", "")
    assert not (tmp_path / "a.html").exists()
