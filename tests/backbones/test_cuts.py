from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from featcache.backbones.cuts import NoHead, Stem, find_last_linear, split_at_penultimate
from featcache.errors import BackboneError

PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(7))


class Small(nn.Module):
    """A convolution, pooling and what a subclass puts behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.fc = nn.Linear(6, 4)

    def features(self, pixels: Tensor) -> Tensor:
        return self.conv(pixels).relu()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.fc(self.features(pixels).mean((2, 3)))


class TwoHeads(Small):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(6, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        feature = self.features(pixels).mean((2, 3))
        return (self.fc(feature) + self.second(feature)) / 2


class SummedHeads(TwoHeads):
    def forward(self, pixels: Tensor) -> Tensor:
        return 2 * super().forward(pixels)


class Softmax(Small):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels).softmax(1)


class PooledBehindTheHead(Small):
    def forward(self, pixels: Tensor) -> Tensor:
        return self.fc(self.features(pixels).flatten(2).transpose(1, 2)).mean(1)


class StrongestBehindTheHead(Small):
    def forward(self, pixels: Tensor) -> Tensor:
        return self.fc(self.features(pixels).flatten(2).transpose(1, 2)).amax(1)


class SquareSoftmax(Small):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels).softmax(1)


class PointwiseHead(Small):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(6, 4, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.fc(self.features(pixels).mean((2, 3), keepdim=True)).flatten(1)


class Headless(Small):
    num_classes = 0

    def forward(self, pixels: Tensor) -> Tensor:
        return self.features(pixels).mean((2, 3))


class Pair(Small):
    def forward(self, pixels: Tensor):
        return super().forward(pixels), None


class Map(Small):
    num_classes = 0

    def forward(self, pixels: Tensor) -> Tensor:
        return self.features(pixels)


class ConvolutionLast(Small):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(6, 4, 31)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.fc(self.features(pixels)).flatten(1)


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@torch.no_grad()
@pytest.mark.parametrize("kind", [Small, PooledBehindTheHead, PointwiseHead])
def test_tail_of_stem_is_the_network(kind: type[Small]) -> None:
    network = kind().eval()
    expected = network(PIXELS)
    feature = network.features(PIXELS).mean((2, 3))
    split = split_at_penultimate(network, (64, 64))
    torch.testing.assert_close(split.stem(PIXELS), feature)
    assert split.tail is not None
    torch.testing.assert_close(split.tail(split.stem(PIXELS)), expected)
    assert split.shape == (6,)


def test_parameters_are_shared_not_copied() -> None:
    network = PointwiseHead().eval()
    conv, head = network.conv, network.fc
    split = split_at_penultimate(network, (64, 64))
    assert isinstance(split.stem, Stem)
    assert split.stem.network.conv is conv
    assert split.tail.weight.data_ptr() == head.weight.data_ptr()


@torch.no_grad()
def test_a_network_that_says_it_has_no_classes_gives_its_output() -> None:
    split = split_at_penultimate(network := Headless().eval(), (64, 64))
    assert split.tail is None
    torch.testing.assert_close(split.stem(PIXELS), network(PIXELS))


def test_a_missing_head_gives_the_output() -> None:
    network = Small().eval()
    network.fc = NoHead()
    split = split_at_penultimate(network, (64, 64))
    assert split.tail is None
    assert split.shape == (6,)


@torch.no_grad()
def test_two_averaged_heads_give_the_mean_of_their_inputs() -> None:
    network = TwoHeads().eval()
    feature = network.features(PIXELS).mean((2, 3))
    split = split_at_penultimate(network, (64, 64))
    torch.testing.assert_close(split.stem(PIXELS), feature)
    assert (split.tail, split.shape) == (None, (6,))


@pytest.mark.parametrize("kind", [SummedHeads, Softmax, SquareSoftmax, StrongestBehindTheHead])
def test_an_output_that_is_not_the_last_layers_is_refused(kind: type[Small]) -> None:
    network = kind().eval()
    expected = network(PIXELS)
    with pytest.raises(BackboneError, match=r"not that of one last linear layer.*num_classes = 0"):
        split_at_penultimate(network, (64, 64))
    torch.testing.assert_close(network(PIXELS), expected)  # put together again


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Pair, "returns tuple for two pictures"),
        (Map, r"returns \[2, 6, 31, 31\] for two pictures"),
        (ConvolutionLast, "its last layer, fc, is a convolution"),
    ],
)
def test_what_gives_no_vector_or_has_no_linear_end_is_refused(kind, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        split_at_penultimate(kind().eval(), (64, 64))


def test_a_network_without_linear_layers_is_refused() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(BackboneError, match="no linear layer at its end"):
        split_at_penultimate(network.eval(), (64, 64))


def test_a_size_the_network_cannot_take_is_named() -> None:
    with pytest.raises(BackboneError, match="does not run at 2 x 2 pixels"):
        split_at_penultimate(Small().eval(), (2, 2))


FAMILIES = [
    ("alexnet", "classifier.6", 64),
    ("convnext_tiny", "classifier.2", 64),
    ("densenet121", "classifier", 64),
    ("efficientnet_b0", "classifier.1", 64),
    ("googlenet", "fc", 64),
    ("inception_v3", "fc", 96),
    ("mnasnet0_5", "classifier.1", 64),
    ("mobilenet_v2", "classifier.1", 64),
    ("mobilenet_v3_small", "classifier.3", 64),
    ("regnet_y_400mf", "fc", 64),
    ("resnet18", "fc", 64),
    ("shufflenet_v2_x0_5", "fc", 64),
    ("squeezenet1_1", "classifier.1", 64),
    pytest.param("maxvit_t", "classifier.5", 224, marks=pytest.mark.slow),
    pytest.param("swin_t", "head", 224, marks=pytest.mark.slow),
    pytest.param("swin_v2_t", "head", 64, marks=pytest.mark.slow),
    pytest.param("vgg11", "classifier.6", 64, marks=pytest.mark.slow),
    pytest.param("vit_b_32", "heads.head", 224, marks=pytest.mark.slow),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "head", "side"), FAMILIES)
def test_torchvisions_families_are_cut_at_their_last_linear_layer(name, head, side) -> None:
    options = (
        {"init_weights": False, "aux_logits": False}
        if "ception" in name or name == "googlenet"
        else {}
    )
    network = models.get_model(name, **options).eval()
    pixels = torch.randn(2, 3, side, side)
    expected = network(pixels)
    found = find_last_linear(network, (side, side))
    assert found.path == head
    split = split_at_penultimate(network, (side, side))
    feature = split.stem(pixels)
    assert feature.shape == (2, *split.shape)
    assert feature.dtype == torch.float32
    if name == "squeezenet1_1":  # pools behind its classifier's ReLU: no linear function of this
        assert split.tail is None
    else:
        assert torch.equal(split.tail(feature), expected)
