"""Rows in 8 bits in Triton: rounded in one pass, and back from the sums of a product in another.

Called by :class:`worker_svc.kernels.scaled_products.ScaledWeight`. All tensors are contiguous.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from worker_svc.kernels.rounding import LARGEST, SMALLEST, PlainRounding

SMALLEST_DOT = 16
"""Of every dimension of a product."""
UNROTATED = 16
"""Columns of a row's tile where none are rotated: they divide every width that is taken."""
WIDEST = 1 << 15
"""Row that a program holds in its registers."""
LANES = 1024


@triton.jit
def _larger(x, y):
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def round_row(
    x,
    numbers,
    scales,
    largest,
    smallest,
    shrink,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,  # a power of two
    PART: tl.constexpr,
    ROTATES: tl.constexpr,
    STEPS: tl.constexpr,  # to whole numbers
):
    """Program (row), which is a tile of parts. ``shrink``: of the rotation, whose signs are made here."""
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, PART)
    where = tl.arange(0, PARTS)[:, None] * PART + at[None, :]
    inside = where < WIDTH
    found = tl.load(x + row * WIDTH + where, mask=inside, other=0.0)
    if ROTATES:
        # Sylvester's matrix: the parity of the bits that row and column have in common.
        bits = at[:, None] & at[None, :]
        bits ^= bits >> 4
        bits ^= bits >> 2
        bits ^= bits >> 1
        signs = (1.0 - 2.0 * (bits & 1).to(tl.float32)).to(found.dtype)
        turned = tl.dot(found, signs, input_precision="ieee") * shrink
    else:
        turned = found.to(tl.float32)
    top = tl.reduce(tl.reduce(tl.abs(turned), 1, _larger), 0, _larger)
    scale = _larger(top, smallest) / largest
    turned /= scale
    if STEPS:
        turned = tl.floor(turned + 0.5)
    tl.store(numbers + row * WIDTH + where, turned.to(numbers.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)


@triton.jit
def scale_tile(
    sums,
    row_scales,
    scales,
    bias,
    out,
    OUTPUTS: tl.constexpr,
    LANES: tl.constexpr,
    ADDS: tl.constexpr,
):
    """Program (row, tile of ``LANES`` outputs)."""
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = at < OUTPUTS
    found = tl.load(sums + row * OUTPUTS + at, mask=inside, other=0).to(tl.float32)
    found *= tl.load(row_scales + row) * tl.load(scales + at, mask=inside, other=0.0)
    if ADDS:
        found += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * OUTPUTS + at, found.to(out.dtype.element_ty), mask=inside)


class TritonRounding(PlainRounding):
    """See :class:`worker_svc.kernels.rounding.Rounding`. Widths are multiples of 16."""

    def rounded(
        self, rows: Tensor, dtype: torch.dtype, rotation: Tensor | None = None, multiple: int = 1
    ) -> tuple[Tensor, Tensor]:
        count, width = rows.shape
        if width > WIDEST or (rotation is not None and rows.dtype == torch.float32):
            return super().rounded(rows, dtype, rotation, multiple)  # tensor cores have no fp32
        numbers = torch.empty(count + -count % multiple, width, dtype=dtype, device=rows.device)
        scales = torch.empty(count, 1, device=rows.device)
        part = UNROTATED if rotation is None else len(rotation)
        parts = max(SMALLEST_DOT, triton.next_power_of_2(width // part))
        round_row[(count,)](
            rows,
            numbers,
            scales,
            LARGEST[dtype],
            SMALLEST,
            1.0 / math.sqrt(part),
            WIDTH=width,
            PARTS=parts,
            PART=part,
            ROTATES=rotation is not None,
            STEPS=dtype == torch.int8,
            num_warps=min(16, max(4, parts * part // 1024)),
            enable_fp_fusion=True,
        )
        return numbers, scales

    def scaled(
        self, sums: Tensor, row_scales: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        rows, outputs = len(row_scales), sums.shape[1]
        out = torch.empty(rows, outputs, dtype=dtype, device=sums.device)
        scale_tile[(rows, -(-outputs // LANES))](
            sums,
            row_scales,
            scales,
            out if bias is None else bias,
            out,
            OUTPUTS=outputs,
            LANES=LANES,
            ADDS=bias is not None,
            enable_fp_fusion=True,
        )
        return out
