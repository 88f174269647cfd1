"""The whole classifier as one module: pixels in, probabilities out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its name everywhere)

from featcache.classifier.joined import Classifier

Input = Literal["uint8", "normalised"]
"""What a picture is to it: RGB bytes (H, W, 3), or float32 (3, H, W) that was normalised before."""

INPUT, OUTPUT = "pixels", "probabilities"
"""Names of what it takes and gives."""


class Whole(nn.Module):
    """Normalisation, network, hidden units if there are some, head, and how its logits are read.

    Args:
        classifier: shares its tensors with this.
        takes: see `Input`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier, takes: Input) -> None:
        super().__init__()
        content, preprocessing = classifier.content, classifier.recipe.preprocessing
        self.stem = classifier.stem
        self._takes, self._head = takes, content.head
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name), dtype=torch.float32)
            self.register_buffer(name, values.view(1, 3, 1, 1))
        layers = [content.head] if content.hidden is None else [content.hidden, content.head]
        self._layers = len(layers)
        for i, layer in enumerate(layers):
            self.register_buffer(f"coef{i}", torch.from_numpy(layer.coef))
            self.register_buffer(f"bias{i}", torch.from_numpy(layer.bias))
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 3) uint8, or (N, 3, H, W) float32, to (N, K) float32."""
        if self._takes == "uint8":
            pixels = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        values = self.stem(pixels).flatten(1)
        for i in range(self._layers):
            values = values.relu() if i else values
            values = F.linear(values, getattr(self, f"coef{i}"), getattr(self, f"bias{i}"))
        return self._read(values)

    def _read(self, logits: Tensor) -> Tensor:
        """As `LinearHead.probabilities_of` does."""
        if self._head.multi_label:
            return logits.sigmoid()
        return (logits if self._head.loss == "softmax" else _log_sigmoid(logits)).softmax(-1)


def _log_sigmoid(logits: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))) for any x; ONNX has only the quotient, which underflows at -88."""
    return logits.clamp(max=0) - (-logits.abs()).exp().log1p()
