"""A classifier whose tail was trained from cached activations, and one with new hidden units."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from featcache import api
from featcache.backbones.identity import tensors_sha256
from featcache.backbones.registry import Backbone, load_backbone
from featcache.backbones.tracing import trace
from featcache.backbones.units import list_units, split_at
from featcache.classifier import files, parity
from featcache.classifier.files import ClassifierFile
from featcache.classifier.joined import Classifier, join, load_classifier
from featcache.classifier.parity import (
    ROUNDED_TOLERANCE,
    TOLERANCE,
    CheckedRows,
    choose_rows,
    measure,
    save_checked,
    tolerance,
)
from featcache.classifier.tuned import halved_at, tuned_stem, tuned_tensors
from featcache.errors import ClassifierError, ParityError, ProbeError
from featcache.extraction.pipeline import Slot
from featcache.heads.hidden import HiddenUnits
from featcache.heads.linear import LinearHead
from featcache.images.sources import source_from_locator
from featcache.recipe import Stream
from featcache.store.cache import Cache

NAME, SIZE = "timm/test_resnet", 48


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """A network this small gains nothing from threads, which wait long where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(NAME, weights="random:1", image_size=SIZE)


@pytest.fixture(scope="module")
def joined(backbone: Backbone) -> Callable[[ClassifierFile], Classifier]:
    """As `join`, without loading the network each time."""
    return lambda content: Classifier(content, backbone)


@dataclass(frozen=True)
class Trained:
    """A tail and head trained from cached rows.

    Attributes:
        tail, head: modules, before: the tail as it was.
        activations: (n, ...) of the rows, as cached.
        content: the classifier. rows: what it is checked on.
    """

    tail: nn.Module
    head: nn.Linear
    before: nn.Module
    activations: Tensor
    content: ClassifierFile
    rows: CheckedRows


