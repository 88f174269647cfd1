"""`--help` starts at once, teaches, and fits into 80 columns."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

COMMANDS = (
    *("extract", "probe", "compare", "predict", "report", "export", "serve", "layers", "backbones"),
    *("info", "verify", "repair", "prune", "demo"),
)

PROBE = """
import sys
sys.argv = ["featcache", {arguments}]
from featcache_cli.app import main
try:
    main()
except SystemExit as end:
    heavy = "torch", "timm", "sklearn", "scipy", "numpy", "h5py", "PIL", "torchvision"
    print("loaded:", [m for m in heavy if m in sys.modules], end.code)
"""


@pytest.mark.parametrize("arguments", ["'--help'", "'extract', '--help'", "'--version'"])
def test_nothing_heavy_is_imported_for_help(arguments: str) -> None:
    code = PROBE.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "loaded: [] 0"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_has_an_example_and_fits(invoke: Any, command: str) -> None:
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert "For example" in result.stdout
    assert f"$ featcache {command}".strip() in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "…" not in result.stdout  # nothing is cut off
    assert "[bold]" not in result.stdout


def test_brackets_in_help_are_shown(invoke: Any) -> None:
    assert "path,label[,split][,group]" in invoke("extract", "--help").stdout
    assert "std[," in invoke("extract", "--help").stdout


def test_help_names_every_command(invoke: Any) -> None:
    listed = invoke("--help").stdout
    assert all(f"│ {command} " in listed for command in COMMANDS)
    assert invoke().exit_code in (0, 2)  # without a command: the same help
    assert "Commands" in invoke().output


def test_version(run: Any) -> None:
    from featcache import __version__

    done = run("--version")
    assert (done.returncode, done.stdout.decode()) == (0, f"featcache {__version__}\n")
