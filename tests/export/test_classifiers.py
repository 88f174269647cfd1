"""An exported classifier says what the classifier says, without featcache, or does not appear."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

import featcache as fc
from featcache.classifier.joined import load_classifier
from featcache.errors import ClassifierError, ExportError, MissingExtraError, ParityError
from featcache.export import checking, graphs
from featcache.export.examples import example_of
from featcache.images.sources import content_hash
from featcache.images.transforms import to_pixels
from featcache.recipe import Preprocessing

VARIANTS = ("logistic", "several", "hidden", "tuned", "impossible")
FORMATS = ("onnx", "torchscript", "pt2")
NETWORKS = {
    "efficientnet_lite0": None,
    "resnet18": "random",
    "mobilenet_v3_large": "random",
    "timm/test_vit.r160_in1k": "random",
    "inception_v3": "random",
}


def by_example(folder: Path, *examples: str) -> list[list[tuple[float, str]]]:
    """What the examples print, run where featcache cannot be imported."""
    code = "import sys; sys.modules['featcache'] = None\n" + "".join(examples)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


def same(printed: list[tuple[float, str]], predicted: fc.Prediction) -> bool:
    """Whether the example's three likeliest classes are those that are predicted."""
    return [label for _, label in printed] == [e.label for e in predicted.top] and [
        probability for probability, _ in printed
    ] == pytest.approx([e.probability for e in predicted.top], abs=1e-4)


def test_onnx_is_used_without_featcache(saved: Path, photo: Path) -> None:
    done = fc.export_classifier(saved, photo.with_name("drinks.onnx"))
    assert done.difference <= 1e-4
    assert done.checked == 8
    assert len(done.example.splitlines()) <= 13
    (expected,) = fc.predict(saved, photo, engine="torch")
    assert same(*by_example(photo.parent, done.example), expected)


