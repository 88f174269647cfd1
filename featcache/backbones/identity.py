"""Who a network is: one hash of all its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

from featcache.recipe import canonical_json


def tensors_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Hex sha256 of named tensors: of every name, dtype, shape and byte.

    The order of the mapping, the device and the strides do not matter.

    Args:
        state: tensors of any shape and dtype by name, as `Module.state_dict()` gives them.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu()
        header = canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode("ascii")
        digest.update(len(header).to_bytes(8, "little"))  # no two headers and bodies run together
        digest.update(header)
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
