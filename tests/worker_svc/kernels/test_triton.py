"""Triton's kernels bring what torch's operations bring in fp64. On a GPU: `test_gpu_kernels`."""

from __future__ import annotations

import pytest
import torch

from albireo.contract.plan import BLOCK_SIZE
from tests.worker_svc.kernels.test_scaled_products import check_product
from tests.worker_svc.kernels.triton_scene import TritonScene
from worker_svc.kernels.interface import Heads, Norm
from worker_svc.kernels.scaled_products import tried_products

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
LENGTHS = (1, 15, 16, 17, 1027)


@DTYPES
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (5, 896), (2, 4097)])
def test_norm(triton_scene: TritonScene, dtype: torch.dtype, rows: int, width: int, adds: bool) -> None:
    triton_scene.check_norm(dtype, rows, width, adds=adds)


@DTYPES
@pytest.mark.parametrize(("rows", "units"), [(1, 16), (3, 1024), (2, 1500)])
def test_gate(triton_scene: TritonScene, dtype: torch.dtype, rows: int, units: int) -> None:
    triton_scene.check_gate(dtype, rows, units)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
def test_a_gate_of_any_size_is_a_number(triton_scene: TritonScene) -> None:
    sizes = torch.tensor([-torch.finfo(FP32).max, -1e9, -100, -87.5, -0.0, 0.0, 88, 200, 1e9])
    gate_up = torch.cat([sizes, torch.ones(9)]).to(triton_scene.device).unsqueeze(0)
    expected = torch.nn.functional.silu(gate_up[:, :9])
    torch.testing.assert_close(triton_scene.kernels.gate(gate_up), expected, rtol=2e-6, atol=1e-30)


@DTYPES
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("heads", "dim"), [((1, 1), 16), ((7, 1), 64), ((4, 2), 80), ((4, 2), 256)])
def test_rotate(
    triton_scene: TritonScene, dtype: torch.dtype, heads: tuple[int, int], dim: int, normed: bool
) -> None:
    triton_scene.check_rotate(dtype, 3, heads, dim, normed=normed)


@pytest.mark.parametrize(
    ("heads", "dim", "dtype"),
    [
        ((1, 1), 64, FP32),
        ((2, 1), 128, BF16),
        ((6, 2), 16, FP32),
        ((4, 1), 32, FP16),
        ((5, 1), 80, FP32),
        ((6, 1), 96, BF16),
        ((14, 2), 64, BF16),
        ((8, 1), 128, FP32),
        ((2, 1), 256, FP32),
        ((20, 1), 64, FP32),
    ],
)
def test_decoding_rows(
    triton_scene: TritonScene, heads: tuple[int, int], dim: int, dtype: torch.dtype
) -> None:
    triton_scene.check_decode(dtype, LENGTHS, heads, dim)


@pytest.mark.parametrize(
    ("chunks", "heads", "dim", "dtype"),
    [
        ([(0, 1)], (7, 1), 64, FP32),
        ([(1000, 2)], (2, 1), 64, BF16),
        ([(0, 40)], (2, 2), 64, FP32),
        ([(5, 33), (0, 1), (15, 2), (16, 70)], (7, 1), 64, BF16),
        ([(16, 70), (3, 20)], (4, 2), 128, FP16),
        ([(1003, 9), (0, 16), (0, 17)], (8, 1), 16, FP32),
        ([(0, 1)] * 9 + [(31, 33)], (1, 1), 32, FP32),
        ([(120, 17)], (3, 1), 96, BF16),
        ([(31, 33), (64, 64)], (5, 1), 80, FP32),
        ([(63, 10), (63, 10)], (2, 1), 256, FP32),
    ],
)
def test_chunks(
    triton_scene: TritonScene,
    chunks: list[tuple[int, int]],
    heads: tuple[int, int],
    dim: int,
    dtype: torch.dtype,
) -> None:
    triton_scene.check_chunks(dtype, chunks, heads, dim)


def test_many_parts(triton_scene: TritonScene) -> None:
    """More than are merged at a time."""
    triton_scene.kernels._programs, before = 80, triton_scene.kernels._programs
    triton_scene.check_decode(FP32, (5000,), (2, 1), 32)
    triton_scene.kernels._programs = before


