"""Joined with its backbone, a classifier gives from pixels what was measured on features."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import api
from featcache.classifier import files
from featcache.classifier.joined import load_classifier, trusted_name
from featcache.errors import BackboneError, ClassifierError, WeightsError
from featcache.store.cache import Cache


def paths_of(cache: Path, pictures: Path) -> list[str]:
    return [str(pictures / path) for path in Cache(cache).index.paths]


def test_from_pixels_as_from_features(saved: Path, cache: Path, pictures: Path) -> None:
    loaded = load_classifier(saved)
    answers = list(loaded.answers(paths_of(cache, pictures)))
    opened = Cache(cache)
    features = opened.stream().read(opened.stream().positions(opened.index.hashes))
    head = loaded.content.head
    logits = np.stack([answer.logits for answer in answers])
    np.testing.assert_allclose(logits, head.logits(features), atol=1e-4)
    np.testing.assert_allclose(
        loaded.probabilities(logits), head.probabilities(features), atol=1e-5
    )


def test_processes_give_the_answers_of_threads(
    saved: Path, cache: Path, pictures: Path, tmp_path: Path, by_processes: Any
) -> None:
    loaded, broken = load_classifier(saved), tmp_path / "broken.png"
    broken.write_bytes(b"no picture, but some bytes")
    some = [*paths_of(cache, pictures), str(broken), "missing.png"] * 4
    expected = list(loaded.answers(some))
    asked = by_processes()
    found = list(loaded.answers(some))
    assert sum(asked) > 0
    for one, other in zip(expected, found, strict=True):
        assert (one.path, one.error) == (other.path, other.error)
        assert one.error or np.array_equal(one.logits, other.logits)
    assert sum(answer.error is not None for answer in found) == 8


def test_a_picture_gives_the_same_alone_and_among_others(
    saved: Path, cache: Path, pictures: Path
) -> None:
    loaded = load_classifier(saved)
    some = paths_of(cache, pictures)
    some = [*some, "missing.png", *some]  # more than a forward pass takes
    together = list(loaded.answers(some))
    assert [answer.path for answer in together] == some
    assert together[28].logits is None
    assert "missing" in str(together[28].error)
    for i in (0, 27, 29, 56):
        (alone,) = loaded.answers([some[i]])
        np.testing.assert_allclose(alone.logits, together[i].logits, atol=1e-4)


def test_embedded_it_needs_no_weights_file(pictures: Path, tmp_path: Path, weights: Any) -> None:
    file = weights("net.safetensors", 5)
    cache = api.extract(
        pictures, backbone="timm/test_resnet", weights=file, image_size=48, out=tmp_path / "c"
    )
    small, whole = tmp_path / "small.fc", tmp_path / "whole.fc"
    api.probe(cache, folds=2, save=small)
    api.probe(cache, folds=2, save=whole, embed_backbone=True)
    before = api.predict(small, [str(pictures / "cat")])
    assert api.predict(whole, [str(pictures / "cat")]) == before

    file.rename(tmp_path / "moved.safetensors")
    assert api.predict(whole, [str(pictures / "cat")]) == before
    with pytest.raises(
        WeightsError, match=r"weights are not where they were: .*net\.safetensors.*--weights"
    ) as caught:
        api.predict(small, [str(pictures / "cat")])
    assert str(small) in str(caught.value)
    moved = tmp_path / "moved.safetensors"
    assert api.predict(small, [str(pictures / "cat")], weights=moved) == before


def test_other_weights_are_refused_by_field(saved: Path, weights: Any) -> None:
    with pytest.raises(
        ClassifierError, match=r"not the one the head was fitted on \(weights: .*--weights"
    ) as caught:
        load_classifier(saved, weights=weights("other.safetensors", 9))
    assert str(saved) in str(caught.value)


def test_a_changed_embedded_tensor_is_refused(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "whole.fc"
    api.probe(cache, folds=2, save=path, embed_backbone=True)
    content = files.read(path)
    name = next(iter(content.backbone_tensors))
    changed = dict(content.backbone_tensors)
    changed[name] = changed[name] + 1
    path.write_bytes(files.encode(replace(content, backbone_tensors=changed)))
    with pytest.raises(ClassifierError, match="weights: "):
        load_classifier(path)


def test_ones_own_network_runs_only_when_vouched_for(
    pictures: Path, tmp_path: Path, factory: Path
) -> None:
    name, path = "mynet:make", tmp_path / "own.fc"
    cache = api.extract(pictures, backbone=name, out=tmp_path / "c")
    assert factory.exists()

    def forget() -> None:
        sys.modules.pop("mynet", None)
        factory.unlink(missing_ok=True)

    forget()
    with pytest.raises(ClassifierError, match=f"which runs code; if you trust .*--backbone {name}"):
        api.probe(cache, folds=2, save=path)
    assert not path.exists()
    assert api.info(cache).staleness.recipe_reason is not None
    assert not factory.exists()

    api.probe(cache, folds=2, save=path, backbone=name)
    assert factory.exists()
    forget()
    with pytest.raises(ClassifierError, match=f"runs code.*--backbone {name}") as caught:
        api.predict(path, [str(pictures / "cat")])
    assert str(path) in str(caught.value)
    assert not factory.exists()
    assert len(api.predict(path, [str(pictures / "cat")], backbone=name)) == 14

    forget()
    (tmp_path / "mynet.py").write_text((tmp_path / "mynet.py").read_text() + "\n# edited\n")
    with pytest.raises(ClassifierError, match=r"architecture: .*probe again with the network"):
        api.predict(path, [str(pictures / "cat")], backbone=name)


def test_another_name_than_the_recorded_one_is_refused() -> None:
    assert trusted_name("resnet18", None) == "resnet18"
    assert trusted_name("a:b", "a:b") == "a:b"
    with pytest.raises(ClassifierError, match="--backbone c:d: the features are those of a:b"):
        trusted_name("a:b", "c:d")


def test_a_network_that_is_gone_names_the_classifier(saved: Path, tmp_path: Path) -> None:
    content = files.read(saved)
    gone = replace(content, backbone=content.backbone | {"name": "timm/no_such_network"})
    path = tmp_path / "gone.fc"
    path.write_bytes(files.encode(gone))
    with pytest.raises(BackboneError, match="no_such_network") as caught:
        load_classifier(path)
    assert str(path) in str(caught.value)
