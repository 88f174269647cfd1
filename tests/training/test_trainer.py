"""Training by law: what stays, what is equal, what an independent loop gives."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from featcache.errors import TrainingError
from featcache.evaluation.metrics import log_loss
from featcache.heads.linear import LinearHead
from featcache.training.examples import Examples
from featcache.training.feeding import Feed
from featcache.training.guard import statistics_checksum, statistics_unmoved
from featcache.training.model import TunedModel, head_of, mlp_tail, model_of, untrained_head
from featcache.training.rates import choose_rate
from featcache.training.spec import TrainingSpec
from featcache.training.trainer import TrainingStatus, logits_of, train

PLAIN = {"warmup": 0.0, "clip": None, "weight_decay": 0.0, "unit_decay": 1.0}


def joined(tail: nn.Module, K: int = 3, loss: str = "softmax", D: int = 8) -> TunedModel:
    return model_of(tail, untrained_head(K, D, loss, 0))


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_the_first_state_scores_what_the_probe_scores(tiny) -> None:
    tail, data = tiny()
    model = joined(tail)
    with torch.no_grad():
        features = tail(torch.from_numpy(data.activations)).numpy()
    expected = log_loss(head_of(model).probabilities(features), data.targets)
    trained = train(model, data, TrainingSpec(epochs=1, rate=0.0), validation=data)
    np.testing.assert_allclose(trained.history[0].validation_loss, expected, rtol=1e-6)
    assert trained.history[0].train_loss is None


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_rate_zero_changes_nothing(tiny, optimizer) -> None:
    tail, data = tiny()
    model = joined(tail)
    spec = TrainingSpec(optimizer=optimizer, rate=0.0, epochs=2, mixup=0.4, weight_decay=0.3)
    assert same(train(model, data, spec).model, model)


def test_what_is_given_stays_as_it_is(tiny) -> None:
    tail, data = tiny()
    model, before = joined(tail), copy.deepcopy(joined(tail))
    maps = data.activations.copy()
    trained = train(model, data, TrainingSpec(epochs=2, rate=0.01), validation=data)
    assert same(model, before)
    assert same(model.tail, tail)
    assert not same(trained.model, model)
    np.testing.assert_array_equal(data.activations, maps)


def test_the_frozen_part_and_its_statistics_stay_bit_for_bit(resnet) -> None:
    model = model_of(resnet.split.tail, resnet.head, stem=resnet.split.stem)
    before = {k: t.clone() for k, t in resnet.network.state_dict().items()}
    live = Examples(resnet.pixels.numpy(), np.arange(8), resnet.targets[:8])
    for moves in (False, True):
        spec = TrainingSpec(epochs=1, rate=0.01, batch_size=4, batchnorm_moves=moves)
        trained = train(model, live, spec, units=resnet.units)
        assert all(torch.equal(t, before[k]) for k, t in resnet.network.state_dict().items())
        own, theirs = (statistics_checksum(m) for m in (trained.model.tail, resnet.split.tail))
        assert (own != theirs) == moves
        assert not any(module.training for module in resnet.network.modules())
        weights = trained.model.tail.state_dict()["layer4.1.conv1.weight"]
        assert not torch.equal(weights, before["layer4.1.conv1.weight"])


def test_statistics_that_move_are_found_out(tiny) -> None:
    class Moves(nn.Module):
        """Moves its statistics in evaluation mode too."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.norm.running_mean.add_(x.detach().mean())
            return self.norm(x)

    rows = np.ones((6, 4), np.float32)
    data = Examples(rows, np.arange(6), np.arange(6) % 3)
    with pytest.raises(TrainingError, match="statistics of a frozen BatchNorm moved"):
        train(joined(Moves(), D=4), data, TrainingSpec(epochs=1))
    norm = nn.BatchNorm1d(4)
    with pytest.raises(TrainingError), statistics_unmoved(norm, None):
        norm(torch.randn(5, 4))


