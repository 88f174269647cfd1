"""`probe --head mlp` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QUICK = ("--head", "mlp", "--hidden", "8", "--epochs", "2", "--rates", "1e-3", "--tol", "0.5")


def test_both_heads_in_80_columns(invoke: Any, cache: Path) -> None:
    result = invoke("probe", cache, *QUICK)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    rows = [line.split() for line in lines]
    assert [row[0] for row in rows if row and row[0] in ("linear", "mlp")] == ["linear", "mlp"]
    title = next(i for i, line in enumerate(lines) if "by head, on the same held-out" in line)
    assert max(map(len, lines[title : title + 4])) <= 80
    assert any(line.startswith("mlp: 8 hidden units, dropout 0.25, rate 0.001") for line in lines)
    assert any(line.startswith("advice: ") for line in lines)
    assert "--head mlp --save my.fc" in result.stderr


def test_json(invoke: Any, cache: Path) -> None:
    result = invoke("probe", cache, *QUICK, "--dropout", "0.5", "--json")
    found = json.loads(result.stdout)
    assert found["head"] == "mlp"
    assert found["estimate"]["accuracy"] == found["mlp"]["score"]["accuracy"]
    assert found["mlp"]["dropout"] == 0.5
    assert set(found["mlp"]["difference"]) == {"difference", "ci95", "p_value", "method", "n"}


def test_a_share_that_cannot_be(invoke: Any, cache: Path) -> None:
    result = invoke("probe", cache, *QUICK, "--dropout", "1")
    assert result.exit_code == 1
    assert "dropout 1.0: give at least 1, and 0 to below 1" in " ".join(result.output.split())
