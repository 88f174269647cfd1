"""A tail trained from the activations that an extraction stored, read from the memory map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from featcache.backbones.registry import load_backbone
from featcache.backbones.tracing import trace
from featcache.backbones.units import list_units, split_at
from featcache.probing.rows import labelled_rows
from featcache.store.cache import Cache
from featcache.store.mapped import MappedRows
from featcache.training.examples import Examples
from featcache.training.model import model_of, untrained_head
from featcache.training.spec import TrainingSpec
from featcache.training.trainer import logits_of, train


def test_rows_of_the_memory_map_train_a_tail(class_folders, extract_light, light, tmp_path) -> None:
    name, size = light["backbone"], light["image_size"]
    backbone = load_backbone(name, weights=light["weights"], image_size=size)
    traced = trace(backbone.stem, backbone.preprocessing.size)
    units = [unit.name for unit in list_units(traced)[:2]]
    split = split_at(traced, below := list_units(traced)[2].name)
    extract_light(class_folders, cuts=(below,), pooling="none")
    held = labelled_rows(Cache(tmp_path / "cache"), below, memory=1)
    assert isinstance(held.features, MappedRows)
    assert held.features.dtype == np.float16
    data = Examples(held.features, np.arange(len(held)), held.targets, shape=split.shape)
    model = model_of(split.tail, untrained_head(3, backbone.width, "softmax", 0))
    n = len(held)
    with torch.no_grad():
        stored = torch.from_numpy(held.features[:].reshape(n, *split.shape)).float()
        expected = model.eval()(stored)
    logits = logits_of(model, data, batch_size=n)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    spec = TrainingSpec(rate=0.01, head_factor=10, epochs=12, batch_size=8)
    kept = train(model, data, spec, validation=data, units=units)
    assert kept.best.validation_loss < 0.8 * kept.history[0].validation_loss
    row = data.row_bytes
    for memory in (row, 20 * row):  # less than a batch, and less than there is
        short = train(model, data, replace(spec, memory=memory), validation=data, units=units)
        assert short.best.validation_loss < 0.8 * short.history[0].validation_loss
