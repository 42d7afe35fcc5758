"""The native kernels bring what torch's operations bring."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from tests.worker_svc.kernels.builds import BUILDS, native
from worker_svc.kernels.interface import Heads, Norm
from worker_svc.kernels.native import fits
from worker_svc.kernels.native_weights import Int8Weight, PackedWeight
from worker_svc.kernels.plain import PlainKernels

DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
ROWS = st.sampled_from([1, 2, 7, 40])
DIMS = st.sampled_from([16, 32, 48, 64, 96, 128, 256])
PLAIN = PlainKernels()


def random(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_rounded(found: Tensor, exact: Tensor) -> None:
    """``exact`` in fp32 or fp64: what was found is its rounding, but for a few units of fp32."""
    last = 2**-8 if found.dtype == torch.bfloat16 else 2e-6
    torch.testing.assert_close(found.double(), exact.double(), rtol=last, atol=last * 0.02)


@given(BUILDS, DTYPES, ROWS, st.sampled_from([16, 64, 896, 4864]), st.booleans(), st.integers(0, 99))
def test_norm(build: str, dtype: torch.dtype, rows: int, width: int, with_added: bool, seed: int) -> None:
    x, added = random(seed, rows, width, dtype=dtype), random(seed + 1, rows, width, dtype=dtype)
    norm = Norm(random(seed + 2, width, dtype=dtype), 1e-6)
    whole = x + added if with_added else x.clone()
    found = native(dtype, build).norm(x, norm, added if with_added else None)
    assert torch.equal(x, whole)  # added in place, rounded as torch does
    assert_rounded(found, F.rms_norm(whole.double(), (width,), norm.weight.double(), norm.eps))


@given(BUILDS, DTYPES, ROWS, st.sampled_from([16, 128, 4864]), st.integers(0, 99))
def test_gate(build: str, dtype: torch.dtype, rows: int, width: int, seed: int) -> None:
    gate_up = (random(seed, rows, 2 * width) * 20).to(dtype)
    gate, up = gate_up.double().chunk(2, dim=-1)
    assert_rounded(native(dtype, build).gate(gate_up), F.silu(gate) * up)


def test_a_gate_of_any_size_is_a_number() -> None:
    sizes = torch.tensor(
        [-torch.finfo(torch.float32).max, -1e9, -100, -87.5, -0.0, 0.0, 88, 200, 1e9] + [1.0] * 7
    )
    gate_up = torch.stack([sizes, torch.ones(16)]).flatten().unsqueeze(0)
    torch.testing.assert_close(
        native(torch.float32).gate(gate_up), F.silu(sizes)[None], rtol=2e-6, atol=1e-30
    )


@given(
    BUILDS,
    DTYPES,
    ROWS,
    DIMS,
    st.sampled_from([(1, 1), (4, 1), (7, 1), (6, 3)]),
    st.booleans(),
    st.integers(0, 99),
)
def test_rotate(
    build: str, dtype: torch.dtype, rows: int, dim: int, heads: tuple[int, int], normed: bool, seed: int
) -> None:
    queries, kv = heads
    norms = [Norm(random(seed + i, dim, dtype=dtype), 1e-6) if normed else None for i in range(2)]
    qkv = random(seed, rows, (queries + 2 * kv) * dim, dtype=dtype)
    rope = random(seed + 3, rows, 1, dim // 2, dtype=dtype), random(seed + 4, rows, 1, dim // 2, dtype=dtype)
    kv_rows = torch.randperm(4 * BLOCK_SIZE)[:rows]

    def run(kernels: Any, kind: torch.dtype) -> list[Tensor]:
        cache = [torch.zeros(4, BLOCK_SIZE, kv, dim, dtype=kind) for _ in range(2)]
        turned = tuple(x.to(kind) for x in rope)
        own = Heads(queries, kv, *(n and Norm(n.weight.to(kind), n.eps) for n in norms))
        return [kernels.rotate(qkv.to(kind), own, turned, *cache, kv_rows), *cache]

    for found, exact in zip(run(native(dtype, build), dtype), run(PLAIN, torch.float64), strict=True):
        # A difference of two products has the rounding of each, where they nearly cancel.
        last = 2**-7 if dtype == torch.bfloat16 else 2e-6
        torch.testing.assert_close(found.double(), exact, rtol=last, atol=last * 4)


def exact_attention(q: Tensor, keys: Tensor, values: Tensor, blocks: Tensor, positions: Tensor) -> Tensor:
    found = []
    for row, table, position in zip(q.double(), blocks, positions, strict=True):
        k, v = (x[table].flatten(0, 1)[: position + 1].double().transpose(0, 1) for x in (keys, values))
        found.append(F.scaled_dot_product_attention(row[:, None], k, v, enable_gqa=True)[:, 0])
    return torch.stack(found)


@given(
    BUILDS,
    DTYPES,
    st.lists(st.sampled_from([1, 2, 15, 16, 17, 100, 127, 128, 129, 300, 517]), min_size=1, max_size=5),
    DIMS,
    st.sampled_from([(1, 1), (2, 1), (7, 1), (8, 1), (9, 1), (20, 1), (14, 2), (6, 6)]),
    st.integers(0, 99),
)
def test_attention_of_decoding_rows(
    build: str, dtype: torch.dtype, lengths: list[int], dim: int, heads: tuple[int, int], seed: int
) -> None:
    """Blocks are anywhere; what lies behind a context, in its last block too, is not a number."""
    queries, kv = heads
    most = blocks_for(max(lengths))
    keys, values = (
        torch.full((len(lengths) * most + 1, BLOCK_SIZE, kv, dim), torch.nan, dtype=dtype) for _ in "kv"
    )
    order = torch.randperm(len(keys) - 1, generator=torch.Generator().manual_seed(seed)) + 1
    blocks = torch.zeros(len(lengths), most, dtype=torch.int64)
    for row, length in enumerate(lengths):
        blocks[row, : blocks_for(length)] = order[row * most :][: blocks_for(length)]
        for number, cache in enumerate((keys, values)):
            rows = blocks[row].repeat_interleave(BLOCK_SIZE) * BLOCK_SIZE + torch.arange(BLOCK_SIZE).repeat(
                most
            )
            own = random(seed + 7 * row + number, length, kv, dim, dtype=dtype)
            cache.flatten(0, 1)[rows[:length]] = own
    q = (random(seed, len(lengths), queries, dim) * 3).to(dtype)
    positions = torch.tensor(lengths) - 1
    out = torch.empty_like(q)
    native(dtype, build).attention(q, keys, values, blocks, positions, out)
    exact = exact_attention(q, keys, values, blocks, positions)
    last = 2**-8 if dtype == torch.bfloat16 else 4e-6
    torch.testing.assert_close(out.double(), exact, rtol=last, atol=last)


@given(
    BUILDS,
    DTYPES,
    st.integers(0, 200),
    st.integers(1, 40),
    DIMS,
    st.sampled_from([(1, 1), (2, 2), (4, 2), (9, 3), (7, 1), (14, 2), (20, 2)]),
    st.integers(0, 99),
)
def test_attention_of_a_chunk(
    build: str, dtype: torch.dtype, start: int, count: int, dim: int, heads: tuple[int, int], seed: int
) -> None:
    """Rows of one request, each of which sees itself and what comes before."""
    queries, kv = heads
    blocks = torch.randperm(20, generator=torch.Generator().manual_seed(seed))[: blocks_for(start + count)]
    keys, values = (random(seed + i, 20, BLOCK_SIZE, kv, dim, dtype=dtype) for i in range(2))
    q = (random(seed + 2, count, queries, dim) * 3).to(dtype)
    positions = torch.arange(start, start + count)
    out = torch.empty_like(q)
    native(dtype, build).attention(q, keys, values, blocks, positions, out)
    exact = exact_attention(q, keys, values, blocks.expand(count, -1), positions)
    last = 2**-8 if dtype == torch.bfloat16 else 4e-6
    torch.testing.assert_close(out.double(), exact, rtol=last, atol=last)


def test_nan_stays_with_its_row() -> None:
    kernels = native(torch.bfloat16)
    x = torch.ones(3, 16, dtype=torch.bfloat16)
    x[1, 5] = torch.nan
    norm = Norm(torch.ones(16, dtype=torch.bfloat16), 1e-6)
    for found in (kernels.norm(x.clone(), norm), kernels.gate(torch.cat([x, x], dim=1))):
        assert found.isnan().any(1).tolist() == [False, True, False]
    keys, values = (torch.ones(2, BLOCK_SIZE, 1, 32, dtype=torch.bfloat16) for _ in "kv")
    keys[1, 3] = torch.nan
    q, out = (torch.ones(2, 1, 32, dtype=torch.bfloat16) for _ in "qo")
    blocks, positions = torch.tensor([[0], [1]]), torch.tensor([7, 7])
    kernels.attention(q, keys, values, blocks, positions, out)
    assert out.isnan().flatten(1).all(1).tolist() == [False, True]


def test_which_models_fit() -> None:
    assert fits(torch.bfloat16, (896, 4864), 64)
    assert not fits(torch.float16, (896, 4864), 64)
    assert not fits(torch.bfloat16, (896, 4864 + 8), 64)
    assert not fits(torch.bfloat16, (896, 4864), 72)
    assert not fits(torch.bfloat16, (896, 4864), 512)


@given(
    BUILDS,
    ROWS,
    st.sampled_from([12, 13, 25, 64, 130]),
    st.sampled_from([32, 96, 896]),
    st.sampled_from([2, 64, 898]),
    st.booleans(),
    st.integers(0, 99),
)
def test_matmul(
    build: str, few: int, many: int, outputs: int, inputs: int, with_bias: bool, seed: int
) -> None:
    kernels = native(torch.bfloat16, build)
    weight, bias = random(seed, outputs, inputs).bfloat16(), random(seed + 1, outputs).bfloat16()
    if not kernels.multiplies(weight):
        return  # this build multiplies no pairs of bf16 numbers, or the CPU has tile registers
    for rows in (few, many):
        x = random(seed + rows, rows, inputs).bfloat16()
        exact = F.linear(x.double(), weight.double(), bias.double() if with_bias else None)
        found = kernels.matmul(x, PackedWeight(weight), bias if with_bias else None)
        torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=inputs * 2**-20)
        wide = torch.empty(rows, outputs)
        assert kernels.matmul(x, PackedWeight(weight), bias if with_bias else None, wide) is wide
        torch.testing.assert_close(wide.double(), exact, rtol=2**-20, atol=inputs * 2**-20)
        assert torch.equal(wide.bfloat16(), found)


def test_a_weight_that_is_no_whole_number_of_panels() -> None:
    assert not native(torch.bfloat16).multiplies(torch.zeros(33, 64))
    assert not native(torch.bfloat16).multiplies(torch.zeros(64, 33))
    assert not native(torch.float32).multiplies(torch.zeros(64, 64))


@given(BUILDS, DTYPES)
def test_no_rows(build: str, dtype: torch.dtype) -> None:
    """Of a step whose chunks all go on, none is left behind the keys and values of the last layer."""
    kernels = native(dtype, build)
    nothing = torch.zeros(0, 64, dtype=dtype)
    norm, heads = Norm(torch.ones(64, dtype=dtype), 1e-6), Heads(2, 1)
    cache = [torch.zeros(1, BLOCK_SIZE, 1, 16, dtype=dtype) for _ in "kv"]
    angles, none = torch.zeros(0, 1, 8, dtype=dtype), torch.zeros(0, dtype=torch.int64)
    assert kernels.norm(nothing, norm, nothing).shape == (0, 64)
    assert kernels.gate(nothing).shape == (0, 32)
    q = kernels.rotate(nothing, heads, (angles, angles), cache[0], cache[1], none)
    assert q.shape == (0, 2, 16)
    kernels.attention(q, cache[0], cache[1], torch.zeros(1, dtype=torch.int64), none, torch.empty_like(q))
    weight = torch.ones(32, 64, dtype=dtype)
    if kernels.multiplies(weight):
        assert kernels.matmul(nothing, PackedWeight(weight), None).shape == (0, 32)
    if kernels.multiplies_int8(*weight.shape):
        assert kernels.matmul(nothing, Int8Weight.of(weight), None).shape == (0, 32)
