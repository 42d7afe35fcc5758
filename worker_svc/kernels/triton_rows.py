"""Norm, gate and rotation in Triton: each is one pass over its rows, and rounds once.

Called by :class:`worker_svc.kernels.triton_kernels.TritonKernels`. All tensors are contiguous.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def norm_row(
    x,
    added,
    weight,
    out,
    eps,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,  # the next power of two
    ADDS: tl.constexpr,
):
    """Program (row). The sum with ``added`` is rounded to the dtype of ``x`` before its norm, as by torch."""
    at = tl.arange(0, LANES)
    inside = at < WIDTH
    where = tl.program_id(0).to(tl.int64) * WIDTH + at
    numbers = tl.load(x + where, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        numbers += tl.load(added + where, mask=inside, other=0.0).to(tl.float32)
        rounded = numbers.to(x.dtype.element_ty)
        tl.store(x + where, rounded, mask=inside)
        numbers = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(numbers * numbers, 0) / WIDTH + eps)
    normed = numbers * scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + where, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate_tile(gate_up, out, UNITS: tl.constexpr, LANES: tl.constexpr):
    """Program (row, tile of ``LANES`` units)."""
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = at < UNITS
    gate = tl.load(gate_up + row * 2 * UNITS + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * UNITS + UNITS + at, mask=inside, other=0.0).to(tl.float32)
    gated = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * UNITS + at, gated.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize_on_alignment=["kv_rows"])
def rotate_head(
    qkv,
    cosines,
    sines,
    q_weight,
    k_weight,
    eps,
    kv_rows,
    q,
    keys,
    values,
    QUERIES: tl.constexpr,
    KV: tl.constexpr,
    DIM: tl.constexpr,
    LANES: tl.constexpr,  # the next power of two of half a head
    NORMED: tl.constexpr,
):
    """Program (row, head of queries, keys or values). The pairs are the two halves of a head."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, LANES)
    inside = at < DIM // 2
    source = qkv + (row * (QUERIES + 2 * KV) + head) * DIM
    first = tl.load(source + at, mask=inside, other=0.0)
    second = tl.load(source + DIM // 2 + at, mask=inside, other=0.0)
    kv_row = tl.load(kv_rows + row)
    if head >= QUERIES + KV:
        target = values + (kv_row * KV + head - QUERIES - KV) * DIM
        tl.store(target + at, first, mask=inside)
        tl.store(target + DIM // 2 + at, second, mask=inside)
    else:
        if head < QUERIES:
            target, weight = q + (row * QUERIES + head) * DIM, q_weight
        else:
            target, weight = keys + (kv_row * KV + head - QUERIES) * DIM, k_weight
        x, y = first.to(tl.float32), second.to(tl.float32)
        if NORMED:
            scale = tl.rsqrt((tl.sum(x * x, 0) + tl.sum(y * y, 0)) / DIM + eps)
            x *= scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
            y *= scale * tl.load(weight + DIM // 2 + at, mask=inside, other=0.0).to(tl.float32)
        cos = tl.load(cosines + row * (DIM // 2) + at, mask=inside, other=0.0).to(tl.float32)
        sin = tl.load(sines + row * (DIM // 2) + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(target + at, (x * cos - y * sin).to(target.dtype.element_ty), mask=inside)
        tl.store(target + DIM // 2 + at, (y * cos + x * sin).to(target.dtype.element_ty), mask=inside)
