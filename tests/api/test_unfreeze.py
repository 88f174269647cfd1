"""`probe --unfreeze` end to end: the sweep in the result, and a tuned classifier in use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featcache import api
from featcache.errors import ProbeError
from featcache.evaluation import recommendation
from featcache.store.steps import SWEEPS

QUICK: dict[str, Any] = {
    "tolerance": 0.01,
    "training": api.TrainingOptions(epochs=3, rates=(3e-3,), batch_size=16),
}


@pytest.fixture(scope="module")
def cached(folders: Path, light: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("caches") / "kinds"
    cuts = ("layer3.0", "layer2.0")
    return api.extract(folders, out=out, cuts=cuts, pooling="none", **light)


@pytest.fixture(scope="module")
def swept(cached: Any) -> Any:
    return api.probe(cached, unfreeze="0-2", **QUICK)


def test_a_row_a_depth_beside_the_probe(swept: Any, cached: Any) -> None:
    assert [score.depth for score in swept.unfreeze] == [0, 1, 2]
    assert [score.cut for score in swept.unfreeze] == ["penultimate", "layer3.0", "layer2.0"]
    rows = {row.depth: row for row in api.layers("timm/test_resnet", image_size=32)}
    head = 3 * (96 + 1)
    for score in swept.unfreeze:
        trained = rows[score.depth].params_trainable if score.depth else 0
        assert score.params_trainable == trained + head
        assert not score.depth or score.params_frozen == rows[score.depth].params_frozen
        assert score.params_total == score.params_trainable + score.params_frozen
        assert score.overfitting == pytest.approx(score.train_accuracy - score.accuracy)
        assert (score.against_depth_0 is None) == (score.depth == 0)
    assert swept.advice
    assert not list((Path(cached.cache) / SWEEPS).glob("*"))


def test_json_has_the_keys_of_a_sweep(swept: Any) -> None:
    found = swept.to_json()
    keys = {
        *("depth", "cut", "accuracy", "ci95", "train_accuracy", "params_total"),
        *("params_trainable", "params_frozen", "seconds"),
    }
    assert all(keys <= row.keys() for row in found["unfreeze"])
    assert {"recommended_depth", "advice"} <= found.keys()


@pytest.mark.parametrize("embed", [False, True])
def test_a_tuned_classifier_is_saved_and_predicts(
    cached: Any, unseen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embed: bool
) -> None:
    """Whatever the advice on so few pictures, the deepest is taken here."""

    def deepest(right: Any, *args: Any, **options: Any) -> Any:
        found = recommendation.recommend(right, *args, **options)
        return replace(found, depth=right.shape[1] - 1)

    monkeypatch.setattr("featcache.unfreezing.sweeping.recommend", deepest)
    file = tmp_path / "kinds.fc"
    result = api.probe(cached, unfreeze="0-2", save=file, embed_backbone=embed, **QUICK)
    assert (result.recommended_depth, result.saved) == (2, str(file))
    found = api.predict(file, [unseen])
    right = [Path(p.path).name.startswith(f"{p.label}-") for p in found]
    assert sum(right) / len(right) > 0.6


def test_the_sweep_repeats_on_fewer_pictures(cached: Any) -> None:
    options = replace(QUICK["training"], data_sizes=(30, None), epochs=1)
    result = api.probe(cached, unfreeze="1", tolerance=0.01, training=options)
    assert result.data_sizes[0].n_train == 30
    assert result.data_sizes[1].n_train > 60
    assert all(len(size.scores) == 2 for size in result.data_sizes)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"head": "ridge"}, "starts from the solved default head; leave out --head ridge"),
        ({"cut": "layer3.0"}, "starts from the solved default head; leave out --cut layer3.0"),
        (
            {"training": api.TrainingOptions(data_sizes=(10**6,))},
            r"1000000 pictures: give from \d+ \(two a class\) to \d+, which is all that may train",
        ),
        ({"unfreeze": "0-99"}, "0-99"),
        ({"margin": 0.0}, "margin 0.0"),
        ({"training": api.TrainingOptions(rates=(0.0,))}, "rates"),
    ],
)
def test_what_cannot_be_swept_is_refused_by_name(
    cached: Any, options: dict[str, Any], says: str
) -> None:
    stages: set[str] = set()
    with pytest.raises(ProbeError, match=says):
        api.probe(
            cached,
            **{"unfreeze": "1", "tolerance": 0.01, **options},
            progress=lambda stage, _done, _total: stages.add(stage),
        )
    assert stages <= {"fit"}, "no time is spent on training"
