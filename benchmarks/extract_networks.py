"""The networks of `extract.py`, as people load them: by torchvision or timm, without featcache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

BATCH = 32
"""Pictures a forward pass, on every side that says nothing else."""

_CALIBRATED_ON = 64
"""Pictures whose statistics BatchNorm takes where weights are random."""


@dataclass(frozen=True)
class Network:
    """A network.

    Attributes:
        title: to print.
        library, name: that people load it by. head: its last linear layer there.
        backbone: featcache's name of it.
        faster: how many times as quick as the usual loop it is to be extracted.
        random: whether its weights are: of seed 0, with BatchNorm statistics of the pictures;
            without, activations of a deep random network vanish.
    """

    title: str
    library: Literal["torchvision", "timm"]
    name: str
    head: str
    backbone: str
    faster: float
    random: bool = True


NETWORKS = {
    "resnet50": Network("ResNet-50", "torchvision", "resnet50", "fc", "resnet50", 2.0),
    "mobilenet": Network(
        "MobileNet-v3-L",
        "torchvision",
        "mobilenet_v3_large",
        "classifier.3",
        "mobilenet_v3_large",
        3.0,
    ),
    "lite0": Network(
        "EfficientNet-lite0",
        "timm",
        "tf_efficientnet_lite0",
        "classifier",
        "efficientnet_lite0",
        3.0,
        random=False,
    ),
    "vit": Network(
        "ViT-S/16",
        "timm",
        "vit_small_patch16_224",
        "head",
        "timm/vit_small_patch16_224",
        1.0,
    ),
}


def load(network: Network, weights: Path) -> Any:
    """The network in evaluation mode with the weights of a file, its last linear layer left out."""
    from safetensors.torch import load_file
    from torch import nn

    model = _build(network)
    model.load_state_dict(load_file(weights))
    model.set_submodule(network.head, nn.Identity())
    return model.eval()


def transform(network: Network, model: Any) -> Callable[[Any], Any]:
    """The published evaluation transform, from a Pillow picture to a normalised tensor."""
    if network.library == "torchvision":
        import torchvision

        return torchvision.models.get_model_weights(network.name)["DEFAULT"].transforms()
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    composed: Any = create_transform(**resolve_model_data_config(model), is_training=False)
    return composed


def write_weights(network: Network, pictures: Path, path: Path) -> None:
    """Keep the weights that all sides load."""
    import torch
    from safetensors.torch import save_file

    if not network.random:
        from featcache.backbones.registry import load_backbone

        save_file(load_backbone(network.backbone).state(), path)
        return
    torch.manual_seed(0)
    model = _build(network)
    _calibrate(model, _some_pixels(network, model, pictures))
    save_file(model.state_dict(), path)


def _build(network: Network) -> Any:
    if network.library == "torchvision":
        import torchvision

        return torchvision.models.get_model(network.name, weights=None)
    import timm

    return timm.create_model(network.name)


def _some_pixels(network: Network, model: Any, pictures: Path) -> Any:
    """(B, 3, H, W) of pictures of every class."""
    import torch
    from PIL import Image

    prepare = transform(network, model)
    paths = sorted(pictures.rglob("*.jpg"), key=lambda path: path.name)[:_CALIBRATED_ON]
    return torch.stack([prepare(Image.open(path).convert("RGB")) for path in paths])


def _calibrate(model: Any, pixels: Any) -> None:
    """Let BatchNorm take the statistics of pixels."""
    import torch
    from torch import nn

    model.eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches, not a moving one
            norm.train()
    with torch.no_grad():
        model(pixels)
