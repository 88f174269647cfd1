"""The commands that a page gives are taken by the command line, and ask for the same."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from featcache import api
from featcache.api.kept_results import kept_result
from featcache.api.requests import ProbeRequest, TrainingOptions, options_given
from featcache.report.commands import probe_command, reproduction
from featcache.results import ProbeResult
from featcache_cli.app import app

QUICK: dict[str, Any] = {"folds": 2, "tolerance": 0.5}

REQUESTS: list[dict[str, Any]] = [
    {},
    {"head": "logistic", "class_weight": "balanced", "standardize": True, "seed": 3},
    {"protocol": "dinov2-knn", "cut": "layer 4's $HOME"},
    {"views": 2, "augment": "randaugment:2,9", "augment_seed": 5, "tta": "max"},
    {"shots": (1, 2, None), "seeds": 3, "suspects": 4, "against": "other cache:0123"},
    {"init_from_source": {"tabby cat": 281, "a=b": 3}, "folds": 7, "tolerance": 1e-6},
    {"label_smoothing": 0.1, "training": TrainingOptions(label_smoothing=0.1)},
    {"head": "mlp", "hidden": 64, "dropout": 0.5, "margin": 0.02, "backbone": "my.module:net"},
    {
        "unfreeze": "0-3,all",
        "training": TrainingOptions(
            epochs=3,
            rates=(3e-4, 1e-3),
            optimizer="sgd",
            schedule="one-cycle",
            batch_size=16,
            head_factor=2.5,
            solved_start=False,
            mixup=0.2,
            cutmix=1.0,
            seeds=3,
            batchnorm_moves=True,
            data_sizes=(50, None),
            live=True,
            image_sizes=((128, 2), (224, 3)),
            compare_scratch=True,
        ),
    },
]


def _asked(command: str, monkeypatch: pytest.MonkeyPatch) -> ProbeRequest:
    """What the library is asked when a command line runs."""
    seen: list[ProbeRequest] = []

    class _StopError(Exception):
        pass

    def probe(cache: Path, *, progress: Any, **options: Any) -> None:
        seen.append(ProbeRequest(cache, **options))
        raise _StopError

    monkeypatch.setattr(api, "probe", probe, raising=False)
    program, *arguments = shlex.split(command)
    assert program == "featcache"
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, _StopError), done.output
    return seen[0]


@pytest.mark.parametrize("options", REQUESTS, ids=[",".join(r) or "plain" for r in REQUESTS])
def test_a_probe_is_asked_the_same(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ProbeRequest(Path("a cache; rm"), **options)
    given = json.loads(json.dumps(options_given(request)))  # as it is kept
    assert _asked(probe_command("a cache; rm", given), monkeypatch) == request


def test_every_option_was_tried() -> None:
    """Of all that the command line has; the rest decides no number, or is Python's only."""
    tried = {name for request in REQUESTS for name in request}
    kept = {f.name for f in fields(ProbeRequest)} - {
        *("cache", "memory", "device", "save", "embed_backbone", "trust")
    }
    assert tried == kept
    options = {f.name for f in fields(TrainingOptions)}
    tried = {
        name
        for request in REQUESTS
        for name in options_given(ProbeRequest("c", **request)).get("training", {})
    }
    assert options - tried == {
        "clip",
        "held_out",
        "patience",
        "progressive",
        "unit_decay",
        "weight_decay",
    }


def test_what_python_alone_can_ask_is_given_in_python(cache: Path) -> None:
    training = TrainingOptions(epochs=1, weight_decay=0.1, rates=(1e-3, 3e-3))
    request = ProbeRequest(cache, head="mlp", hidden=4, training=training, **QUICK)
    kept = kept_result(_result(api.probe(request)))
    again = reproduction(kept)
    assert "training.weight_decay" in again.notes[0]
    asked: list[ProbeRequest] = []
    scope = {
        "fc": type(
            "fc",
            (),
            {
                "probe": lambda *a, **k: asked.append(ProbeRequest(*a, **k)),
                "TrainingOptions": TrainingOptions,
            },
        )
    }
    exec(again.python.partition("\n")[2], scope)
    assert options_given(asked[0]) == options_given(request)


def _result(probed: ProbeResult) -> str:
    return f"{probed.cache}:{probed.result}"


def test_the_commands_find_everything_there(probed: ProbeResult) -> None:
    """Run again, the extraction computes nothing, and the probe finds the same under one name."""
    extract, probe, report = reproduction(kept_result(_result(probed))).commands
    done = CliRunner().invoke(app, [*shlex.split(extract)[1:], "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["computed"] == 0
    done = CliRunner().invoke(app, [*shlex.split(probe)[1:], "--json"])
    assert done.exit_code == 0, done.output
    again = json.loads(done.stdout)
    assert again["result"] == probed.result
    assert again["estimate"] == probed.to_json()["estimate"]
    assert shlex.split(report) == ["featcache", "report", probed.cache]
