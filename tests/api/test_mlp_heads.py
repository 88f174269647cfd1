"""`probe --head mlp` from a cache: the record, the classifier, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import api
from featcache.classifier import files
from featcache.errors import ProbeError
from featcache.probing import labelled_rows
from featcache.store.cache import Cache

QUICK: dict[str, Any] = {
    "head": "mlp",
    "hidden": 24,
    "tolerance": 0.5,
    "training": api.TrainingOptions(epochs=6, rates=(3e-3,)),
}


def test_the_record(extracted: Any) -> None:
    result = api.probe(extracted, **QUICK, suspects=3)
    score = result.mlp
    assert (result.head, score.hidden, score.dropout) == ("mlp", 24, 0.25)
    assert result.path == ()
    assert (result.best_C, result.gap) == (None, None)
    assert result.estimate.accuracy == score.score.accuracy
    assert result.estimate.n == score.difference.n
    assert score.difference.difference == pytest.approx(
        score.score.accuracy - score.linear.accuracy
    )
    assert score.score.overfitting == score.score.train_accuracy - score.score.accuracy
    width = labelled_rows(Cache(Path(extracted))).features.shape[1]
    assert score.linear.params == 3 * (width + 1)
    assert score.score.params == 24 * (width + 1) + 3 * (24 + 1)
    assert "held-out rows" in result.advice or "is enough" in result.advice
    assert result.suspects is not None
    (axes,) = result.plot().axes
    assert list(axes.lines[0].get_ydata()) == [score.linear.accuracy, score.score.accuracy]


def test_the_same_question_has_one_answer_and_another_another_name(extracted: Any) -> None:
    one, same = (api.probe(extracted, **QUICK) for _ in range(2))
    assert one.result == same.result
    assert one.estimate == same.estimate
    others = [{"dropout": 0.5}, {"folds": 2}, {"head": "softmax", "hidden": None}]
    found = [api.probe(extracted, **{**QUICK, **other}).result for other in others]
    assert len({one.result, *found}) == 4


def test_it_is_compared_with_an_earlier_probe(extracted: Any) -> None:
    linear = api.probe(extracted, folds=2, tolerance=0.5)
    found = api.probe(extracted, **QUICK, against=f"{extracted.cache}:{linear.result}")
    assert found.against is not None
    assert found.against.difference.n == found.estimate.n


def test_the_classifier_predicts_what_the_units_give(
    extracted: Any, folders: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mlp.fc"
    result = api.probe(extracted, **QUICK, save=path)
    assert result.saved == str(path)
    content = files.read(path)
    assert content.hidden is not None
    assert content.hidden.coef.shape[0] == 24
    cache = Cache(Path(extracted))
    data = labelled_rows(cache)
    some = [0, 40, 116]
    expected = content.head.probabilities_of(content.logits(data.features[some]))
    pictures = [folders / cache.index.paths[int(data.rows[row])] for row in some]
    for picture, given in zip(api.predict(path, pictures), expected, strict=True):
        assert picture.label == result.classes[int(np.argmax(given))]
        assert picture.probability == pytest.approx(given.max(), abs=1e-3)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("--unfreeze", {"unfreeze": "0-1"}),
    ("--shots", {"shots": (1,)}),
    ("--cut all", {"cut": "all"}),
    ("--tta", {"tta": "mean"}),
    ("--init-from-source", {"init_from_source": {"sky": 1}}),
    ("--data-sizes", {"training": api.TrainingOptions(data_sizes=(50,))}),
    ("--no-lp-init", {"training": api.TrainingOptions(solved_start=False)}),
    ("--cutmix", {"training": api.TrainingOptions(cutmix=1.0)}),
    ("--batchnorm-moves", {"training": api.TrainingOptions(batchnorm_moves=True)}),
]


@pytest.mark.parametrize(("option", "given"), REFUSED)
def test_what_would_be_ignored_is_refused(
    extracted: Any, option: str, given: dict[str, Any]
) -> None:
    with pytest.raises(
        ProbeError, match=f"trains new units on the cached features; leave out {option}"
    ):
        api.probe(extracted, **{**QUICK, **given})


def test_a_protocol_brings_its_own_head(extracted: Any) -> None:
    with pytest.raises(ProbeError, match="leave out --head mlp"):
        api.probe(extracted, **QUICK, protocol="clip")


@pytest.mark.parametrize("option", ["hidden", "dropout"])
def test_units_of_another_head_are_refused(extracted: Any, option: str) -> None:
    with pytest.raises(ProbeError, match=f"--{option} is of new units; give --head mlp"):
        api.probe(extracted, **{option: 0.5})


def test_features_larger_than_memory(extracted: Any) -> None:
    roomy = api.probe(extracted, **QUICK)
    tight = api.probe(extracted, **QUICK, memory=80_000)
    assert tight.mlp.score.log_loss == pytest.approx(roomy.mlp.score.log_loss, rel=1e-4)
