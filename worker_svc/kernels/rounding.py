"""Numbers in 8 bits, row by row: the nearest ones to a row, in steps of a scale that it has."""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""Number of a type, which stands for the largest of a row."""
SMALLEST = 1e-30
"""The largest number of a row counts as this one at least: zero has no scale."""
MOST_PART = 64
"""Inputs that are rotated together, at most."""
SLICE = 4096
"""Outputs of a weight that are rounded at a time."""


class Rounding(Protocol):
    """Rows to 8 bits, and from the sums of a product of such numbers back."""

    def rounded(
        self, rows: Tensor, dtype: torch.dtype, rotation: Tensor | None = None, multiple: int = 1
    ) -> tuple[Tensor, Tensor]:
        """See :func:`rounded`. Numbers come with rows behind them, of any numbers, up to a ``multiple``."""
        ...

    def scaled(
        self, sums: Tensor, row_scales: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """What ``sums`` ``[n or more, outputs]`` int32 are with scales of rows ``[n, 1]`` and outputs ``[1,
        outputs]``, plus ``bias``: ``[n, outputs]`` of ``dtype``."""
        ...


class PlainRounding:
    """By torch's own operations."""

    def rounded(
        self, rows: Tensor, dtype: torch.dtype, rotation: Tensor | None = None, multiple: int = 1
    ) -> tuple[Tensor, Tensor]:
        numbers, scales = rounded(rows, dtype, rotation)
        padding = -len(rows) % multiple
        return F.pad(numbers, (0, 0, 0, padding)) if padding else numbers, scales

    def scaled(
        self, sums: Tensor, row_scales: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        found = sums[: len(row_scales)] * row_scales * scales
        return (found if bias is None else found + bias).to(dtype)


def rounded(rows: Tensor, dtype: torch.dtype, rotation: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest ones to ``rows`` ``[n, inputs]``, and their scales ``[n, 1]`` fp32.

    ``rotation``: a matrix in fp32 that they are multiplied with before, as many inputs at a time as it has.
    A row that holds something else than numbers has a scale that is none: it spoils its products, and those
    of no other row.
    """
    numbers = rows.float()
    if rotation is not None:
        numbers = (numbers.unflatten(1, (-1, len(rotation))) @ rotation).flatten(1)
    scales = numbers.abs().amax(dim=1, keepdim=True).clamp(min=SMALLEST) / LARGEST[dtype]
    numbers = numbers / scales
    return (numbers.round() if dtype == torch.int8 else numbers).to(dtype), scales


def rounded_weight(
    weight: Tensor, dtype: torch.dtype, rotation: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Likewise of ``weight`` ``[outputs, inputs]``, whose scales are ``[outputs]``: with little memory."""
    numbers = torch.empty_like(weight, dtype=dtype)
    scales = torch.empty(len(weight), 1, device=weight.device)
    for found, scale, some in zip(
        numbers.split(SLICE), scales.split(SLICE), weight.split(SLICE), strict=True
    ):
        own = rounded(some, dtype, rotation)
        found.copy_(own[0])
        scale.copy_(own[1])
    return numbers, scales.flatten()


def part_of(inputs: int) -> int:
    """Inputs that are rotated together, of so many in all: a power of two that divides them."""
    return min(MOST_PART, inputs & -inputs)


def hadamard(size: int) -> Tensor:
    """The orthonormal matrix of a power of two by Sylvester's construction: fp32, its own inverse."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix / math.sqrt(size)
