"""What a probe tells besides its estimate, on real pictures."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache import api
from featcache.backbones.registry import load_backbone
from featcache.errors import CacheDamagedError, CacheMissingError, ClassifierError, ProbeError
from featcache.evaluation.paired import compare
from featcache.evaluation.shots import support_rows
from featcache.probing import labelled_rows
from featcache.store.cache import Cache
from featcache.store.findings import read_findings, write_findings

QUICK: dict[str, Any] = {"folds": 3, "tolerance": 0.01}


@pytest.fixture(scope="module")
def plain(extracted: Any) -> Any:
    return api.probe(extracted, **QUICK)


def test_little_memory_changes_nothing_but_rounding(extracted: Any, plain: Any) -> None:
    """Rows then stay in the memory map, and the solver reads them in blocks."""
    tight = api.probe(extracted, **QUICK, memory=80_000)
    assert tight.best_C == pytest.approx(plain.best_C, rel=1e-6)
    assert tight.estimate.accuracy == pytest.approx(plain.estimate.accuracy, abs=0.01)
    assert tight.estimate.log_loss == pytest.approx(plain.estimate.log_loss, abs=1e-3)
    assert tight.converged


def test_a_wrong_label_is_suspected(folders: Path, light: Any, tmp_path: Path) -> None:
    rows = [(str(path), path.parent.name) for path in sorted(folders.glob("*/*.jpg"))]
    wrong = 40
    rows[wrong] = (rows[wrong][0], "sky" if rows[wrong][1] != "sky" else "thing")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    cache = api.extract(tmp_path / "t.csv", out=tmp_path / "c", **light)
    result = api.probe(cache, **QUICK, suspects=3)
    first = result.suspects[0]
    assert Path(first.path).name == Path(rows[wrong][0]).name
    assert first.given == rows[wrong][1]
    assert first.suggested == Path(rows[wrong][0]).parent.name
    assert first.probability_suggested > first.probability_given
    assert len(result.suspects) <= 3
    assert api.probe(cache, **QUICK).suspects is None


def test_the_same_bytes_in_two_splits_are_reported(
    folders: Path, light: Any, tmp_path: Path
) -> None:
    rows = [
        (str(path), path.parent.name, "test" if i % 3 == 0 else "train")
        for i, path in enumerate(sorted(folders.glob("*/*.jpg")))
    ]
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(Path(rows[0][0]).read_bytes())
    with (tmp_path / "t.csv").open("w", newline="") as file:
        lines = [("path", "label", "split"), *rows, (str(copy), rows[0][1], "train")]
        csv.writer(file).writerows(lines)
    cache = api.extract(tmp_path / "t.csv", out=tmp_path / "c", **light)
    result = api.probe(cache, **QUICK)
    (overlap,) = result.overlaps
    assert {Path(path).name for path in overlap.paths} == {Path(rows[0][0]).name, "copy.jpg"}
    assert sorted(overlap.splits) == ["test", "train"]
    assert result.n_train == sum(split == "train" for *_, split in rows)


def test_against_an_earlier_result(extracted: Any, plain: Any) -> None:
    knn = api.probe(extracted, **QUICK, head="knn", against=f"{extracted.cache}:{plain.result}")
    right = [_right(extracted.cache, r.result) for r in (knn, plain)]
    expected = compare(*right)
    found = knn.against.difference
    assert (found.difference, found.ci95, found.p_value) == (
        expected.difference,
        expected.ci95,
        expected.p_value,
    )
    assert found.n == 117
    assert knn.against.accuracy == plain.estimate.accuracy
    last = api.probe(extracted, **QUICK, against=extracted.cache)
    assert last.against.result == knn.result
    with pytest.raises(CacheMissingError, match="no result 'nope'"):
        api.probe(extracted, **QUICK, against=f"{extracted.cache}:nope")
    with pytest.raises(
        ProbeError, match="heads with held-out probabilities are compared; not ridge"
    ):
        api.probe(extracted, **QUICK, head="ridge", against=extracted.cache)
    ridge = api.probe(extracted, **QUICK, head="ridge").result
    with pytest.raises(ProbeError, match=r"other result has no probabilities \(ridge\); compare"):
        api.probe(extracted, **QUICK, against=f"{extracted.cache}:{ridge}")


@pytest.mark.faults
def test_a_result_of_another_making_is_refused_by_name(
    extracted: Any, tmp_path: Path, tried: Any
) -> None:
    other = shutil.copytree(extracted.cache, tmp_path / "other")
    rows = {"probabilities": np.zeros((3, 2)), "judged": np.ones(3, np.uint8)}
    write_findings(other, "strange", {"head": "softmax", "estimate": 3}, rows)
    with pytest.raises(CacheDamagedError, match="result 'strange' is none of this featcache"):
        api.probe(extracted, folds=2, tolerance=0.5, against=f"{other}:strange")
    tried("a forged result", 1, sees="<cache>: result ... is none of this featcache")


def _right(cache: str, result: str) -> np.ndarray:
    _, rows = read_findings(Path(cache), result)
    order = np.lexsort(rows["hashes"].T)
    return (rows["probabilities"].argmax(axis=1) == rows["targets"])[order]


def test_shots_and_their_interval(extracted: Any) -> None:
    result = api.probe(extracted, **QUICK, shots=(2, None), seeds=3)
    two, everything = result.shots
    assert (two.shots, two.seeds, everything.shots, everything.seeds) == (2, 3, "all", 1)
    assert everything.mean == pytest.approx(result.estimate.accuracy)
    assert everything.std is None
    half = 4.302653 * two.std / np.sqrt(3)  # Student's t, 2 degrees of freedom
    assert two.ci95[0] == pytest.approx(max(0, two.mean - half), abs=1e-5)
    assert "Student's t over the seeds" in two.method
    again = api.probe(extracted, **QUICK, shots=(2, None), seeds=3)
    assert again.shots == result.shots


def test_calibration_is_there_where_there_are_probabilities(extracted: Any, plain: Any) -> None:
    assert plain.calibration.temperature > 0
    assert 0 <= plain.calibration.ece_before <= 1
    assert api.probe(extracted, **QUICK, head="ridge").calibration is None


def test_what_cannot_be_saved_is_refused_first(extracted: Any, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="'knn' is for screening and cannot be saved"):
        api.probe(extracted, head="knn", save=tmp_path / "x.fc")
    with pytest.raises(ClassifierError, match=r"head on the cut 'layer4\.0' cannot be saved yet"):
        api.probe(extracted, cut="layer4.0", save=tmp_path / "x.fc")


def test_suspects_of_a_head_without_probabilities_are_refused(extracted: Any) -> None:
    with pytest.raises(ProbeError, match="suspects need held-out probabilities; use a softmax"):
        api.probe(extracted, **QUICK, head="ridge", suspects=3)


def test_every_question_has_an_identity_of_its_own(extracted: Any, plain: Any) -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"head": "knn"},
        {"shots": (1,)},
        {"class_weight": "balanced"},
    ]
    found = [api.probe(extracted, **QUICK, **question).result for question in asked]
    assert found[0] == plain.result
    assert len(set(found)) == len(found)


def test_the_plot_has_a_panel_for_each_part(extracted: Any, plain: Any) -> None:
    result = api.probe(extracted, **QUICK, shots=(1, 2), seeds=2)
    path, right, shots = result.plot().axes[0], result.plot().axes[1], result.plot().axes[2]
    assert list(path.lines[0].get_ydata()) == [p.accuracy for p in result.path]
    assert list(right.lines[0].get_ydata()) == [p.log_loss for p in result.path]
    assert list(shots.lines[0].get_ydata()) == [s.mean for s in result.shots]
    votes = replace(
        plain, best_C=None, best_neighbours=5, path=api.probe(extracted, head="knn").path
    )
    assert votes.plot().axes[0].get_xlabel() == "k, neighbours"


@pytest.fixture(scope="module")
def split(folders: Path, tmp_path_factory: Any, light: Any) -> Any:
    """The pictures in train, val and test, each photo's crops in all of them."""
    root = tmp_path_factory.mktemp("split")
    with (root / "t.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["path", "label", "split"])
        for i, path in enumerate(sorted(folders.glob("*/*.jpg"))):
            write.writerow([path, path.parent.name, ("train", "val", "test", "train")[i % 4]])
    return api.extract(root / "t.csv", out=root / "c", **light)


@pytest.mark.parametrize("protocol", ["clip", "dinov2-knn", "fewshot-lsr", "coop"])
def test_a_protocol_gives_the_same_record(split: Any, protocol: str) -> None:
    result = api.probe(split, protocol=protocol, tolerance=0.01)
    assert result.protocol == protocol
    assert result.head == {"dinov2-knn": "knn", "fewshot-lsr": "ridge"}.get(protocol, "softmax")
    assert result.estimate == result.test
    assert 0 <= result.estimate.ci95[0] <= result.estimate.accuracy <= result.estimate.ci95[1] <= 1
    assert result.n_test == result.estimate.n == 29
    assert result.result in api.info(split.cache).results
    if protocol in ("fewshot-lsr", "coop"):
        assert result.path == ()
        assert result.estimate.accuracy == result.shots[-1].mean
    else:
        assert len(result.path) >= 2  # of k, some are more than there are pictures


def test_what_a_protocol_of_shots_has_not_is_refused(split: Any, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"'coop' fits a head for each support set.*out --save"):
        api.probe(split, protocol="coop", save=tmp_path / "x.fc")
    with pytest.raises(ProbeError, match="'knn' is for screening and cannot be saved"):
        api.probe(split, protocol="dinov2-knn", save=tmp_path / "x.fc")
    with pytest.raises(ProbeError, match="leave out --head knn"):
        api.probe(split, protocol="clip", head="knn")
    with pytest.raises(ProbeError, match="'imagenet': unknown; give one of default, clip"):
        api.probe(split, protocol="imagenet")


def test_every_cached_cut_stands_in_the_order_of_the_network(
    folders: Path, light: Any, tmp_path: Path
) -> None:
    cuts = ("layer4.0", "layer1.0", "layer3.0")
    cache = api.extract(folders, out=tmp_path / "c", cuts=cuts, **light)
    result = api.probe(cache, **QUICK, cut="all")
    assert [layer.cut for layer in result.layers] == [*sorted(cuts), "penultimate"]
    one = api.probe(cache, **QUICK, cut="layer3.0")
    layer = result.layers[1]
    assert (layer.accuracy, layer.ci95) == (one.estimate.accuracy, one.estimate.ci95)
    assert layer.difference.difference == pytest.approx(
        one.estimate.accuracy - result.estimate.accuracy
    )
    assert result.layers[-1].difference is None
    assert len(result.plot().axes) == 3
    with pytest.raises(CacheMissingError, match="no activations of cut 'layer9'"):
        api.probe(cache, cut="layer9")


@pytest.fixture(scope="module")
def drinks(tmp_path_factory: Any) -> Any:
    """Crops of a cat and of an espresso, through the embedded network."""
    from skimage import data

    root = tmp_path_factory.mktemp("source") / "drinks"
    for name, photo in {"cat": data.chelsea(), "cup": data.coffee()}.items():
        (root / name).mkdir(parents=True)
        for i, (y, x) in enumerate(np.random.default_rng(0).integers(90, size=(8, 2))):
            Image.fromarray(photo[y : y + 200, x : x + 200]).save(root / name / f"{i}.png")
    return api.extract(root, out=root.parent / "cache")


def test_a_head_starts_from_the_sources_own_rows(drinks: Any) -> None:
    """ImageNet's tabby and espresso; at one shot they are the head, but for its bias."""
    rows = {"cat": 281, "cup": 967}
    result = api.probe(drinks, folds=2, init_from_source=rows, shots=(1,), seeds=2)
    (shot,) = result.shots
    assert "the source network's own rows" in shot.method
    classifier = load_backbone().classifier.weight.detach().numpy()
    data = labelled_rows(Cache(Path(drinks.cache)))
    scores = data.features @ (classifier[967] - classifier[281])
    support = support_rows(data.targets, data.groups, data.hashes, np.ones(16, bool), 1, 0)
    middle = scores[support].mean()  # a bias that leaves the two of the support set alike
    expected = ((scores > middle) == (data.targets == 1))[~support].mean()
    assert shot.mean == pytest.approx(expected, abs=0.08)
    assert shot.mean > 0.9
    plain = api.probe(drinks, folds=2)
    assert result.path[0].log_loss < plain.path[0].log_loss  # where little is learnt
    assert result.result != plain.result


@pytest.mark.parametrize(
    ("chosen", "options", "says"),
    [
        ({"dog": 281}, {}, "no class 'dog'; there are: 'cat', 'cup'"),
        ({"cat": 1000}, {}, "cat=1000: efficientnet_lite0 has the classes 0 to 999"),
        ({"cat": 1}, {"head": "ridge"}, "'ridge' does not know --init-from-source"),
        ({"cat": 1}, {"protocol": "clip"}, "on the penultimate feature; leave out --protocol"),
        ({"cat": 1}, {"cut": "blocks.6.0"}, "on the penultimate feature; leave out --protocol"),
        ({"cat": 1}, {"standardize": True}, "a prior with standardised features"),
    ],
)
def test_rows_that_the_source_has_not(
    drinks: Any, chosen: dict[str, int], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ProbeError, match=says):
        api.probe(drinks, init_from_source=chosen, **options)
