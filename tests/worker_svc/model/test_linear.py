"""Linear layers in both layouts, and the vocabulary's cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.choice import native_kernels
from worker_svc.kernels.native_weights import Int8Weight
from worker_svc.model.linear import Head, Linear, VocabParallelEmbedding

needs_bf16 = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    reason="oneDNN has no bf16 on this CPU: Linear never packs here",
)


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)])
def test_linear(rows: int, bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(33, 80).to(dtype), torch.randn(rows, 80).to(dtype)
    added = torch.randn(33).to(dtype) if bias else None
    expected = F.linear(x.double(), weight.double(), None if added is None else added.double())
    layer = Linear(weight.clone(), added)
    # One rounding of the result at the end: half of the last of 8 (24) bits.
    atol, rtol = (1e-2, 2**-8) if dtype == torch.bfloat16 else (1e-4, 0.0)
    torch.testing.assert_close(layer(x).double(), expected, atol=atol, rtol=rtol)
    assert layer(x).dtype == dtype


@needs_bf16
def test_packed_beside_plain() -> None:
    torch.manual_seed(1)
    weight, x, bias = (torch.randn(shape).bfloat16() for shape in ((96, 64), (5, 64), (96,)))
    torch.testing.assert_close(Linear(weight.clone(), bias)(x), F.linear(x, weight, bias))


def test_int8_is_near() -> None:
    """A quantized layer is within the rounding of its steps."""
    native = native_kernels(torch.device("cpu"), torch.float32, (64,), 64)
    if native is None or not native.has_int8:
        pytest.skip("this CPU has no products of bytes")
    torch.manual_seed(3)
    x, weight, bias = torch.randn(9, 64), torch.randn(96, 64), torch.randn(96)
    exact = F.linear(x, weight, bias)
    found = Linear(Int8Weight.of(weight), bias, native)(x)
    assert 0 < (found - exact).norm() / exact.norm() < 0.02


def test_the_head_brings_sums_that_are_not_rounded_where_it_can() -> None:
    torch.manual_seed(4)
    weight, x = torch.randn(96, 64).bfloat16(), torch.randn(5, 64).bfloat16()
    plain = Head(weight)(x)
    assert torch.equal(plain, Linear(weight)(x))
    native = native_kernels(torch.device("cpu"), torch.bfloat16, (64,), 64)
    if native is None or not native.multiplies(weight):
        pytest.skip("this CPU has no native products of bf16")
    found = Head(weight, native)(x)
    torch.testing.assert_close(found, x.float() @ weight.float().T, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.bfloat16(), Linear(weight, native=native)(x))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_parts_of_an_embedding_add_up(size: int) -> None:
    """Every id is at home on one rank; padding rows and foreign ids bring nothing."""
    vocabulary = 11
    table = torch.randn(vocabulary, 6, generator=torch.Generator().manual_seed(2))
    rows = -(-vocabulary // size)
    padded = F.pad(table, (0, 0, 0, rows * size - vocabulary))

    class Silent(TPGroup):
        """Leaves each rank's part as it is."""

        def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
            return x

    ids = torch.tensor([0, 10, 5, 5, 3])
    parts = [
        VocabParallelEmbedding(padded[rank * rows : (rank + 1) * rows], Silent(rank, size))(ids)
        for rank in range(size)
    ]
    assert torch.equal(torch.stack(parts).sum(0), table[ids])
    assert ids.tolist() == [0, 10, 5, 5, 3]