def test_a_step_of_sgd_is_the_gradient_step_written_out() -> None:
    """A ReLU layer and a softmax, their gradients by hand in float64."""
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(10, 5)).astype(np.float32), rng.integers(3, size=10)
    weights = rng.uniform(0.5, 2, 10)
    model = model_of(mlp_tail(5, 7, 0.0, 0), untrained_head(3, 7, "softmax", 1))
    spec = TrainingSpec(optimizer="sgd", rate=0.1, head_factor=3, epochs=1, batch_size=10, **PLAIN)
    trained = train(model, Examples(X, np.arange(10), codes, weights), spec).model
    layer, head = model.tail[1], model.head
    A, a, B, b = (
        p.detach().double().numpy() for p in (layer.weight, layer.bias, head.weight, head.bias)
    )
    hidden = X @ A.T + a
    H = np.maximum(hidden, 0)
    Z = H @ B.T + b
    P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    R = (P - np.eye(3)[codes]) * (weights / weights.mean())[:, None] / 10
    back = (R @ B) * (hidden > 0)
    stepped = (A - 0.1 * back.T @ X, a - 0.1 * back.sum(0), B - 0.3 * R.T @ H, b - 0.3 * R.sum(0))
    own = trained.tail[1].weight, trained.tail[1].bias, trained.head.weight, trained.head.bias
    for ours, theirs in zip(own, stepped, strict=True):
        np.testing.assert_allclose(ours.detach(), theirs, rtol=1e-5, atol=1e-7)