def test_padding_rows_of_a_graph_are_numbers_and_change_nothing(triton_scene: TritonScene) -> None:
    """They read a block of zeros, and write to one that is not read."""
    scene, dim = triton_scene, 64
    keys, values, blocks, starts = scene.cache((33,), 1, dim, FP32)
    zeros, unread = torch.zeros(1, BLOCK_SIZE, 1, dim), torch.full((1, BLOCK_SIZE, 1, dim), torch.nan)
    cache = [torch.cat([x, zeros.to(x.device), unread.to(x.device)]) for x in (keys, values)]
    before = [x.clone() for x in cache]
    zero = len(keys)
    kv_rows = torch.tensor([int(blocks[2]) * BLOCK_SIZE, *[(zero + 1) * BLOCK_SIZE] * 3]).to(scene.device)
    qkv = scene.numbers(4, 4 * dim)
    rope = (torch.ones(4, 1, dim // 2).to(scene.device), torch.zeros(4, 1, dim // 2).to(scene.device))
    q = scene.kernels.rotate(qkv, Heads(2, 1), rope, *cache, kv_rows)
    for found, old in zip(cache, before, strict=True):
        assert torch.equal(found[zero], old[zero])
        own = torch.ones(len(old) * BLOCK_SIZE, dtype=torch.bool)
        own[kv_rows.cpu()] = False
        torch.testing.assert_close(
            found.flatten(0, 1)[own], old.flatten(0, 1)[own], rtol=0, atol=0, equal_nan=True
        )
    tables = torch.cat([blocks, torch.tensor([zero]).to(scene.device)])
    starts = torch.cat([starts, torch.full((3,), len(blocks)).to(scene.device)])
    positions, out = torch.tensor([32, 0, 0, 0]).to(scene.device), torch.full_like(q, torch.nan)
    scene.kernels.decode(q, *cache, tables, starts, positions, out)
    assert not out[1:].any()
    alone = torch.empty_like(q[:1])
    scene.kernels.decode(q[:1], *cache, blocks, starts[:1], positions[:1], alone)
    assert torch.equal(out[:1], alone)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_nan_stays_with_its_row(triton_scene: TritonScene) -> None:
    scene = triton_scene
    x = scene.numbers(3, 32)
    x[1, 5] = torch.nan
    norm = Norm(torch.ones(32).to(scene.device), 1e-6)
    for found in (scene.kernels.norm(x.clone(), norm), scene.kernels.gate(torch.cat([x, x], dim=1))):
        assert found.isnan().any(1).tolist() == [False, True, False]
    for kind in (torch.int8, torch.float8_e4m3fn):
        assert scene.kernels.rounding.rounded(x, kind)[1].isnan().flatten().tolist() == [False, True, False]
    keys, values, blocks, starts = scene.cache((300, 40), 1, 32, FP32)
    keys[blocks[3], 4] = torch.nan
    q = scene.numbers(2, 2, 32)
    out = torch.empty_like(q)
    scene.kernels.decode(q, keys, values, blocks, starts, torch.tensor([299, 39]).to(scene.device), out)
    assert out.isnan().flatten(1).all(1).tolist() == [True, False]


@DTYPES
@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn], ids=["int8", "fp8"])
@pytest.mark.parametrize(
    ("rows", "width", "part"),
    [(1, 16, 0), (3, 64, 64), (2, 1040, 16), (5, 896, 64), (2, 96, 32), (3, 4096, 0)],
)
def test_rounded(
    triton_scene: TritonScene, dtype: torch.dtype, kind: torch.dtype, rows: int, width: int, part: int
) -> None:
    triton_scene.check_rounded(dtype, kind, rows, width, part)


@DTYPES
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize(("rows", "outputs"), [(1, 16), (3, 1024), (2, 1504)])
def test_scaled(triton_scene: TritonScene, dtype: torch.dtype, rows: int, outputs: int, adds: bool) -> None:
    triton_scene.check_scaled(dtype, rows, outputs, adds=adds)


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn], ids=["int8", "fp8"])
def test_products_of_rows_that_it_rounds(triton_scene: TritonScene, kind: torch.dtype) -> None:
    """By torch's operators, which CPUs have too."""
    scene, rounding = triton_scene, triton_scene.kernels.rounding
    products = tried_products(kind, scene.device, BF16, rounding)
    for rows in (1, 33):
        weight, x, bias = (scene.numbers(*shape, dtype=BF16) for shape in ((48, 80), (rows, 80), (48,)))
        check_product(products, rounding, weight, x, bias)


def test_no_rows(triton_scene: TritonScene) -> None:
    """Of a step whose chunks all go on, none is left behind the keys and values of the last layer."""
    scene, kernels = triton_scene, triton_scene.kernels
    nothing, norm = scene.numbers(0, 64), Norm(scene.numbers(64), 1e-6)
    keys, values, blocks, starts = scene.cache((16,), 1, 16, FP32)
    angles, none = scene.numbers(0, 1, 8), starts[:0]
    assert kernels.norm(nothing, norm, nothing).shape == (0, 64)
    assert kernels.gate(nothing).shape == (0, 32)
    assert kernels.rounding.rounded(nothing, torch.int8, multiple=8)[0].shape == (0, 64)
    q = kernels.rotate(nothing, Heads(2, 1), (angles, angles), keys, values, none)
    assert q.shape == (0, 2, 16)
    kernels.decode(q, keys, values, blocks, none, none, torch.empty_like(q))
