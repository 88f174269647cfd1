"""The public surface: what is exported, documented, and quick to import."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import featcache as fc
from featcache import api
from featcache.errors import EngineError, StoreError


def test_all_is_what_can_be_imported() -> None:
    assert sorted(fc.__all__) == fc.__all__ == dir(fc)
    for name in fc.__all__:
        assert getattr(fc, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        fc.nonsense  # noqa: B018 - the attribute is the test


@pytest.mark.parametrize("name", [name for name in fc.__all__ if name != "__version__"])
def test_every_public_name_is_documented(name: str) -> None:
    doc = getattr(fc, name).__doc__
    assert doc
    assert not doc.startswith(f"{name}(")  # what dataclasses write where nobody did


def test_no_public_name_is_that_of_a_module() -> None:
    """Importing a module puts it under its name in the package, in the place of what was there."""
    for name in fc.__all__:
        assert importlib.util.find_spec(f"featcache.{name}") is None
    for name in (
        "extract",
        "extract_each",
        "probe",
        "compare",
        "predict",
        "info",
        "verify",
        "repair",
        "prune",
        "demo",
    ):
        assert callable(getattr(fc, name))


def test_importing_is_quick() -> None:
    heavy = "torch", "timm", "sklearn", "numpy", "h5py", "PIL", "scipy"
    code = f"import sys, featcache; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_extracting_imports_no_more_than_it_needs() -> None:
    """Scikit-learn, with scipy and pandas, would take a second of every start."""
    heavy = "scipy", "sklearn", "pandas"
    code = (
        f"import sys, featcache as fc; fc.extract; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_request_says_the_same_as_its_fields(
    folders: Path, light: dict[str, Any], tmp_path: Path
) -> None:
    made = fc.extract(fc.ExtractRequest(folders, out=tmp_path / "c", **light))
    again = fc.extract(folders, out=tmp_path / "c", **light)
    assert (made.computed, again.reused) == (117, 117)
    by_request = fc.probe(fc.ProbeRequest(made, tolerance=0.5, folds=2, save=tmp_path / "k.fc"))
    assert by_request.result == fc.probe(made, folds=2, tolerance=0.5).result
    request = fc.PredictRequest(tmp_path / "k.fc", (folders / "sky",), top=2)
    assert fc.predict(request) == fc.predict(tmp_path / "k.fc", folders / "sky", top=2)


def test_a_request_with_fields_beside_it_is_refused() -> None:
    with pytest.raises(TypeError, match=r"dataclasses\.replace"):
        fc.extract(fc.ExtractRequest("pets"), strict=True)
    with pytest.raises(TypeError, match=r"dataclasses\.replace"):
        fc.predict(fc.PredictRequest("a.fc", ("a.png",)), ["b.png"])


@pytest.mark.parametrize("name", ["batch_size", "threads", "shard_rows"])
def test_senseless_numbers_are_refused(name: str) -> None:
    with pytest.raises(EngineError, match=f"{name} 0: give at least 1"):
        fc.ExtractRequest("pets", **{name: 0})


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(StoreError, match="store_dtype 'int8': unknown; give float32 or float16"):
        fc.ExtractRequest("pets", store_dtype="int8")


def test_where_a_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from featcache.api.extracting import cache_folder

    monkeypatch.delenv("FEATCACHE_DIR", raising=False)
    assert cache_folder(None, "pets", "timm/vit") == Path("cache/pets-timm-vit")
    monkeypatch.setenv("FEATCACHE_DIR", str(tmp_path))
    assert cache_folder(None, "pets", "resnet50") == tmp_path / "pets-resnet50"
    assert cache_folder("here", "pets", "resnet50") == Path("here")


def test_a_preprocessing_file(folders: Path, light: dict[str, Any], tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text('{"size": [24, 24], "resize": [24], "mean": [0, 0, 0], "std": [1, 1, 1]}')
    options = {k: v for k, v in light.items() if k != "image_size"}
    result = api.extract(folders, preprocessing=given, out=tmp_path / "c", **options)
    assert result.recipe["preprocessing"]["size"] == [24, 24]
    for text in ("[]", "{", '{"size": [24]}', '{"colour": 1}'):
        given.write_text(text)
        with pytest.raises(
            fc.FeatcacheError, match=r"given\.json: no preprocessing .* give a JSON"
        ):
            api.extract(folders, preprocessing=given, **options)


def test_plots(extracted: Any) -> None:
    from featcache import plots

    result = api.probe(extracted, folds=2, tolerance=0.5)
    left, right = result.plot().axes
    assert left.get_xscale() == "log"
    assert list(left.lines[0].get_ydata()) == [p.accuracy for p in result.path]
    assert list(right.lines[0].get_ydata()) == [p.log_loss for p in result.path]
    import numpy as np

    (axes,) = plots.confusion(np.array(result.confusion), result.classes).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == list(result.classes)
    assert sum(int(text.get_text()) for text in axes.texts) == 117
