"""Training from pixels by law: beside a loop written out, and beside cached activations."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision import transforms as T  # noqa: N812

from featcache import api
from featcache.api.probe_keeping import save_tuned
from featcache.api.requests import ProbeRequest
from featcache.backbones.registry import load_backbone
from featcache.classifier.joined import load_classifier
from featcache.errors import BackboneError, ProbeError
from featcache.probing import ProbeSpec
from featcache.recipe import PENULTIMATE
from featcache.results import DepthScore, ProbeResult
from featcache.store.steps import Steps
from featcache.training.feeding import Feed
from featcache.training.guard import statistics_checksum
from featcache.training.model import head_of, model_of, tuned_tensors, untrained_head
from featcache.training.spec import TrainingSpec
from featcache.training.trainer import train
from featcache.unfreezing import PIXELS, SweepSpec, refit, sweep
from featcache.unfreezing.courses import courses_of
from featcache.unfreezing.depths import ladder
from featcache.unfreezing.fitting import Tuning
from featcache.unfreezing.parts import split_of
from featcache.unfreezing.scratch import scratch_course, scratch_spec

HEAD = ProbeSpec(folds=2, tolerance=0.1)
QUICK = TrainingSpec(epochs=2, rate=1e-3, batch_size=8, temper=True)


def spec_of(case, *depths: int, **fields: Any) -> SweepSpec:
    wanted = depths or (len(case.units),)
    return SweepSpec((0, *wanted), **{"training": QUICK, "probe": HEAD, **fields})


def swept(case, spec: SweepSpec, tmp_path) -> Any:
    tmp_path.mkdir(exist_ok=True)
    return sweep(case.cache, case.data, case.backbone, spec, Steps(tmp_path, "steps"))


def usual_loop(case, spec: TrainingSpec, mask, head, data) -> list[float]:
    """What people write: open the pictures, transform them, run and train the whole network."""
    made = load_backbone("timm/test_resnet", weights="random", image_size=32)
    preset = made.preprocessing
    how = T.InterpolationMode(preset.interpolation)
    transform = T.Compose(
        [
            *(T.Resize(preset.resize[0], how), T.CenterCrop(32), T.ToTensor()),
            T.Normalize(preset.mean, preset.std),
        ]
    )
    paths = [case.cache.index.paths[int(row)] for row in case.data.rows[mask]]
    pictures = [transform(Image.open(case.pictures / path).convert("RGB")) for path in paths]
    network = nn.Sequential(made.stem, nn.Linear(*reversed(head.coef.shape))).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.from_numpy(head.coef))
        network[1].bias.copy_(torch.from_numpy(head.bias))
    optimizer = torch.optim.AdamW(network.requires_grad_().parameters(), spec.rate, weight_decay=0)
    losses = []
    for epoch in range(1, spec.epochs + 1):
        with closing(Feed(data, spec.batch_size, spec.memory, spec.seed).epoch(epoch)) as batches:
            for batch in batches:
                x = torch.stack([pictures[i] for i in batch.pictures])
                loss = F.cross_entropy(network(x), torch.from_numpy(data.targets[batch.pictures]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
    return losses


def test_the_whole_network_loses_step_by_step_what_the_usual_loop_loses(case, monkeypatch) -> None:
    monkeypatch.setattr("featcache.training.schedules.cosine_share", lambda step, **_: 1.0)
    spec = replace(QUICK, rate=0.01, epochs=3, clip=None, weight_decay=0, unit_decay=1.0)
    (course,) = courses_of(case.cache, case.data, case.backbone, spec_of(case))
    assert (course.rung.cut, course.rung.stem) == (PIXELS, None)
    total = sum(p.numel() for p in case.backbone.stem.parameters())
    assert course.rung.trained == course.rung.total == total
    mask = np.arange(len(case.data)) % 3 != 0
    data = course.given.examples(case.data, mask)
    head = untrained_head(3, case.backbone.width, "softmax", 0)
    expected = usual_loop(case, spec, mask, head, data)
    trained = train(model_of(course.rung.tail, head), data, spec, units=course.rung.units)
    losses = [loss for epoch in trained.history for loss in epoch.losses]
    assert len(losses) == 9
    assert np.ptp(losses) > 0.3, "the case shows nothing"
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    tuned = tuned_tensors(trained.model, course.rung.tail)
    assert set(dict(case.backbone.stem.network.named_parameters())) <= set(tuned)


def test_live_without_augmentation_is_training_from_cached_activations(case, tmp_path) -> None:
    """Float32 activations were computed in other batches, so bits may differ, and little more."""
    cached = swept(case, spec_of(case, 1, 3), tmp_path / "a")
    live = swept(case, spec_of(case, 1, 3, live=True, policy="none"), tmp_path / "b")
    assert [d.rung.cut for d in live.depths] == [d.rung.cut for d in cached.depths]
    assert live.depths[1].bytes == 0 < cached.depths[1].bytes
    for ours, theirs in zip(live.depths, cached.depths, strict=True):
        (a,), (b,) = ours.fits[0], theirs.fits[0]
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=2e-4)
        assert a.tensors.keys() == b.tensors.keys()
        for name, tensor in a.tensors.items():
            torch.testing.assert_close(tensor, b.tensors[name], rtol=1e-2, atol=1e-4)


def test_live_sees_fresh_views_and_repeats_them(case, tmp_path) -> None:
    spec = spec_of(case, 1, live=True)
    stem = ladder(case.backbone, (0, 1), live=True)[1].stem
    frozen = statistics_checksum(stem)
    before = {name: tensor.clone() for name, tensor in case.backbone.state().items()}
    first, again = (swept(case, spec, tmp_path / name) for name in "ab")
    plain = swept(case, replace(spec, policy="none"), tmp_path / "c")
    given = [found.depths[1].fits[0][0].probabilities for found in (first, again, plain)]
    np.testing.assert_array_equal(given[0], given[1])
    assert (given[0] != given[2]).any()
    np.testing.assert_array_equal(
        first.depths[0].fits[0][0].probabilities, plain.depths[0].fits[0][0].probabilities
    )
    assert statistics_checksum(stem) == frozen
    assert all(torch.equal(t, before[name]) for name, t in case.backbone.state().items())


def test_smaller_pictures_first_is_two_trainings_in_a_row(case) -> None:
    spec = spec_of(case, smaller=((24, 2),))
    (course,) = courses_of(case.cache, case.data, case.backbone, spec)
    (stage,) = course.smaller
    assert stage.given.shape == (3, 24, 24)
    assert course.given.shape == (3, 32, 32)
    part = split_of(case.data, spec).parts[0]
    head = untrained_head(3, case.backbone.width, "softmax", 0)
    fit = Tuning(case.data, part, spec, 0, head).fit(course)
    small = train(
        model_of(stage.rung.tail, head),
        stage.given.examples(case.data, part.fit),
        QUICK,
        units=course.rung.units,
    ).model
    start = model_of(course.rung.tail, head_of(small), tuned=tuned_tensors(small))
    rows = (course.given.examples(case.data, mask) for mask in (part.fit, part.stop))
    ours, stop = rows
    trained = train(start, ours, QUICK, validation=stop, units=course.rung.units).model
    for name, tensor in tuned_tensors(trained).items():
        assert torch.equal(fit.tensors[name], tensor), name
    alone = Tuning(case.data, part, spec, 0, head).fit(replace(course, smaller=()))
    assert any((fit.tensors[name] != alone.tensors[name]).any() for name in fit.tensors)


def test_sizes_that_cannot_be(case, tmp_path) -> None:
    with pytest.raises(ProbeError, match="give --live, or --unfreeze all"):
        swept(case, spec_of(case, 1, smaller=((24, 1),)), tmp_path)
    with pytest.raises(ProbeError, match="sizes"):
        spec_of(case, smaller=((0, 1),))
    vit = load_backbone("timm/vit_tiny_patch16_224", weights="random")
    with pytest.raises(BackboneError, match=r"patch16_224 takes no pictures of 96 x 96 pixels \("):
        ladder(vit, (0, 1), live=True, side=96)


def test_random_weights_start_where_the_library_starts(case) -> None:
    spec = scratch_spec(spec_of(case, 1, scratch=True), case.backbone, 2)
    course = scratch_course(case.cache, case.data, case.backbone, spec)
    expected = load_backbone("timm/test_resnet", weights="random:2", image_size=32).state()
    own = course.rung.tail.state_dict()
    assert own.keys() & expected.keys() == own.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in own.items())
    assert any(not torch.equal(t, case.backbone.state()[name]) for name, t in own.items())
    model = model_of(course.rung.tail, untrained_head(3, case.backbone.width, "softmax", 2))
    data = course.given.examples(case.data, np.ones(len(case.data), bool))
    tuned = tuned_tensors(train(model, data, spec.training).model, course.rung.tail)
    assert "bn1.running_mean" in tuned, "statistics stood still"


def test_random_weights_are_told_beside_and_advise_nothing(case, tmp_path) -> None:
    spec = spec_of(case, 1, seeds=2)
    alone = swept(case, spec, tmp_path / "a")
    beside = swept(case, replace(spec, scratch=True), tmp_path / "b")
    assert alone.scratch is None
    assert beside.scratch.rung.cut == "scratch"
    assert beside.scratch.rung.trained == beside.scratch.rung.total
    assert beside.scratch.right.shape == beside.depths[0].right.shape == (2, len(beside.judged))
    assert beside.recommendation.reason == alone.recommendation.reason
    np.testing.assert_array_equal(beside.recommendation.lower, alone.recommendation.lower)
    assert len(beside.depths) == len(alone.depths) == 2
    resumed = sweep(
        case.cache,
        case.data,
        case.backbone,
        replace(spec, scratch=True),
        Steps(tmp_path / "b", "steps"),
    )
    assert resumed.scratch.seconds == beside.scratch.seconds


@pytest.fixture(scope="module")
def probed(case) -> ProbeResult:
    return api.probe(case.cache.folder, folds=2, tolerance=0.5)


@pytest.mark.parametrize("live", [False, True])
def test_what_is_saved_gives_from_pixels_what_was_trained(case, probed, tmp_path, live) -> None:
    depth = 2 if live else len(case.units)
    spec = spec_of(case, depth, live=live)
    fit = refit(case.cache, case.data, case.backbone, spec, depth)
    rung = ladder(case.backbone, spec.depths, live=live)[-1]
    path = tmp_path / "tuned.fc"
    request = ProbeRequest(case.cache.folder, save=path)
    score = DepthScore(depth, rung.cut, 1.0, (0.9, 1.0), 1.0, 1, 1, 0, 1.0, 1.0, 0.1, 0)
    result = replace(probed, unfreeze=(score,))
    save_tuned(case.cache, request, case.data, case.backbone, rung, fit, result)
    saved = load_classifier(path)
    assert (saved.content.stream.cut, saved.content.stream.dtype) == (PENULTIMATE, "float32")
    model = model_of(rung.tail, fit.head, tuned=fit.tensors, stem=rung.stem).eval()
    paths = [case.cache.index.paths[int(row)] for row in case.data.rows]
    answers = list(saved.answers([str(case.pictures / path) for path in paths]))
    (course,) = courses_of(case.cache, case.data, case.backbone, spec)
    with torch.no_grad():
        expected = model(torch.from_numpy(course.given.rows[course.given.positions[:, 0]])).numpy()
    given = np.stack([answer.logits for answer in answers])
    np.testing.assert_allclose(given, expected, rtol=1e-3, atol=1e-4)
    frozen = {n for n in case.backbone.state() if n not in rung.tail.state_dict()}
    assert not frozen & saved.content.tail.keys()
