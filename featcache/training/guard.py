"""BatchNorm statistics stay what they are, and that is checked.

A frozen BatchNorm normalises by the statistics it was trained with. Left in training mode it would
go on moving them, without any gradient and unseen by any count of trainable parameters: the stem
would no longer be the one whose activations are cached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from featcache.errors import TrainingError


def training_mode(tail: nn.Module, *, batchnorm_moves: bool) -> None:
    """Modules train (dropout acts), but layers with statistics only where they may move."""
    tail.train()
    if not batchnorm_moves:
        for _, layer in layers_with_statistics(tail):
            layer.eval()


def layers_with_statistics(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """BatchNorm and its kin (InstanceNorm that tracks, SyncBatchNorm), by name."""
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and module.running_mean is not None:
            yield name, module


def statistics_checksum(model: nn.Module) -> str:
    """sha256 of all running statistics, names included."""
    digest = hashlib.sha256()
    for name, layer in layers_with_statistics(model):
        for own, buffer in layer.named_buffers(recurse=False):
            digest.update(f"{name}.{own}".encode())
            digest.update(buffer.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def statistics_unmoved(*models: nn.Module | None) -> Generator[None, None, None]:
    """Within it, no running statistic of these models may change.

    Raises:
        TrainingError: one did, on leaving.
    """
    held = [model for model in models if model is not None]
    before = [statistics_checksum(model) for model in held]
    yield
    if [statistics_checksum(model) for model in held] != before:
        raise TrainingError(
            "statistics of a frozen BatchNorm moved while the tail trained, so the result cannot "
            "be trusted; a network of one's own must leave them alone in evaluation mode, and of "
            "one of torchvision or timm this is a bug: please report it"
        )