def usual_loop(resnet, spec: TrainingSpec, data: Examples) -> list[float]:
    """What people write: the whole network, its lower part under no_grad at every step."""
    network = copy.deepcopy(resnet.network)
    network.fc = nn.Linear(512, 3)
    with torch.no_grad():
        network.fc.weight.copy_(torch.from_numpy(resnet.head.coef))
        network.fc.bias.copy_(torch.from_numpy(resnet.head.bias))
    own = {"fc": 1.0, "layer4.1": spec.unit_decay, "layer4.0": spec.unit_decay**2}
    groups = [
        {"params": list(network.get_submodule(name).parameters()), "lr": spec.rate * factor}
        for name, factor in own.items()
    ]
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_()
    optimizer = torch.optim.AdamW(groups, weight_decay=spec.weight_decay)
    losses = []
    for epoch in range(1, spec.epochs + 1):
        for batch in Feed(data, spec.batch_size, spec.memory, spec.seed).epoch(epoch):
            with torch.no_grad():
                x = network.maxpool(
                    network.relu(network.bn1(network.conv1(resnet.pixels[batch.pictures])))
                )
                x = network.layer3(network.layer2(network.layer1(x)))
            logits = network.fc(network.avgpool(network.layer4(x)).flatten(1))
            loss = F.cross_entropy(logits, torch.from_numpy(resnet.targets[batch.pictures]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def test_step_by_step_it_loses_what_the_usual_loop_loses(resnet) -> None:
    spec = TrainingSpec(
        rate=1e-3, epochs=3, batch_size=12, **PLAIN | {"unit_decay": 0.5, "warmup": 0.0}
    )
    constant = copy.deepcopy(resnet)
    data = constant.examples()
    expected = usual_loop(constant, spec, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featcache.training.schedules.cosine_share", lambda step, **_: 1.0)
        cached = train(model_of(resnet.split.tail, resnet.head), data, spec, units=resnet.units)
    losses = [loss for epoch in cached.history for loss in epoch.losses]
    assert len(losses) == 6
    assert np.ptp(losses) > 0.5, "the case shows nothing"
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tiny) -> None:
    tail, data = tiny(60)
    tail.append(nn.Dropout(0.2))
    options = {"mixup": 0.3, "cutmix": 0.3, "noise": 0.1, "rate": 0.01, "epochs": 3}
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    runs = [
        train(joined(tail), data, TrainingSpec(seed=seed, **options), validation=data)
        for seed in (0, 0, 1)
    ]
    assert same(runs[0].model, runs[1].model)
    assert runs[0].history == runs[1].history
    assert not same(runs[0].model, runs[2].model)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    torch.randn(5)
    again = train(joined(tail), data, TrainingSpec(**options), validation=data)
    assert again.history == runs[0].history, "the global generator has a say"


@pytest.mark.parametrize("made", [False, True])
def test_where_activations_lie_changes_no_bit(tiny, tmp_path, made) -> None:
    tail, data = tiny(48)
    half = data.activations.astype(np.float16)
    np.save(tmp_path / "maps.npy", half)
    mapped = np.load(tmp_path / "maps.npy", mmap_mode="r")
    spec = TrainingSpec(epochs=2, rate=0.01)
    runs = [
        train(joined(tail), Examples(rows, np.arange(48), data.targets, made=made), spec)
        for rows in (half, mapped)
    ]
    assert same(runs[0].model, runs[1].model)
    widened = Examples(half.astype(np.float32), np.arange(48), data.targets)
    assert same(runs[0].model, train(joined(tail), widened, spec).model)


def test_the_best_weights_are_kept_and_never_worse_than_the_start(tiny) -> None:
    tail, data = tiny(30)
    held = tiny(200, seed=3)[1]
    spec = TrainingSpec(rate=0.3, epochs=12, batch_size=10)
    trained = train(joined(tail), data, spec, validation=held)
    losses = [epoch.validation_loss for epoch in trained.history]
    assert trained.best_epoch == int(np.argmin(losses))
    assert losses[-1] > min(losses), "the case shows nothing"
    logits = logits_of(trained.model, held)
    kept = log_loss(head_of(trained.model).probabilities_of(logits), held.targets)
    np.testing.assert_allclose(kept, min(losses), rtol=1e-6)


def test_it_stops_after_so_many_epochs_in_vain(tiny) -> None:
    tail, data = tiny(30)
    flipped = Examples(data.activations, data.positions, (data.targets + 1) % 3)
    spec = TrainingSpec(rate=0.05, epochs=50, patience=3)
    trained = train(joined(tail), data, spec, validation=flipped)
    assert trained.status is TrainingStatus.STOPPED_EARLY
    assert trained.stopped_early
    assert len(trained.history) == trained.best_epoch + 4
    whole = train(joined(tail), data, TrainingSpec(rate=0.05, epochs=6), validation=flipped)
    assert whole.status is TrainingStatus.FINISHED
    assert len(whole.history) == 7


def test_a_divergence_goes_back_to_the_best_weights_and_says_so(tiny) -> None:
    tail, data = tiny()
    spec = TrainingSpec(optimizer="sgd", rate=1e30, epochs=5, clip=None)
    trained = train(joined(tail), data, spec, validation=data)
    assert trained.status is TrainingStatus.DIVERGED
    assert trained.best_epoch == 0
    assert same(trained.model, joined(tail))
    with pytest.raises(TrainingError, match=r"epoch 1: a loss, .*head 1e\+30.*smaller rate"):
        train(joined(tail), data, spec)
    once = replace(spec, epochs=1, batch_size=len(data), rate=1e39)  # the last step overflows
    with pytest.raises(TrainingError, match="a weight is not finite"):
        train(joined(tail), data, once)


def test_activations_that_are_not_finite_are_refused(tiny) -> None:
    tail, data = tiny()
    data.activations[3] = np.nan
    with pytest.raises(TrainingError, match="not finite before the first step"):
        train(joined(tail), data, TrainingSpec(epochs=1), validation=data)


def test_a_classifier_for_several_labels_and_for_two_classes_learns(tiny) -> None:
    tail, data = tiny(80)
    labels = np.stack([data.targets == 1, data.targets != 0], axis=1)
    several = model_of(tail, untrained_head(2, 8, "logistic", 0, multi_label=True))
    two = model_of(
        tail, LinearHead("softmax", np.zeros((2, 8), np.float32), np.zeros(2, np.float32))
    )
    for model, targets in ((several, labels), (two, (data.targets > 0).astype(int))):
        own = Examples(data.activations, data.positions, targets)
        trained = train(model, own, TrainingSpec(rate=0.05, epochs=25), validation=own)
        losses = [epoch.validation_loss for epoch in trained.history]
        assert min(losses) < 0.5 * losses[0]
    W, b = trained.model.head.weight, trained.model.head.bias
    np.testing.assert_allclose((W[0] + W[1]).detach(), 0, atol=1e-6)
    np.testing.assert_allclose((b[0] + b[1]).detach(), 0, atol=1e-6)


def test_views_are_trained_on_and_the_plain_one_is_judged(tiny) -> None:
    tail, data = tiny(20)
    maps = np.concatenate([data.activations, np.full_like(data.activations, np.nan)])
    views = np.stack([np.arange(20), np.arange(20, 40)], axis=1)
    both = Examples(maps, views, data.targets)
    trained = train(joined(tail), both, TrainingSpec(epochs=1), validation=both)
    assert trained.status is TrainingStatus.DIVERGED, "the second views were never drawn"
    assert trained.history[0].validation_loss is not None


def test_progress_counts_every_step(tiny) -> None:
    tail, data = tiny(20)
    calls = []
    report = lambda *call: calls.append(call)  # noqa: E731
    train(joined(tail), data, TrainingSpec(epochs=2, batch_size=8), progress=report)
    assert calls == [("train", done, 6) for done in range(1, 7)]


def test_a_rate_is_chosen_by_the_validation_pictures(tiny) -> None:
    tail, data = tiny(60)
    held = tiny(60, seed=3)[1]
    calls = []
    chosen = choose_rate(
        joined(tail),
        data,
        TrainingSpec(epochs=3),
        validation=held,
        rates=(1e-6, 0.02, 1e30),
        progress=lambda *call: calls.append(call),
    )
    assert chosen.rate == 0.02
    assert [rate for rate, _ in chosen.tried] == [1e-6, 0.02, 1e30]
    alone = train(joined(tail), data, TrainingSpec(epochs=3, rate=0.02), validation=held)
    assert same(alone.model, chosen.trained.model)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    with pytest.raises(TrainingError, match="no rate to choose from"):
        choose_rate(joined(tail), data, TrainingSpec(), validation=held, rates=())


def test_a_batch_that_does_not_fit_says_what_can_be_smaller(tiny) -> None:
    class Greedy(nn.Module):
        def forward(self, activations: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    _, data = tiny()
    says = "cpu: a batch of 7 pictures does not fit its memory; give a smaller batch_size"
    with pytest.raises(TrainingError, match=says):
        train(joined(Greedy()), data, TrainingSpec(epochs=1, batch_size=7))


def test_on_real_digits_the_tail_learns_what_the_head_alone_cannot() -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    bunch = load_digits()
    pictures = (bunch.images[:, None] / 16).astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tail = nn.Sequential(
            nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 24, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        ).eval()  # fmt: skip
    with torch.no_grad():
        features = tail(torch.from_numpy(pictures)).numpy()
    rows, held, tested = np.split(np.random.default_rng(0).permutation(1797), [900, 1100])
    solved = LogisticRegression(C=10, max_iter=2000).fit(features[rows], bunch.target[rows])
    head = LinearHead(
        "softmax", solved.coef_.astype(np.float32), solved.intercept_.astype(np.float32)
    )

    def part(some: np.ndarray) -> Examples:
        return Examples(pictures, some, bunch.target[some])

    spec = TrainingSpec(rate=5e-3, epochs=8)
    trained = train(model_of(tail, head), part(rows), spec, validation=part(held))
    accuracy = np.mean(logits_of(trained.model, part(tested)).argmax(1) == bunch.target[tested])
    alone = np.mean(head.logits(features[tested]).argmax(1) == bunch.target[tested])
    assert accuracy > alone + 0.01
    assert trained.best.validation_loss < 0.7 * trained.history[0].validation_loss


@pytest.mark.gpu
def test_a_gpu_gives_about_what_a_cpu_gives(resnet) -> None:
    data = resnet.examples()
    runs = [
        train(
            model_of(resnet.split.tail, resnet.head),
            data,
            TrainingSpec(epochs=2, rate=1e-3, device=device, autocast=False),
            validation=data,
        )
        for device in ("cpu", "cuda")
    ]
    own, theirs = ([e.validation_loss for e in run.history] for run in runs)
    np.testing.assert_allclose(theirs, own, rtol=0.02)


def test_a_tempered_epoch_is_judged_at_its_best_temperature(tiny) -> None:
    """And the head that comes out is divided by it."""
    tail, data = tiny()
    spec = TrainingSpec(epochs=4, rate=3e-2, batch_size=8, temper=True)
    trained = train(joined(tail), data, spec, validation=data)
    assert trained.best.temperature != 1
    head, given = head_of(trained.model), logits_of(trained.model, data)

    def loss(log_temperature: float) -> float:
        return log_loss(head.probabilities_of(given / np.exp(log_temperature)), data.targets)

    assert loss(0.0) == pytest.approx(trained.best.validation_loss, rel=1e-4)
    assert all(loss(0.0) <= loss(t) + 1e-4 for t in (-0.5, -0.1, 0.1, 0.5))
    losses = [epoch.validation_loss for epoch in trained.history]
    assert trained.best.validation_loss == min(losses)