@pytest.mark.slow
def test_torch_formats_are_used_without_featcache(saved: Path, photo: Path) -> None:
    done = [
        fc.export_classifier(saved, photo.with_name(name), input="normalised")
        for name in ("drinks.pt", "drinks.pt2", "drinks.onnx")
    ]
    assert [export.format for export in done] == ["torchscript", "pt2", "onnx"]
    assert all(export.difference <= 1e-4 for export in done)
    (expected,) = fc.predict(saved, photo, engine="torch")
    for printed in by_example(photo.parent, *(export.example for export in done)):
        assert same(printed, expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_classifier(
    variant: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    """The check compares with `Classifier`; here with what `predict` says of a picture."""
    picture = tmp_path / "a.png"
    Image.fromarray(data.astronaut()[:200, :150]).save(picture)
    fc.export_classifier(variant(name), tmp_path / "x.pt", pictures=picture)
    classifier = load_classifier(variant(name))
    pixels = checking.real_pixels(classifier, [str(picture)])
    (given,) = graphs.GRAPHS["torchscript"].load(tmp_path / "x.pt")(pixels)
    (expected,) = fc.predict(variant(name), picture, engine="torch")
    ours = dict(zip(classifier.classes, given.tolist(), strict=True))
    assert ours == pytest.approx({e.label: e.probability for e in expected.top}, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_in_every_format(
    variant: Callable[[str], Path], name: str, kind: str, tmp_path: Path
) -> None:
    assert fc.export_classifier(variant(name), tmp_path / f"x.{kind}").difference <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_networks(network: str, pictures: Path, photo: Path) -> None:
    made = fc.extract(
        pictures, backbone=network, weights=NETWORKS[network], out=photo.with_name("c")
    )
    saved = photo.with_name("c.fc")
    fc.probe(made, folds=2, tolerance=0.5, save=saved)
    files = [photo.with_name(f"x.{suffix}") for suffix in ("onnx", "pt", "pt2")]
    done = [fc.export_classifier(saved, file) for file in files]
    assert max(export.difference for export in done) <= 1e-4
    (expected,) = fc.predict(saved, photo, engine="torch")
    for printed in by_example(photo.parent, *(export.example for export in done)):
        assert same(printed, expected)


def preprocessings() -> list[Preprocessing]:
    plain = Preprocessing((40, 48), (56,), (0.5, 0.4, 0.3), (0.2, 0.2, 0.3))
    exact = replace(plain, resize_mode="exact", resize=(50, 61), interpolation="bicubic")
    longer = replace(plain, resize_mode="longer", resize=(48,), interpolation="lanczos")
    return [plain, exact, longer]


@pytest.mark.parametrize("preprocessing", preprocessings(), ids=lambda p: p.resize_mode)
def test_the_examples_pixels_are_featcaches(
    preprocessing: Preprocessing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = example_of("x.onnx", "onnx", preprocessing, "uint8").splitlines()
    start, end = (
        next(i for i, x in enumerate(lines) if x.startswith(s)) for s in ("image", "prob")
    )
    code = "import numpy as np\nfrom PIL import Image, ImageOps\n" + "\n".join(lines[start:end])
    for height, width in ((300, 211), (97, 301), (200, 200)):
        image = Image.fromarray(data.coffee()[:height, :width])
        image.save("photo.jpg", format="PNG")
        found: dict[str, Any] = {}
        exec(code, found)
        assert np.array_equal(found["pixels"][0], to_pixels(image, preprocessing))


def test_a_file_describes_itself(variant: Callable[[str], Path], tmp_path: Path) -> None:
    done = fc.export_classifier(variant("several"), tmp_path / "x.pt")
    with zipfile.ZipFile(done.file) as file:
        (member,) = [name for name in file.namelist() if name.endswith("featcache.json")]
        text = file.read(member).decode()
    description = json.loads(text)
    assert description["classes"] == ["=cat", "cup"]
    assert description["multi_label"]
    assert description["input"] == {"name": "pixels", "dtype": "uint8", "shape": ["N", 32, 32, 3]}
    preprocessing = load_classifier(variant("several")).recipe.preprocessing
    assert Preprocessing.given(description["preprocessing"]) == preprocessing
    assert str(tmp_path) not in text


def test_what_says_something_else_does_not_appear(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(path: Path) -> graphs.Run:
        return lambda given: np.full((len(given), 2), 0.5, np.float32)

    monkeypatch.setitem(
        graphs.GRAPHS, "torchscript", replace(graphs.GRAPHS["torchscript"], load=wrong)
    )
    with pytest.raises(ParityError, match=r"x\.pt: not written\. On 8 pictures it gives"):
        fc.export_classifier(saved, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_what_does_not_run_does_not_appear(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> graphs.Run:
        raise RuntimeError("no kernel\nand much more")

    monkeypatch.setitem(
        graphs.GRAPHS, "torchscript", replace(graphs.GRAPHS["torchscript"], load=broken)
    )
    with pytest.raises(ExportError, match=r"does not run \(no kernel\); .* --format onnx or pt2"):
        fc.export_classifier(saved, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_pictures_are_run_together_and_alone(saved: Path) -> None:
    classifier = load_classifier(saved)
    pixels = checking.real_pixels(classifier, [])
    with classifier.engine("torch") as engine:
        right = classifier.probabilities(classifier.logits(engine, pixels))
    by_bytes = {p.tobytes(): row for p, row in zip(pixels, right, strict=True)}

    def run(given: np.ndarray) -> np.ndarray:
        return np.stack([by_bytes[picture.tobytes()] for picture in given])

    def measured(change: Callable[[np.ndarray], np.ndarray]) -> float:
        return checking.measure(classifier, lambda given: change(run(given)), pixels, "uint8")

    assert measured(lambda p: p * (1 + 1e-5)) == pytest.approx(1e-5, rel=0.5)
    assert measured(lambda p: p if len(p) > 1 else p[:, ::-1]) > 0.1
    assert measured(lambda p: p if len(p) == 1 else p[::-1]) > 0.1
    assert measured(lambda p: p[:, :1]) == np.inf
    assert np.isnan(measured(lambda p: p * np.nan if len(p) == 1 else p))
    with pytest.raises(ParityError):
        checking.refuse_unlike("x", np.nan, 8)


def test_the_difference_is_of_logarithms() -> None:
    rare = np.array([[1 - 1e-8, 1e-8]])
    assert checking.difference(np.array([[1.0, 2e-8]]), rare) == pytest.approx(
        np.log(2) / 18.4, 0.01
    )
    assert checking.difference(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]])) == 0


def test_what_torch_cannot_write_is_named(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator\nand a page of text")

    monkeypatch.setattr("torch.jit.trace", fails)
    with pytest.raises(
        ExportError, match=r"as torchscript \(no such operator\); try --format onnx"
    ):
        fc.export_classifier(saved, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_a_classifier_is_not_written_over_by_its_own_export(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(ExportError, match="is the classifier itself; give another name"):
        fc.export_classifier(saved, saved, format="onnx", overwrite=True)
    assert saved.read_bytes() == before


def test_half_precision_is_told(variant: Callable[[str], Path], tmp_path: Path) -> None:
    done = fc.export_classifier(variant("half"), tmp_path / "x.pt")
    assert done.warnings == ("measured in bf16; the file computes in fp32",)


def test_what_cannot_be_exported(
    saved: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "note.txt").write_text("this is no picture, surely")
    (tmp_path / "there.pt").write_text("mine")
    wrong: dict[str, dict[str, Any]] = {
        "says none of a classifier's formats; give --format, one of onnx": {"file": "x.npz"},
        "input 'rgb': none of uint8, normalised": {"file": "x.pt", "input": "rgb"},
        "there.pt: is there already": {"file": "there.pt"},
        "note.txt: not a picture": {"file": "x.pt", "pictures": tmp_path / "note.txt"},
    }
    for says, options in wrong.items():
        with pytest.raises(ExportError, match=says):
            fc.export_classifier(saved, **{**options, "file": tmp_path / options["file"]})
    with pytest.raises(ClassifierError, match="no such classifier"):
        fc.export_classifier(tmp_path / "none.fc", tmp_path / "x.pt")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingExtraError, match=r"needs onnx, onnxscript, onnxruntime.*'featcache\[onnx\]'"
    ):
        fc.export_classifier(saved, tmp_path / "x.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"note.txt", "there.pt"}


def test_the_photos_are_real_and_differ(saved: Path) -> None:
    pixels = checking.real_pixels(load_classifier(saved), [])
    assert len({content_hash(picture) for picture in pixels}) == len(pixels) == 8
    assert pixels.std(axis=(1, 2, 3)).min() > 10
