"""Another engine in an extraction: the same features, resumed byte for byte, refused if it lies."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache.engines.parity import relative_differences
from featcache.extraction.computing import Computing
from featcache.store.cache import Cache

pytest.importorskip("openvino")


def features(folder: Path) -> np.ndarray:
    cache = Cache(folder)
    stream = cache.stream()
    return np.asarray(stream.read(stream.positions(cache.index.hashes)))


def lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on OpenVINO's rows are off by a hundredth."""
    from featcache.engines.openvino import OpenvinoEngine

    run_each = OpenvinoEngine.run_each
    monkeypatch.setattr(
        OpenvinoEngine,
        "run_each",
        lambda self, batches: ((rows * 1.01,) for (rows,) in run_each(self, batches)),
    )


def ridge_accuracy(rows: np.ndarray) -> float:
    """Of scikit-learn's ridge regression, each picture predicted by the others; three classes."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import LeaveOneOut, cross_val_score

    msn = np.square(rows - rows.mean(axis=0)).sum(axis=1).mean()
    labels = np.repeat(np.arange(3), 12)
    alphas = msn / 10.0 ** np.arange(-1, 6)
    model = RidgeClassifierCV(alphas=alphas)
    return float(cross_val_score(model, rows, labels, cv=LeaveOneOut()).mean())


def committed(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("log.jsonl", "lock", ".lock")
    }


def test_openvino_gives_torchs_features(
    tmp_path: Path, class_folders: Path, extract_light: Callable[..., Any]
) -> None:
    for engine in ("torch", "openvino"):
        done = extract_light(class_folders, engine=engine, out=tmp_path / engine)
        assert (done.engine["name"], done.engine["why"]) == (engine, "asked for")
    ours, theirs = features(tmp_path / "torch"), features(tmp_path / "openvino")
    assert len(ours) == 36
    assert relative_differences(theirs, ours).max() < 1e-5
    plan = Cache(tmp_path / "openvino").stream().entry.plans[-1]
    assert (plan.engine, plan.threads) == ("openvino", done.engine["threads"])
    assert "openvino" in plan.versions


def test_what_was_begun_is_continued_by_the_same_engine_to_the_same_bytes(
    tmp_path: Path,
    class_folders: Path,
    extract_light: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"batch_size": 4, "shard_rows": 8}
    extract_light(class_folders, engine="openvino", out=tmp_path / "whole", **options)
    keep, kept = Computing._keep, []

    def stop_at_the_third(self: Computing, *args: Any) -> None:
        if len(kept) == 2:
            raise InterruptedError
        kept.append(args)
        keep(self, *args)

    monkeypatch.setattr(Computing, "_keep", stop_at_the_third)
    with pytest.raises(InterruptedError):
        extract_light(class_folders, engine="openvino", out=tmp_path / "resumed", **options)
    monkeypatch.undo()
    assert len(Cache(tmp_path / "resumed").stream().entry.shards) == 2
    done = extract_light(class_folders, out=tmp_path / "resumed")  # auto goes on with what began
    assert done.engine["name"] == "openvino"
    assert done.engine["why"] == "as it was begun"
    assert committed(tmp_path / "resumed") == committed(tmp_path / "whole")


def test_an_engine_that_disagrees_is_refused_and_torch_is_used(
    tmp_path: Path,
    class_folders: Path,
    extract_light: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lie(monkeypatch)
    done = extract_light(class_folders, engine="openvino", out=tmp_path / "refused")
    assert done.engine["name"] == "torch"
    assert any("'openvino' differs from torch by 1.0e-02" in text for text in done.warnings)
    extract_light(class_folders, engine="torch", out=tmp_path / "torch")
    assert np.array_equal(features(tmp_path / "refused"), features(tmp_path / "torch"))
    more = class_folders / "cat" / "more.jpg"
    with Image.open(class_folders / "cat" / "00.jpg") as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(more)
    done = extract_light(class_folders, engine="openvino", out=tmp_path / "refused")
    assert (done.engine["name"], done.computed) == ("torch", 1)  # refused again, so it can go on


def test_what_torch_began_for_a_refused_engine_is_continued(
    tmp_path: Path,
    class_folders: Path,
    extract_light: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lie(monkeypatch)
    options = {"batch_size": 4, "shard_rows": 8, "engine": "openvino"}
    extract_light(class_folders, out=tmp_path / "whole", **options)

    def stop(self: Computing, *args: Any) -> None:
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(Computing, "_keep", stop)
        with pytest.raises(InterruptedError):
            extract_light(class_folders, out=tmp_path / "resumed", **options)
    extract_light(class_folders, out=tmp_path / "resumed", **options)
    assert committed(tmp_path / "resumed") == committed(tmp_path / "whole")


def test_an_engine_that_began_and_disagrees_now_does_not_go_on(
    tmp_path: Path,
    class_folders: Path,
    extract_light: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def stop(self: Computing, *args: Any) -> None:
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(Computing, "_keep", stop)
        with pytest.raises(InterruptedError):
            extract_light(class_folders, engine="openvino")
    lie(monkeypatch)
    with caplog.at_level(logging.WARNING, "featcache"):
        done = extract_light(class_folders)
    assert "what it began is planned anew" in caplog.text
    assert (done.engine["name"], done.computed) == ("torch", 36)


def test_a_lower_precision_makes_another_recipe(
    tmp_path: Path, class_folders: Path, extract_light: Callable[..., Any]
) -> None:
    from featcache.errors import CacheMismatchError, EngineError

    extract_light(class_folders, out=tmp_path / "fp32")
    with pytest.raises(CacheMismatchError, match="precision: bf16 here, fp32 there"):
        extract_light(class_folders, out=tmp_path / "fp32", precision="bf16")
    done = extract_light(class_folders, out=tmp_path / "bf16", precision="bf16")
    assert Cache(tmp_path / "bf16").manifest.recipe.precision == "bf16"
    off = relative_differences(features(tmp_path / "bf16"), features(tmp_path / "fp32"))
    assert 1e-4 < off.max() < 5e-2
    change = done.precision_change
    assert (change.precision, change.pictures) == ("bf16", 36)
    ours, theirs = features(tmp_path / "bf16"), features(tmp_path / "fp32")
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(axis=1) / norms
    assert change.least_cosine == pytest.approx(cosines.min(), abs=1e-6)
    assert change.mean_cosine == pytest.approx(cosines.mean(), abs=1e-6)
    assert 0 <= change.accuracy <= 1
    assert change.accuracy_fp32 == pytest.approx(ridge_accuracy(theirs), abs=0.03)
    with pytest.raises(EngineError, match=r"precision 'tf32' is CUDA's, and this is cpu; use"):
        extract_light(class_folders, out=tmp_path / "tf32", precision="tf32", device="cpu")
    with pytest.raises(EngineError, match="precision 'int4': unknown; give fp32, tf32"):
        extract_light(class_folders, precision="int4")


def test_in_a_lower_precision_a_cache_without_a_row_is_no_crash(
    tmp_path: Path, class_folders: Path, extract_light: Callable[..., Any]
) -> None:
    for path in class_folders.rglob("*.jpg"):
        path.write_bytes(b"no picture at all, of any kind")
    done = extract_light(class_folders, out=tmp_path / "bf16", precision="bf16")
    assert (done.computed, len(done.skipped), done.precision_change) == (0, 36, None)
