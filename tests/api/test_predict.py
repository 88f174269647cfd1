"""`predict`: files, folders and patterns, in order, whatever cannot be read among them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import api
from featcache.classifier.joined import load_classifier
from featcache.errors import AugmentationError, ClassifierError, SourceError
from featcache.images.expanding import expand
from featcache.store.cache import Cache


@pytest.fixture(scope="module")
def classifier(extracted: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifiers") / "kinds.fc"
    api.probe(extracted, tolerance=0.5, folds=2, save=path)
    return path


def test_files_folders_and_patterns_in_the_order_named(
    classifier: Path, unseen: Path, folders: Path
) -> None:
    one = str(unseen / "thing-coffee-1.png")
    named = [one, str(folders / "sky"), str(unseen / "*-grass-*.png"), "missing.jpg", one]
    predictions = api.predict(classifier, named)
    paths = [p.path for p in predictions]
    assert paths[0] == paths[-1] == one
    assert paths[1:40] == sorted(map(str, (folders / "sky").iterdir()))
    assert paths[40:42] == [str(unseen / f"texture-grass-{i}.png") for i in (0, 1)]
    assert paths[42] == "missing.jpg"
    assert predictions[0].label == predictions[-1].label
    alike = pytest.approx(predictions[0].probability, rel=1e-6)  # in a batch of another size
    assert predictions[-1].probability == alike
    assert [p.error is None for p in predictions] == [True] * 42 + [False, True]


def test_a_picture_that_cannot_be_read_stops_nothing(
    classifier: Path, unseen: Path, tmp_path: Path
) -> None:
    good = str(unseen / "thing-coffee-1.png")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 and no more than this")
    (alone,) = api.predict(classifier, good)
    first, bad, folder, last = api.predict(classifier, [good, broken, tmp_path / "no", good])
    assert (bad.label, bad.probability, bad.top) == (None, None, ())
    assert bad.error
    assert folder.error == "missing: there is no such file"
    assert first == last
    assert first.label == alone.label
    assert first.probability == pytest.approx(alone.probability, abs=1e-5)


def test_top_and_the_least_probability(classifier: Path, unseen: Path) -> None:
    (all_three,) = api.predict(classifier, [str(unseen / "thing-coffee-1.png")], top=10)
    ranked = [entry.probability for entry in all_three.top]
    assert ranked == sorted(ranked, reverse=True)
    assert len(ranked) == 3
    (one,) = api.predict(classifier, [str(unseen / "thing-coffee-1.png")], top=1)
    assert one.top == all_three.top[:1]
    assert one.labels is None
    strict = api.predict(classifier, unseen, min_probability=1.0)
    assert all(p.label is None or p.probability == 1.0 for p in strict)
    assert any(p.label is None and p.probability for p in strict)


def test_progress(classifier: Path, unseen: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    api.predict(classifier, unseen, progress=lambda *a: seen.append(a))
    assert seen == [("predict", i, 18) for i in range(1, 19)]


@pytest.mark.parametrize(
    "wrong", [{"top": 0}, {"min_probability": 1.5}, {"min_probability": float("nan")}]
)
def test_what_cannot_be_asked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ClassifierError, match="give"):
        api.predict("any.fc", ["a.jpg"], **wrong)


def test_expanding(tmp_path: Path) -> None:
    for name in ("a/2.JPG", "a/1.png", "a/deep/3.webp", "a/.hidden.png", "a/.no/4.png", "a/n.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "x[1].png").touch()
    root = str(tmp_path)
    below = [f"{root}/a/1.png", f"{root}/a/2.JPG", f"{root}/a/deep/3.webp"]
    assert expand([f"{root}/a"]) == below
    assert expand([f"{root}/a/*.png"]) == [f"{root}/a/1.png"]
    assert expand([f"{root}/*"]) == [*below, f"{root}/x[1].png"]  # the empty folder gives nothing
    assert expand([f"{root}/**/*.webp"]) == [f"{root}/a/deep/3.webp"]
    assert expand([f"{root}/x[1].png"]) == [f"{root}/x[1].png"]  # a name, though it looks like one
    assert expand([f"{root}/none.png", f"{root}/a/n.txt"]) == [
        f"{root}/none.png",
        f"{root}/a/n.txt",
    ]
    with pytest.raises(SourceError, match="empty: no pictures in this folder"):
        expand([f"{root}/empty"])
    with pytest.raises(SourceError, match="no picture matches; check the pattern, and quote it"):
        expand([f"{root}/*.gif"])


def test_names_of_any_bytes(classifier: Path, unseen: Path, tmp_path: Path) -> None:
    content = (unseen / "thing-coffee-1.png").read_bytes()
    names = [b"new\nline.png", b"[red]x.png", b"not-utf8-\xff.png", b"-dash.png"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(content)
    predictions = api.predict(classifier, tmp_path)
    assert {os.fsencode(p.path).rpartition(b"/")[2] for p in predictions} == set(names)
    assert len({p.probability for p in predictions}) == 1


def test_predictions_take_the_crops_of_any_seed(
    class_folders: Path, tmp_path: Path, light: dict[str, Any]
) -> None:
    place, file = tmp_path / "c", tmp_path / "a.fc"
    api.extract(class_folders, out=place, tta=2, augment_seed=5, **light)
    probed = api.probe(place, tolerance=0.5, folds=2, save=file)
    cache, head = Cache(place), load_classifier(file).content.head
    plain = cache.stream()
    readers = [plain, *cache.views_of(plain.entry.stream).values()]
    said = [head.probabilities(r.read(r.positions(cache.index.hashes))) for r in readers]
    paths = [str(class_folders / path) for path in cache.index.paths]
    given, other = (
        [p.probability for p in api.predict(probed.saved, paths, tta=2, tta_seed=seed)]
        for seed in (5, 0)
    )
    assert len(readers) == 3
    np.testing.assert_allclose(given, np.mean(said, axis=0).max(axis=1), atol=1e-4)
    assert np.abs(np.subtract(given, other)).max() > 1e-2
    with pytest.raises(AugmentationError, match="tta 2, seed -1"):
        api.predict(file, paths, tta=2, tta_seed=-1)