def train(tail: nn.Module, head: nn.Linear, activations: Tensor, targets: Tensor) -> None:
    """A few steps on parameters; statistics of one norm move too, as if they had been asked for."""
    norm = next(m for m in tail.modules() if isinstance(m, nn.BatchNorm2d))
    norm.train()
    parameters = [*tail.requires_grad_().parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(parameters, 0.02)
    for _ in range(8):
        loss = nn.functional.cross_entropy(head(tail(activations)), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tail.eval().requires_grad_(requires_grad=False)


def linear_head(layer: nn.Linear) -> LinearHead:
    with torch.no_grad():
        return LinearHead("softmax", layer.weight.numpy().copy(), layer.bias.numpy().copy())


def trained_from(pictures: Path, network: Backbone, out: Path, **options: Any) -> Trained:
    """Three units and a head, trained from cached activations of half precision."""
    torch.manual_seed(0)
    traced = trace(network.stem, network.preprocessing.size)
    cut = list_units(traced)[3].name
    api.extract(pictures, cuts=cut, pooling="none", out=out, **options)
    cache = Cache(out)
    reader, chosen = cache.stream(cut), choose_rows(len(cache.index))
    cached = reader.read(reader.positions(cache.index.hashes[chosen]))
    assert cached.dtype == np.float16
    activations = torch.from_numpy(cached.astype(np.float32))
    targets = torch.tensor([path.startswith("coffee") for path in cache.index.paths]).long()[chosen]
    tail, before = copy.deepcopy(split_at(traced, cut).tail), split_at(traced, cut).tail
    head = nn.Linear(network.width, 2)
    train(tail, head, activations, targets)
    content = ClassifierFile(
        head=linear_head(head),
        classes=("cat", "coffee"),
        recipe=cache.manifest.recipe,
        stream=reader.entry.stream,
        backbone=cache.manifest.backbone,
        measured={},
        tail=tuned_tensors(tail, network),
    )
    slots = [Slot(cache.index.hashes[i].tobytes(), cache.index.paths[int(i)]) for i in chosen]
    with torch.no_grad():
        logits = head(tail(activations)).numpy()
    rows = CheckedRows(source_from_locator(cache.manifest.source), slots, logits)
    return Trained(tail, head, before, activations, content, rows)


@pytest.fixture(scope="module")
def trained(pictures: Path, backbone: Backbone, tmp_path_factory: Any) -> Trained:
    out = tmp_path_factory.mktemp("caches") / "cut"
    options = {"backbone": NAME, "weights": "random:1", "image_size": SIZE}
    return trained_from(pictures, backbone, out, **options)


@pytest.fixture(scope="module")
def tuned(trained: Trained, tmp_path_factory: Any) -> Path:
    """The classifier, saved. Read only."""
    path = tmp_path_factory.mktemp("classifiers") / "tuned.fc"
    save_checked(path, trained.content, join, trained.rows)
    return path


def with_hidden(trained: Trained, backbone: Backbone) -> tuple[ClassifierFile, nn.Module]:
    """The same with an MLP head, and the head as a module."""
    mlp = nn.Sequential(nn.Linear(backbone.width, 7), nn.ReLU(), nn.Linear(7, 2))
    hidden = HiddenUnits(*(p.detach().numpy() for p in mlp[0].parameters()))
    return replace(trained.content, head=linear_head(mlp[2]), hidden=hidden), mlp


def test_what_changed_is_kept_and_nothing_else(trained: Trained, backbone: Backbone) -> None:
    own, after = backbone.state(), trained.tail.state_dict()
    for name, tensor in after.items():
        if name in trained.content.tail:
            assert torch.equal(trained.content.tail[name], tensor)
            assert not torch.equal(own[name], tensor)
        else:
            assert torch.equal(own[name], tensor)
    kept = trained.content.tail.keys()
    assert dict(trained.tail.named_parameters()).keys() & kept
    assert any(name.endswith("running_mean") for name in kept)
    assert any(name.endswith("num_batches_tracked") for name in kept)
    assert tuned_tensors(trained.before, backbone) == {}


def test_joined_it_is_the_tuned_tail_on_the_stem(
    trained: Trained, backbone: Backbone, tuned: Path
) -> None:
    """Bit for bit, at random pictures: the stem as it was, then the tail and head as trained."""
    traced = trace(backbone.stem, backbone.preprocessing.size)
    stem = split_at(traced, trained.content.stream.cut).stem
    pixels = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    overlaid = tuned_stem(backbone.stem, files.read(tuned).tail)
    with torch.no_grad():
        assert torch.equal(overlaid(pixels), trained.tail(stem(pixels)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["levit_128s", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224", "maxvit_pico_rw_256"],
)
def test_networks_that_keep_tables_beside_their_tensors(name: str) -> None:
    """Biases looked up once, position grids and index tables: none of them is a stale copy."""
    network = load_backbone(f"timm/{name}", weights="random:1")
    size = network.preprocessing.size
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.stem(pixels)  # fills what such networks keep
    traced = trace(network.stem, size)
    cut = list_units(traced)[2].name
    split = split_at(traced, cut)
    tail = copy.deepcopy(split.tail)
    assert tuned_tensors(tail, network) == {}
    with torch.no_grad():
        for parameter in tail.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        tuned = tuned_stem(network.stem, tuned_tensors(tail, network))
        assert torch.equal(tuned(pixels), tail(split.stem(pixels)))
        rounded = tail(split.stem(pixels).half().float())
        assert torch.equal(halved_at(tuned, cut, size)(pixels), rounded)


def test_from_pixels_as_from_cached_activations(
    trained: Trained, tuned: Path, pictures: Path
) -> None:
    loaded = load_classifier(tuned)
    paths = [str(pictures / slot.path) for slot in trained.rows.slots]
    logits = np.stack([answer.logits for answer in loaded.answers(paths)])
    size = np.abs(trained.rows.logits).max()
    np.testing.assert_allclose(logits, trained.rows.logits, atol=ROUNDED_TOLERANCE * size)
    with torch.no_grad():
        untuned = trained.head(trained.before(trained.activations)).numpy()
    assert np.abs(logits - untuned).max() > 0.1 * size


def test_what_is_written_is_read(trained: Trained, tuned: Path) -> None:
    content = files.read(tuned)
    assert files.encode(content) == tuned.read_bytes()
    assert content.stream.cut == trained.content.stream.cut
    assert content.hidden is None
    assert tensors_sha256(content.tail) == tensors_sha256(trained.content.tail)


def test_it_is_plain_safetensors(trained: Trained, tuned: Path) -> None:
    with safetensors.safe_open(tuned, framework="pt") as file:
        described = json.loads(file.metadata()["featcache"])
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert described["format"] == 2
    named = {name for name in held if name.startswith("tail.")}
    assert named == {f"tail.{name}" for name in trained.content.tail}
    assert described["tail_sha256"] == tensors_sha256({name: held[name] for name in named})


def test_without_a_tail_the_format_is_the_first(trained: Trained, saved: Path) -> None:
    with safetensors.safe_open(saved, framework="pt") as file:
        described = json.loads(file.metadata()["featcache"])
    assert described["format"] == 1
    assert not {"tail_sha256", "hidden_sha256"} & set(described)


def test_the_backbone_is_not_changed(trained: Trained, backbone: Backbone) -> None:
    identity, held = tensors_sha256(backbone.state()), tensors_sha256(backbone.stem.state_dict())
    with Classifier(trained.content, backbone).engine() as engine:
        engine.run(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    assert tensors_sha256(backbone.state()) == identity == backbone.weights_sha256
    assert tensors_sha256(backbone.stem.state_dict()) == held


def test_embedded_it_needs_no_weights(
    trained: Trained, backbone: Backbone, tuned: Path, pictures: Path, tmp_path: Path
) -> None:
    gone = {"name": NAME, "locator": {"kind": "file", "path": str(tmp_path / "gone.safetensors")}}
    whole = replace(trained.content, backbone=gone, backbone_tensors=backbone.state())
    save_checked(tmp_path / "whole.fc", whole, join, trained.rows)
    cats = [str(pictures / "cat")]
    assert api.predict(tmp_path / "whole.fc", cats) == api.predict(tuned, cats)
    content = files.read(tmp_path / "whole.fc")
    assert tensors_sha256(content.backbone_tensors) == backbone.weights_sha256


def test_hidden_units(
    trained: Trained, joined: Any, backbone: Backbone, pictures: Path, tmp_path: Path
) -> None:
    content, mlp = with_hidden(trained, backbone)
    with torch.no_grad():
        logits = mlp(trained.tail(trained.activations)).numpy()
    rows = replace(trained.rows, logits=logits)
    save_checked(tmp_path / "mlp.fc", content, joined, rows)
    assert files.encode(files.read(tmp_path / "mlp.fc")) == (tmp_path / "mlp.fc").read_bytes()
    alone = replace(content, tail={})
    with torch.no_grad():
        logits = mlp(trained.before(trained.activations)).numpy()
    save_checked(tmp_path / "alone.fc", alone, joined, replace(trained.rows, logits=logits))
    assert len(api.predict(tmp_path / "alone.fc", [str(pictures / "cat")])) == 14
    other = HiddenUnits(content.hidden.coef, content.hidden.bias + 1)
    with pytest.raises(ParityError, match="not saved"):
        save_checked(tmp_path / "a.fc", replace(content, hidden=other), joined, rows)


def test_hidden_units_are_a_layer_of_torch() -> None:
    layer = nn.Linear(5, 3)
    hidden = HiddenUnits(*(p.detach().numpy() for p in layer.parameters()))
    features = torch.randn(4, 5)
    with torch.no_grad():
        np.testing.assert_allclose(
            hidden.activations(features.numpy()), layer(features).relu(), rtol=1e-5, atol=1e-6
        )
    with pytest.raises(ProbeError, match="given to hidden units for 5 features"):
        hidden.activations(np.zeros((2, 6), np.float32))
    with pytest.raises(ProbeError, match=r"give \(H, D\) and \(H,\)"):
        HiddenUnits(hidden.coef, hidden.bias[:2])


def test_what_was_rounded_on_the_way_is_allowed_more(trained: Trained) -> None:
    stream = trained.content.stream
    assert (stream.dtype, tolerance(stream)) == ("float16", TOLERANCE)
    assert tolerance(replace(stream, parent="0" * 64)) == ROUNDED_TOLERANCE


def test_rounding_is_all_that_differs(trained: Trained, backbone: Backbone) -> None:
    found = measure(Classifier(trained.content, backbone), trained.rows)
    assert found.worst < 1e-5
    assert 1e-5 < found.unrounded < ROUNDED_TOLERANCE / 2
    exact = replace(trained.content.stream, dtype="float32")
    classifier = Classifier(replace(trained.content, stream=exact), backbone)
    assert measure(classifier, trained.rows).worst == found.unrounded


def test_rounding_that_matters_is_refused(
    trained: Trained, joined: Any, tmp_path: Path, fails: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "ROUNDED_TOLERANCE", 1e-5)
    monkeypatch.setattr(parity, "TOLERANCE", 1e-5)
    text = fails(
        ParityError,
        lambda: save_checked(tmp_path / "a.fc", trained.content, joined, trained.rows),
        tmp_path,
    )
    assert "extract with --store-dtype float32" in text


def changed(content: ClassifierFile, name: str, by: float) -> dict[str, Tensor]:
    tensor = content.tail[name]
    return content.tail | {name: tensor + by * tensor.std(unbiased=False).clamp(min=0.1)}


def test_any_wrong_tensor_is_refused(
    trained: Trained, joined: Any, tmp_path: Path, fails: Any
) -> None:
    """Each kind once: kernels, a norm's scale and shift, statistics."""
    names = {name.rpartition(".")[2]: name for name in trained.content.tail if "num_b" not in name}
    assert {"weight", "bias", "running_mean", "running_var"} <= names.keys()
    for name in names.values():
        tail = changed(trained.content, name, 1.0)
        content = replace(trained.content, tail=tail)
        text = fails(
            ParityError,
            lambda content=content: save_checked(tmp_path / "a.fc", content, joined, trained.rows),
            tmp_path,
        )
        assert f"(allowed: {TOLERANCE:g})" in text


def test_the_untuned_tail_is_refused(
    trained: Trained, joined: Any, tmp_path: Path, fails: Any
) -> None:
    content = replace(trained.content, tail={})
    fails(
        ParityError,
        lambda: save_checked(tmp_path / "a.fc", content, joined, trained.rows),
        tmp_path,
    )


def test_tensors_of_another_network_are_refused(trained: Trained, backbone: Backbone) -> None:
    name, tensor = next(iter(trained.content.tail.items()))
    for tail, says in [
        ({"no.such": tensor}, r"1 tuned tensors are not of this network \(no\.such\)"),
        ({name: tensor[:-1]}, rf"do not fit the network \({name} float32 .* instead of float32"),
        ({name: tensor.double()}, rf"{name} float64 .* instead of float32"),
    ]:
        with pytest.raises(ClassifierError, match=says):
            Classifier(replace(trained.content, tail=tail), backbone)
    with pytest.raises(ClassifierError, match=r"not of this network \(0\.weight, 0\.bias\)"):
        tuned_tensors(nn.Sequential(nn.Linear(2, 2)), backbone)


def test_tensors_that_were_changed_or_taken_out_are_seen(tuned: Path, tmp_path: Path) -> None:
    with safetensors.safe_open(tuned, framework="pt") as file:
        header = file.metadata()
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(name for name in held if name.startswith("tail."))
    some = {k: v for k, v in held.items() if k != name}
    for tensors, part in [
        (some, "tail"),
        (some | {name: held[name] + 1}, "tail"),
        (some | {f"{name}2": held[name]}, "tail"),
        (held | {"hidden.weight": torch.zeros(2, 2)}, "hidden"),
    ]:
        save_file(tensors, tmp_path / "odd.fc", header)
        with pytest.raises(ClassifierError, match=rf"odd\.fc: the {part}'s tensors are not those"):
            files.read(tmp_path / "odd.fc")


def test_a_head_that_does_not_take_the_hidden_units(
    trained: Trained, backbone: Backbone, tmp_path: Path
) -> None:
    content, _ = with_hidden(trained, backbone)
    wider = HiddenUnits(np.zeros((9, backbone.width), np.float32), np.zeros(9, np.float32))
    (tmp_path / "a.fc").write_bytes(files.encode(replace(content, hidden=wider)))
    with pytest.raises(ClassifierError, match="9 hidden units and a head for 7"):
        files.read(tmp_path / "a.fc")


@pytest.mark.slow
def test_rounding_on_the_embedded_network(pictures: Path, tmp_path: Path) -> None:
    """What half precision at a cut three units deep does, and what the check sees of it."""
    backbone = load_backbone(image_size=96)
    trained = trained_from(pictures, backbone, tmp_path / "c", image_size=96)
    found = measure(Classifier(trained.content, backbone), trained.rows)
    assert found.worst < 1e-4
    assert 1e-5 < found.unrounded < TOLERANCE
    untuned = measure(Classifier(replace(trained.content, tail={}), backbone), trained.rows)
    assert untuned.worst > 100 * found.unrounded


def test_a_lower_precision_is_allowed_what_engines_are() -> None:
    stream = Stream("a" * 64)
    assert parity.tolerance(stream) == parity.TOLERANCE
    assert parity.tolerance(stream, "bf16") == 5e-2
    assert parity.tolerance(replace(stream, cut="layer1", parent="b" * 64)) == 5e-3
