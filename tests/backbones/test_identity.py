from __future__ import annotations

import hashlib
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featcache.backbones.identity import tensors_sha256


def state() -> dict[str, torch.Tensor]:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    for index, tensor in enumerate(network.state_dict().values()):
        tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape) + index)
    return network.state_dict()


@given(st.permutations(list(state())))
def test_the_order_of_names_does_not_matter(names: list[str]) -> None:
    tensors = state()
    assert tensors_sha256({name: tensors[name] for name in names}) == tensors_sha256(tensors)


@given(st.sampled_from(sorted(state())), st.data())
def test_one_bit_of_any_tensor_changes_it(name: str, data: st.DataObject) -> None:
    tensors = state()
    before = tensors_sha256(tensors)
    raw = tensors[name].reshape(-1).view(torch.uint8)  # shares memory: batch counter included
    byte = data.draw(st.integers(0, raw.numel() - 1))
    raw[byte] ^= 1 << data.draw(st.integers(0, 7))
    assert tensors_sha256(tensors) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {**s, "extra": torch.zeros(0)},
        lambda s: {k: v for k, v in s.items() if k != "1.running_var"},
        lambda s: {("0.w" if k == "0.weight" else k): v for k, v in s.items()},
        lambda s: {**s, "0.bias": s["0.bias"].reshape(2, 2)},
        lambda s: {**s, "0.bias": s["0.bias"].view(torch.int32)},
        lambda s: {**s, "0.bias": s["1.bias"], "1.bias": s["0.bias"]},
    ],
    ids=["added", "removed", "renamed", "reshaped", "same bytes, other dtype", "exchanged"],
)
def test_names_shapes_and_dtypes_are_part_of_it(change) -> None:
    assert tensors_sha256(change(state())) != tensors_sha256(state())


def test_strides_and_gradients_do_not_matter() -> None:
    weight = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    other = weight.to(memory_format=torch.channels_last).requires_grad_()
    assert tensors_sha256({"w": other}) == tensors_sha256({"w": weight})


def test_the_format_is_length_name_dtype_shape_bytes() -> None:
    header = b'["w","torch.float32",[]]'
    expected = hashlib.sha256(struct.pack("<Q", len(header)) + header + struct.pack("<f", 1.5))
    assert tensors_sha256({"w": torch.tensor(1.5)}) == expected.hexdigest()


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.bool, torch.int64, torch.complex64]
)
def test_every_dtype_and_an_empty_tensor_have_an_identity(dtype: torch.dtype) -> None:
    hashes = {tensors_sha256({"t": torch.ones(n, dtype=dtype)}) for n in (0, 1, 2)}
    assert len(hashes) == 3
    assert tensors_sha256({"t": torch.tensor(1, dtype=dtype)}) not in hashes
