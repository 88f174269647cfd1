"""Exit codes, and errors in a line or two: what happened, to what, and what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from featcache import api


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("extract", "no-such-folder"), "no-such-folder is no folder or file"),
        (("extract", "digts"), "did you mean digits?"),
        (("extract", "digits", "--backbone", "resnet5"), "resnet5"),
        (("probe", "no-such-cache"), "no-such-cache"),
        (("info", "no-such-cache"), "no-such-cache"),
        (("verify", "no-such-cache"), "no-such-cache"),
        (("repair", "no-such-cache"), "no-such-cache"),
        (("prune", "no-such-cache"), "no-such-cache"),
        (("predict", "none.fc", "a.jpg"), "none.fc: no such classifier; make one with"),
    ],
)
def test_an_error_is_a_line_and_exit_1(invoke: Any, arguments: Any, says: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" in invoke("--debug", "probe", "no-such-cache").stderr
    monkeypatch.setenv("FEATCACHE_DEBUG", "1")
    assert "CacheMissingError" in invoke("probe", "no-such-cache").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("probe",),
        ("probe", "c", "--cv", "1"),
        ("probe", "c", "--head", "forest"),
        ("probe", "c", "--shots", "0"),
        ("probe", "c", "--init-from-source", "cat"),
        ("probe", "c", "--protocol", "imagenet"),
        ("probe", "c", "--shots", "few"),
        ("probe", "c", "--memory", "much"),
        ("probe", "c", "--memory", "0GB"),
        ("probe", "c", "--label-smoothing", "2"),
        ("probe", "c", "--class-weight", "mine"),
        ("extract", "d", "--store-dtype", "int8"),
        ("extract", "d", "--no-such-option"),
        ("predict", "a.fc"),
        ("predict", "a.fc", "b.png", "--top", "0"),
        ("predict", "a.fc", "b.png", "--min-probability", "2"),
        ("predict", "a.fc", "b.png", "--json", "--csv"),
    ],
)
def test_wrong_usage_is_exit_2(invoke: Any, arguments: Any) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


def test_an_interrupted_command_is_exit_130_and_says_what_is_kept(
    invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "extract", interrupted)
    result = invoke("extract", "digits")
    assert result.exit_code == 130
    assert "what was finished is kept, run the same command again" in result.stderr


def test_ctrl_c_in_the_middle_of_an_extraction(script: Path, tmp_path: Path) -> None:
    """A real signal; what was committed before it is reused by the next run."""
    command = [script, "extract", "digits", "--weights", "random", "--image-size", "64"]
    command += ["--backbone", "shufflenet_v2_x0_5", "--batch-size", "1", "--out", tmp_path / "c"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "c" / "manifest.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(started.pid, signal.SIGINT)
        out, err = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 130
    assert out == b""
    assert b"interrupted; what was finished is kept" in err
    assert b"Traceback" not in err
    assert api.verify(tmp_path / "c").damaged == ()
