"""A KV cache in 8 bits: what is written there, and attention to it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from tests.worker_svc.kernels.builds import BUILDS, LIBRARIES
from tests.worker_svc.kernels.test_native import exact_attention
from worker_svc.kernels.interface import Heads
from worker_svc.kernels.native import NativeKernels
from worker_svc.model.kv_cache import TAIL, floats, row_width

DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
DIMS = st.sampled_from([16, 64, 80, 128, 256])
HEADS = st.sampled_from([(1, 1), (7, 1), (14, 2), (6, 6)])


def kernels(build: str, dtype: torch.dtype) -> NativeKernels:
    if not build:
        pytest.skip("no native kernels run on this CPU")
    return NativeKernels(LIBRARIES[build], dtype, int8_kv=True)


def random(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def empty_cache(blocks: int, kv: int, dim: int) -> Tensor:
    return torch.zeros(blocks, BLOCK_SIZE, kv, row_width(dim, torch.int8), dtype=torch.int8)


@given(BUILDS, DTYPES, st.sampled_from([1, 3, 40]), DIMS, HEADS, st.integers(0, 99))
def test_rotate_writes_the_nearest_steps(
    build: str, dtype: torch.dtype, rows: int, dim: int, heads: tuple[int, int], seed: int
) -> None:
    queries, kv = heads
    own = Heads(queries, kv)
    qkv = random(seed, rows, (queries + 2 * kv) * dim) * random(seed + 1, rows, 1).exp()
    qkv = qkv.to(dtype)
    rope = random(seed + 2, rows, 1, dim // 2, dtype=dtype), random(seed + 3, rows, 1, dim // 2, dtype=dtype)
    kv_rows = torch.randperm(4 * BLOCK_SIZE)[:rows]
    keys, values = (empty_cache(4, kv, dim) for _ in "kv")
    q = kernels(build, dtype).rotate(qkv, own, rope, keys, values, kv_rows)
    plain = NativeKernels(LIBRARIES[build], dtype)
    exact_keys, exact_values = (torch.zeros(4, BLOCK_SIZE, kv, dim, dtype=dtype) for _ in "kv")
    assert torch.equal(q, plain.rotate(qkv, own, rope, exact_keys, exact_values, kv_rows))
    for found, exact in ((keys, exact_keys), (values, exact_values)):
        unit = exact.float().abs().amax(-1, keepdim=True) / 127
        error = (floats(found, torch.float32) - exact.float()).abs()
        assert bool((error <= unit * 0.501 + 1e-30).all())
        assert not found[..., -TAIL // 2 :].any()


@given(
    BUILDS,
    DTYPES,
    st.lists(st.sampled_from([1, 15, 16, 17, 128, 129, 300]), min_size=1, max_size=4),
    DIMS,
    HEADS,
    st.booleans(),
    st.integers(0, 99),
)
def test_attention_is_that_to_what_the_steps_stand_for(
    build: str,
    dtype: torch.dtype,
    lengths: list[int],
    dim: int,
    heads: tuple[int, int],
    as_chunk: bool,
    seed: int,
) -> None:
    queries, kv = heads
    most = blocks_for(max(lengths))
    blocks = torch.randperm(len(lengths) * most).view(len(lengths), most)
    if as_chunk:
        blocks = blocks[:1].expand(len(lengths), -1)
    keys, values = (filled(seed + i, len(lengths) * most, kv, dim) for i in range(2))
    positions = torch.tensor(sorted(lengths)) - 1
    q = random(seed + 5, len(lengths), queries, dim, dtype=dtype)
    out = torch.empty_like(q)
    table = blocks[0].contiguous() if as_chunk else blocks
    kernels(build, dtype).attention(q, keys, values, table, positions, out)
    exact = exact_attention(q, floats(keys, torch.float64), floats(values, torch.float64), blocks, positions)
    last = 2**-7 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(out.double(), exact, rtol=last, atol=last)


def filled(seed: int, blocks: int, kv: int, dim: int) -> Tensor:
    """A cache whose rows have units of their own."""
    cache = empty_cache(blocks, kv, dim)
    draw = torch.Generator().manual_seed(seed)
    cache[..., :dim] = torch.randint(-127, 128, cache[..., :dim].shape, generator=draw)
    units = torch.rand(cache.shape[:-1], generator=draw) / 64
    cache[..., dim : dim + 4] = units.unsqueeze(-1).view(torch.int8)
    return cache


@given(BUILDS)
def test_what_is_no_number_stays_one_rows(build: str) -> None:
    """A row that holds NaN is NaN for the request that sees it, and for no other."""
    own, dim = Heads(1, 1), 16
    qkv = torch.ones(2, 3 * dim)
    qkv[1, -1] = torch.inf
    rope = torch.ones(2, 1, dim // 2), torch.zeros(2, 1, dim // 2)
    keys, values = (empty_cache(2, 1, dim) for _ in "kv")
    found = kernels(build, torch.float32)
    q = found.rotate(qkv, own, rope, keys, values, torch.tensor([0, BLOCK_SIZE]))
    out = torch.empty_like(q)
    found.attention(q, keys, values, torch.tensor([[0], [1]]), torch.tensor([0, 0]), out)
    torch.testing.assert_close(out[0], torch.ones(1, dim))
    assert bool(out[1].isnan().all())
