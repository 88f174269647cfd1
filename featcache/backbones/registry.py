"""Networks by name, loaded as backbones: stem, classifier, preprocessing and identity."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featcache.backbones import embedded, timm_networks, torchvision_networks
from featcache.backbones.cuts import Split, split_at_penultimate
from featcache.backbones.factory import FactoryOrigin, is_factory_name
from featcache.backbones.identity import tensors_sha256
from featcache.backbones.listing import BackboneListing, list_backbones, unknown_backbone
from featcache.backbones.origin import Origin, fixed_size
from featcache.backbones.published import scaled
from featcache.backbones.seeding import seeded, undrawn
from featcache.backbones.threads import one_thread
from featcache.backbones.weights import fit, read_state
from featcache.errors import BackboneError, WeightsError
from featcache.recipe import Decoder, Precision, Preprocessing, Recipe

__all__ = [
    "DEFAULT",
    "Backbone",
    "BackboneListing",
    "list_backbones",
    "load_backbone",
    "load_from_locator",
]

DEFAULT = "efficientnet_lite0"
"""The network whose weights are always installed."""

Weights = str | os.PathLike[str] | Mapping[str, Tensor] | None

_SEEDS = 1 << 63
_STATISTICS = ("running_mean", "running_var")

_RANDOM = re.compile(r"random(?::(\d+))?")


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pretrained network, cut at the input of its last linear layer, frozen and in float32.

    Attributes:
        name: canonical name: "resnet50", "timm/NAME", "package.module:factory".
        architecture: which code runs it: "timm/tf_efficientnet_lite0", "torchvision/resnet50",
            "package.module:factory@<16 hex of the sha256 of the module's source>".
        stem: normalised pictures (B, 3, H, W) to features (B, width).
        classifier: the network's own last linear layer on features, (B, width) to (B, K); None
            where it has none, or where its output is not a linear function of the feature.
        width: of the feature.
        preprocessing: the published evaluation transform, or the one asked for.
        locator: where the weights came from, enough for `load_from_locator`: {"kind": "embedded"},
            {"kind": "default", "tag": ...}, {"kind": "file", "path": ...},
            {"kind": "random", "seed": ...}, {"kind": "factory"}; {"kind": "given"} for tensors
            handed over in memory, which only their holder can hand over again.
        weights_sha256: identity of all tensors of the network, classifier and BatchNorm statistics
            included, at the input size it is used at.
        parameters: number of parameters of the whole network.
    """

    name: str
    architecture: str
    stem: nn.Module
    classifier: nn.Module | None
    width: int
    preprocessing: Preprocessing
    locator: dict[str, Any]
    weights_sha256: str
    parameters: int
    _tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def recipe(
        self,
        precision: Precision = "fp32",
        decoder: Decoder = "pillow",
        calibration: str | None = None,
    ) -> Recipe:
        """What decides the values this backbone gives."""
        return Recipe(
            weights=self.weights_sha256,
            architecture=self.architecture,
            preprocessing=self.preprocessing,
            decoder=decoder,
            precision=precision,
            calibration=calibration,
        )

    def recipe_like(self, other: Recipe) -> Recipe:
        """The same of another recipe, with this network in it."""
        return self.recipe(other.precision, other.decoder, other.calibration)

    def state(self) -> dict[str, Tensor]:
        """All tensors of the whole network under its own names, on the CPU.

        They are those the network was loaded with, whatever was done to the stem since.
        """
        return dict(self._tensors)


