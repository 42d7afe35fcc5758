"""The kernels in Triton, for CUDA: the launches of those in `triton_rows` and `triton_attention`.

Triton compiles a kernel when it is first launched with a shape of model, and keeps it on disk. No launch
depends on the length of a context, so that a CUDA graph can hold it.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE
from worker_svc.kernels.interface import Heads, Norm
from worker_svc.kernels.triton_attention import attend_chunk, attend_part, merge_parts
from worker_svc.kernels.triton_rounding import TritonRounding
from worker_svc.kernels.triton_rows import gate_tile, norm_row, rotate_head

GATE_LANES = 1024
SMALLEST_DOT = 16
"""Of every dimension of a product."""

PROGRAMS_EACH = 4
"""Programs of decoding rows for each multiprocessor: about as many as run on it at once."""
FEWEST_PARTS, MOST_PARTS = 4, 128
"""Of a context. Also among many rows a long context has some, for it would be the last to end."""
LEAST_TILES = 4
"""Of a part."""
LARGE_BYTES = 200 << 10
"""Shared memory that a program may have on Hopper and Blackwell. Ampere and Ada have less, and their products
take more registers."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a program walks through a context. Chosen so that no registers are spilled."""

    lines: int  # rows of a product
    tokens: int  # of a tile
    warps: int
    stages: int
    """Of Triton's pipeline: 5 keep two tiles under way, since keys wait for block tables."""

    def options(self) -> dict[str, int | bool]:
        """Of a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


def tried_kernels(
    device: torch.device, dtype: torch.dtype, hidden: int, heads: Heads, dim: int
) -> TritonKernels:
    """Compiles and runs them once, with rows of ``hidden`` numbers and ``heads`` of ``dim``. Raises
    RuntimeError where Triton cannot, as without a C compiler, and where the GPU cannot hold a program."""
    properties: Any = torch.cuda.get_device_properties(device)
    kernels = TritonKernels(properties.multi_processor_count, properties.shared_memory_per_block_optin)
    row = torch.ones(1, hidden, dtype=dtype, device=device)
    qkv = torch.ones(1, (heads.queries + 2 * heads.kv) * dim, dtype=dtype, device=device)
    angles = qkv[:, None, : dim // 2]
    cache = row.new_zeros(1, BLOCK_SIZE, heads.kv, dim)
    numbers = torch.arange(2, device=device)
    zero = numbers[:1]
    with compiler_errors():
        kernels.norm(row, Norm(row[0], 1e-6), row)
        kernels.gate(qkv)
        q = kernels.rotate(qkv, heads, (angles, angles), cache, cache, zero)
        kernels.decode(q, cache, cache, zero, zero, zero, torch.empty_like(q))
        kernels.chunks(q, cache, cache, zero, zero, numbers, zero, torch.empty_like(q))
    torch.cuda.synchronize(device)
    return kernels


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Triton's errors, and those of the programs that it runs, as RuntimeError."""
    try:
        yield
    except (triton.TritonError, OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def decode_tiling(group: int, dim: int, dtype: torch.dtype) -> Tiling:
    """Of ``group`` query heads of one KV head."""
    lines, wide = max(SMALLEST_DOT, _power_of_two(group)), dim > 128
    if dtype == torch.float32:
        return Tiling(lines, 16 if wide else 32, warps=8, stages=2)
    return Tiling(lines, 32 if wide else 64, warps=8 if wide else 4, stages=5)


def chunk_tiling(dim: int, dtype: torch.dtype, shared_bytes: int) -> Tiling:
    """Products in fp32 use no tensor cores, and need more registers. ``shared_bytes``: that a program may
    have."""
    wide = dim > 128
    if dtype == torch.float32:
        return Tiling(16, 16 if wide else 32, warps=8, stages=1)
    if shared_bytes < LARGE_BYTES:
        return Tiling(64, 32 if wide else 64, warps=8, stages=3)
    return Tiling(128, 32 if wide else 64, warps=8, stages=5)


class TritonKernels:
    """See :class:`worker_svc.kernels.interface.Kernels` and ``RaggedAttention`` there.

    All tensors are contiguous, of one dtype.
    """

    rounding = TritonRounding()

    def __init__(self, multiprocessors: int, shared_bytes: int) -> None:
        """Of the GPU; ``shared_bytes`` that a program may have."""
        self._programs = PROGRAMS_EACH * multiprocessors
        self._shared_bytes = shared_bytes

    def norm(self, x: Tensor, norm: Norm, added: Tensor | None = None) -> Tensor:
        out = torch.empty_like(x)
        width = x.shape[-1]
        lanes = _power_of_two(width)
        norm_row[(x.numel() // width,)](
            x,
            x if added is None else added,
            norm.weight,
            out,
            norm.eps,
            WIDTH=width,
            LANES=lanes,
            ADDS=added is not None,
            num_warps=min(16, max(1, lanes // 512)),
            enable_fp_fusion=True,
        )
        return out

    def gate(self, gate_up: Tensor) -> Tensor:
        rows, units = len(gate_up), gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, units)
        gate_tile[(rows, -(-units // GATE_LANES))](
            gate_up, out, UNITS=units, LANES=GATE_LANES, enable_fp_fusion=True
        )
        return out

    def rotate(
        self,
        qkv: Tensor,
        heads: Heads,
        rope: tuple[Tensor, Tensor],
        keys: Tensor,
        values: Tensor,
        kv_rows: Tensor,
    ) -> Tensor:
        rows, dim = len(qkv), keys.shape[-1]
        q = qkv.new_empty(rows, heads.queries, dim)
        q_norm, k_norm = heads.q_norm, heads.k_norm
        rotate_head[(rows, heads.queries + 2 * heads.kv)](
            qkv,
            *rope,
            qkv if q_norm is None else q_norm.weight,
            qkv if k_norm is None else k_norm.weight,
            0.0 if q_norm is None else q_norm.eps,
            kv_rows,
            q,
            keys,
            values,
            QUERIES=heads.queries,
            KV=heads.kv,
            DIM=dim,
            LANES=_power_of_two(dim // 2),
            NORMED=q_norm is not None,
            num_warps=1,
            enable_fp_fusion=True,
        )
        return q

    def decode(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        blocks: Tensor,
        starts: Tensor,
        positions: Tensor,
        out: Tensor,
    ) -> None:
        rows, heads, dim = q.shape
        kv = keys.shape[2]
        tiling = decode_tiling(heads // kv, dim, q.dtype)
        parts = min(MOST_PARTS, max(FEWEST_PARTS, self._programs // max(1, rows * kv)))
        found = torch.empty(rows, heads, parts, dim, dtype=torch.float32, device=q.device)
        weights = torch.empty(rows, heads, parts, dtype=torch.float32, device=q.device)
        sizes = {"DIM": dim, "LANES": _lanes(dim), "TOKENS": tiling.tokens, "LEAST": LEAST_TILES}
        attend_part[(rows, kv, parts)](
            q,
            keys,
            values,
            blocks,
            starts,
            positions,
            found,
            weights,
            out,
            _scale(dim),
            KV=kv,
            GROUP=heads // kv,
            LINES=tiling.lines,
            **tiling.options(),
            **sizes,
        )
        merge_parts[(rows, heads)](
            positions, found, weights, out, parts, HEADS=heads, num_warps=2, enable_fp_fusion=True, **sizes
        )

    def chunks(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        blocks: Tensor,
        starts: Tensor,
        firsts: Tensor,
        positions: Tensor,
        out: Tensor,
    ) -> None:
        rows, heads, dim = q.shape
        kv, count = keys.shape[2], len(starts)
        tiling = chunk_tiling(dim, q.dtype, self._shared_bytes)
        attend_chunk[(rows * (heads // kv) // tiling.lines + count, kv)](
            q,
            keys,
            values,
            blocks,
            starts,
            firsts,
            count,
            positions,
            out,
            _scale(dim),
            KV=kv,
            GROUP=heads // kv,
            LINES=tiling.lines,
            DIM=dim,
            LANES=_lanes(dim),
            TOKENS=tiling.tokens,
            **tiling.options(),
        )


def _scale(dim: int) -> float:
    """Of scores, to the base 2."""
    return math.log2(math.e) / math.sqrt(dim)


def _lanes(dim: int) -> int:
    return max(SMALLEST_DOT, _power_of_two(dim))


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
