"""What is no number, or says nothing, is named and counted, and never trained on in silence."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from featcache import api
from featcache.classifier.joined import Classifier
from featcache.errors import ProbeError, SourceError, StoredOverflowError, WeightsError
from featcache.extraction.shards import NOT_FINITE
from featcache.images.tables import CsvSource
from featcache.store import documents
from featcache.store.cache import Cache, shard_path
from featcache.store.files import sha256_file
from featcache.store.manifest import MANIFEST
from featcache.store.shards import encode_shard


class Made(torch.nn.Module):
    """Gives of every picture what it is told, whatever the picture."""

    def __init__(self, rows: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.rows = rows
        self.batches, self.fail_at = 0, -1

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.rows(batch.flatten(1)[:, :6])


def two_classes(make_lab: Callable[..., Any], rows: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    pictures = {f"{label}/{i}": 20 * (label == "b") + i for label in "ab" for i in range(8)}
    lab = make_lab(pictures, labels={path: (path[0],) for path in pictures})
    lab.stem = Made(rows)
    return lab


DEAD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "zero": torch.zeros_like,
    "one": torch.ones_like,
    "a tenth": lambda x: torch.full_like(x, 0.1),
    "one up to rounding": lambda x: 1 + 1e-7 * x,
    "large up to rounding": lambda x: 1e8 * (1 + 1e-7 * x),
}

PROBES: dict[str, dict[str, Any]] = {
    "probe": {},
    "fixed C": {"protocol": "clip"},
    "ridge": {"head": "ridge"},
    "knn": {"head": "knn"},
    "mlp": {"head": "mlp"},
    "sweep": {"unfreeze": "0"},
    "shots": {"shots": (1, 2)},
}


@pytest.mark.faults
@pytest.mark.parametrize("dead", DEAD)
def test_a_dead_backbone_is_named_and_not_probed(
    make_lab: Callable[..., Any], tried: Callable[..., None], dead: str
) -> None:
    lab = two_classes(make_lab, DEAD[dead])
    (warning,) = lab.run().warnings
    assert warning.startswith("all 16 rows of 'penultimate' are equal")
    for options in PROBES.values():
        with pytest.raises(
            ProbeError,
            match=r"16 rows of .penultimate. are equal, so that nothing .*weights",
        ):
            api.probe(lab.folder, **options)
    with pytest.raises(ProbeError, match="all 16 rows"):
        api.probe(lab.folder, memory=1)  # rows that are read as they are needed
    tried("a dead backbone", 1 + len(PROBES), sees="a warning; no probe")


def test_a_faint_signal_is_none_of_these(make_lab: Callable[..., Any]) -> None:
    lab = two_classes(make_lab, lambda x: 1000 + x)
    assert lab.run().warnings == ()
    assert api.probe(lab.folder).n_train == 16


@pytest.mark.faults
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_network_of_no_numbers_skips_every_picture_by_name(
    make_lab: Callable[..., Any], tried: Callable[..., None], value: float
) -> None:
    lab = two_classes(make_lab, lambda x: torch.full_like(x, value))
    assert lab.run().skipped == [(path, NOT_FINITE) for path in lab.source.pictures]
    for options in PROBES.values():
        with pytest.raises(ProbeError, match="none of its 16 labelled pictures could be used"):
            api.probe(lab.folder, **options)
    tried("NaN or infinite features", 16 + len(PROBES), sees="each picture skipped; no probe")


@pytest.mark.faults
@pytest.mark.parametrize("name", ["conv1.0.weight", "layer2.0.bn1.running_var", "fc.bias"])
def test_weights_that_are_no_numbers_are_refused_by_name(
    tmp_path: Path,
    class_folders: Path,
    extract_light: Callable[..., Any],
    tried: Callable[..., None],
    name: str,
) -> None:
    state = timm.create_model("test_resnet").state_dict()
    state[name][0] = torch.nan
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=f"'{name}' holds NaN or infinity, as do 1 of its"):
        extract_light(class_folders, weights=tmp_path / "a.pt")
    tried("weights that are NaN", 1, sees="the tensor's name")


@pytest.mark.faults
def test_what_overflows_half_precision_is_never_stored(
    make_lab: Callable[..., Any], tried: Callable[..., None]
) -> None:
    for scale in (1e5, -1e5, 65520.0):
        lab = two_classes(make_lab, lambda x, scale=scale: scale * (x >= 0.0))
        with pytest.raises(StoredOverflowError, match=r"cut 'penultimate'.*--store-dtype float32"):
            lab.run(dtype="float16")
        assert Cache(lab.folder).manifest.index is not None
        assert not list(lab.folder.glob("shards/*/*.h5"))
    tried("overflow of float16", 3, sees="one line that names --store-dtype float32")


@pytest.mark.faults
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_of_a_strangers_cache_that_are_no_numbers_are_counted_and_not_probed(
    make_lab: Callable[..., Any], tried: Callable[..., None], value: float
) -> None:
    """All its hashes are right, and no extraction would have kept such rows."""
    lab = two_classes(make_lab, lambda x: x)
    lab.run(shard_rows=16)
    spoil(lab.folder, value)
    for options in (*PROBES.values(), {"memory": 1}):
        with pytest.raises(ProbeError, match="2 of 16 rows of 'penultimate' are NaN or infinite"):
            api.probe(lab.folder, **options)
    tried("NaN in a stranger's cache", len(PROBES) + 1, sees="rows counted; no probe")


def spoil(folder: Path, value: float) -> None:
    cache = Cache(folder)
    reader = cache.stream()
    ((entry, shard),) = zip(reader.entry.shards, reader.shards(), strict=True)
    features = np.array(shard.features)
    features[3, 0] = features[9] = value
    stream = reader.entry.stream
    path = shard_path(folder, stream, entry.number)
    path.write_bytes(encode_shard(stream, replace(shard, features=features)))
    body, _ = documents.decode((folder / MANIFEST).read_bytes())
    body["streams"][stream.key]["shards"][0]["sha256"] = sha256_file(path)
    (folder / MANIFEST).write_bytes(documents.encode(body))


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.faults
@pytest.mark.parametrize("missing", ["nan", "NaN", "NAN", "<NA>", "#N/A"])
@pytest.mark.parametrize("column", ["label", "group"])
def test_a_missing_value_in_a_csv_is_no_class_and_no_group(
    tmp_path: Path, tried: Callable[..., None], missing: str, column: str
) -> None:
    rows = [{"path": f"{i}.png", "label": "ab"[i % 2], "group": str(i)} for i in range(6)]
    rows[3][column] = rows[5][column] = missing
    for i, row in enumerate(rows):
        (tmp_path / row["path"]).write_bytes(png(i))
    lines = ["path,label,group", *(",".join(row.values()) for row in rows)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    with pytest.raises(SourceError, match=rf"list\.csv:5: '{missing}' stands .* in 2 rows; leave"):
        CsvSource(tmp_path / "list.csv").scan()
    tried("a label or group that is NaN", 1, sees="file, line and how many rows")


@pytest.mark.faults
def test_an_empty_label_is_counted_and_not_trained_on(
    tmp_path: Path, extract_light: Callable[..., Any], tried: Callable[..., None]
) -> None:
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    lines = [f"{i}.png,{'' if i % 3 == 0 else 'ab'[i % 2]}" for i in range(12)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    done = extract_light(tmp_path / "list.csv")
    assert "pictures without a label, which no probe trains on: 4" in done.warnings
    assert api.info(done.cache).unlabelled == 4
    assert api.probe(done.cache).n_train == 8
    tried("an empty label", 4, sees="extracted, counted, not trained on")


@pytest.mark.faults
def test_a_picture_of_which_the_network_says_no_number_is_not_labelled(
    tmp_path: Path,
    class_folders: Path,
    extract_light: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tried: Callable[..., None],
) -> None:
    api.probe(extract_light(class_folders).cache, save=tmp_path / "a.fc", folds=2)
    real = Classifier.logits

    def broken(self: Classifier, engine: Any, pixels: Any) -> Any:
        logits = np.array(real(self, engine, pixels))
        logits[1, 0], logits[2, 1] = np.nan, np.inf
        return logits

    monkeypatch.setattr(Classifier, "logits", broken)
    found = api.predict(tmp_path / "a.fc", [class_folders / "cat"])
    assert [p.error for p in found[:4]] == [None, NOT_FINITE, NOT_FINITE, None]
    assert [p.label is None for p in found[:4]] == [False, True, True, False]
    tried("NaN or infinite features to predict", 2, sees="no label, and the reason")