def load_backbone(
    name: str = DEFAULT,
    *,
    weights: Weights = None,
    image_size: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> Backbone:
    """Load a network as a backbone. Neither global random state nor any other setting is changed.

    Args:
        name: an embedded network, one of torchvision, `timm/NAME[.TAG]`, or
            `package.module:factory` (a function without arguments that returns the network).
        weights: None for the published ones; a .safetensors file or a state dict's path;
            "random" or "random:SEED"; or the tensors themselves by name, as `Backbone.state()`
            gives them for the same input size.
        image_size: side of the input in pixels, instead of the published one; the resize before
            the crop keeps its ratio.
        preprocessing: instead of the published one.

    Raises:
        UnknownBackboneError: no network has that name.
        WeightsError: the weights cannot be fetched, read or fitted.
        BackboneError: the network cannot be used as a backbone, or not at that size.
    """
    if image_size is not None and image_size < 1:
        raise BackboneError(f"image size {image_size}: give the side of the input in pixels")
    origin = _find(name, None, preprocessing)
    return _load(origin, weights, preprocessing, image_size)


def load_from_locator(
    name: str, locator: Mapping[str, Any], *, preprocessing: Preprocessing
) -> Backbone:
    """Load again what a cache or a classifier recorded.

    A factory name runs the code it names: pass names from files only where they are trusted.

    Args:
        name: `Backbone.name`.
        locator: `Backbone.locator`.
        preprocessing: `Backbone.preprocessing`.

    Raises:
        WeightsError: the weights are no longer where the locator says.
        BackboneError: as `load_backbone`.
    """
    match dict(locator):
        case {"kind": "file", "path": str(path)}:
            weights: Weights = Path(path)
        case {"kind": "random", "seed": int(seed)} if 0 <= seed < _SEEDS:
            weights = f"random:{seed}"
        case {"kind": "embedded" | "default" | "factory"}:
            weights = None
        case other:
            raise WeightsError(
                f"{name}: its weights cannot be found again from {other}; pass the tensors or "
                "their file as weights"
            )
    tag = locator.get("tag")
    if not isinstance(tag, str | None):
        raise WeightsError(f"{name}: no weights are called {tag!r:.80}")
    return _load(_find(name, tag, preprocessing), weights, preprocessing, None)


_ALIASES = {"xception": "timm/legacy_xception"}
"""What networks are called elsewhere: Chollet's of 2017, as Keras has it."""


def _find(name: str, tag: str | None, preprocessing: Preprocessing | None) -> Origin:
    """The origin a name stands for, at a published tag where one is given."""
    name = _ALIASES.get(name, name)
    if name in embedded.NAMES:
        return embedded.EmbeddedOrigin(name)
    if name in torchvision_networks.names():
        return torchvision_networks.TorchvisionOrigin(name, tag)
    if name.startswith(timm_networks.PREFIX):
        return _find_timm(name, tag)
    if is_factory_name(name):
        with seeded(0):
            return FactoryOrigin(name, preprocessing)
    raise unknown_backbone(name)


def _find_timm(name: str, tag: str | None) -> Origin:
    variant = name.removeprefix(timm_networks.PREFIX)
    if variant not in timm_networks.names() and variant not in timm_networks.tagged_names():
        raise unknown_backbone(name)
    if not tag:
        return timm_networks.TimmOrigin(variant)
    tagged = f"{variant.partition('.')[0]}.{tag}"
    if tagged not in timm_networks.tagged_names():
        raise WeightsError(f"{name}: timm publishes no weights {tag!r}; see `featcache backbones`")
    return timm_networks.TimmOrigin(tagged, alias=name)


def _load(
    origin: Origin, weights: Weights, preprocessing: Preprocessing | None, image_size: int | None
) -> Backbone:
    if preprocessing is None:
        preprocessing = origin.preprocessing(image_size)
    elif image_size is not None:
        preprocessing = scaled(preprocessing, image_size)
    network, locator = _network(origin, weights, preprocessing.size)
    with one_thread():
        _refuse_no_numbers(origin, network)
        tensors = network.state_dict()
        identity = tensors_sha256(tensors)
    parameters = sum(p.numel() for p in network.parameters())
    split = _split(origin, network, preprocessing.size)
    return Backbone(
        name=origin.name,
        architecture=origin.architecture,
        stem=split.stem.eval(),
        classifier=split.tail,
        width=split.shape[0],
        preprocessing=preprocessing,
        locator=locator,
        weights_sha256=identity,
        parameters=parameters,
        _tensors=tensors,
    )


def _refuse_no_numbers(origin: Origin, network: nn.Module) -> None:
    """Refuse weights, statistics of BatchNorm included, that are NaN or infinite.

    Raises:
        WeightsError: names the first tensor, and says how many there are.
    """
    statistics = (b for b in network.named_buffers() if b[0].endswith(_STATISTICS))
    numbers = (*network.named_parameters(), *statistics)
    if broken := [name for name, tensor in numbers if not tensor.isfinite().all()]:
        raise WeightsError(
            f"{origin.name}: {broken[0]!r} holds NaN or infinity, as do {len(broken)} of its "
            f"{len(numbers)} tensors; fetch these weights again, or give others with --weights"
        )


def _network(
    origin: Origin, weights: Weights, size: tuple[int, int]
) -> tuple[nn.Module, dict[str, Any]]:
    """The whole network with its weights, frozen, for pictures of `size`; and its locator."""
    if weights is None:
        with seeded(0):
            network, locator = origin.published()
    elif isinstance(weights, Mapping):
        return _filled_at(origin, weights, size), {"kind": "given"}
    elif random := _RANDOM.fullmatch(os.fspath(weights)):
        seed = int(random[1] or 0)
        network, locator = _random(origin, seed), {"kind": "random", "seed": seed}
    else:
        path = Path(weights).resolve()
        network, locator = _from_file(origin, path), {"kind": "file", "path": str(path)}
    return _frozen(_resized(origin, network, size)), locator


def _random(origin: Origin, seed: int) -> nn.Module:
    if isinstance(origin, FactoryOrigin):
        raise BackboneError(
            f"{origin.name}: random weights are the factory's to make; leave the weights out"
        )
    with seeded(seed):
        return origin.build()


def _from_file(origin: Origin, path: Path) -> nn.Module:
    """The network at its published size with a file's tensors."""
    state = origin.translated(read_state(path))
    network = _built(origin)
    try:
        fit(network, state, origin.published_size, f"{path} for {origin.name}")
    except WeightsError:
        converted = origin.converted(state)
        if converted is None:
            raise
        return converted
    return network


def _filled_at(origin: Origin, state: Mapping[str, Tensor], size: tuple[int, int]) -> nn.Module:
    """The network at `size` with a network's tensors at that size."""
    network = _resized(origin, _built(origin), size)
    fit(network, origin.translated(state), size, f"the tensors given for {origin.name}")
    return _frozen(network)


def _built(origin: Origin) -> nn.Module:
    """The network before it is filled."""
    with seeded(0), undrawn(), one_thread():
        return _frozen(origin.build())


def _resized(origin: Origin, network: nn.Module, size: tuple[int, int]) -> nn.Module:
    if size != origin.published_size:
        origin.resize(network, size)
    return network


def _frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(requires_grad=False).float()


def _split(origin: Origin, network: nn.Module, size: tuple[int, int]) -> Split:
    try:
        return split_at_penultimate(network, size)
    except BackboneError as error:
        if size != origin.published_size:
            raise fixed_size(origin, size, str(error)) from error
        raise BackboneError(f"{origin.name} cannot be a backbone: {error}") from error
