"""Products of rows and weights in 8 bits by torch's scaled products of matrices, for GPUs.

Rows are rounded on the fly, each by itself. Nothing here waits for the device, and shapes follow from the
number of rows alone, so that a CUDA graph can hold it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import ScalingType

from worker_svc.kernels.rounding import Rounding, hadamard, part_of, rounded_weight

FP8 = torch.float8_e4m3fn
MULTIPLE = 16
"""Outputs and inputs of a product must be multiples of it."""
INT8_ROWS = 32
"""Rows of a product in int8 are padded to a multiple of it: torch wants more than 16, cuBLAS wants 4."""
TRIED = 64
"""Outputs and inputs of a product that is tried."""
NEAR = 0.1
"""Largest relative error of a product that is tried. That of 8 bits is some 0.04."""


class ScaledWeight:
    """A weight in int8 or float8_e4m3fn with a scale for each output."""

    def __init__(self, numbers: Tensor, scales: Tensor, rotation: Tensor | None, rounding: Rounding) -> None:
        """``numbers``: ``[outputs, inputs]``; ``scales``: ``[outputs]``. ``rotation``: of its inputs, some at
        a time, as those of rows will be."""
        self.outputs, self.inputs = numbers.shape
        self._numbers = numbers.contiguous().t()  # as torch takes it: columns are contiguous
        self._scales = scales.float()[None].contiguous()
        self._rotation, self._rounding = rotation, rounding

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x W^T + b`` of ``x`` ``[n, inputs]``, in its dtype."""
        if not len(x):  # where no row samples; `_int_mm` takes none
            return x.new_empty(0, self.outputs)
        return (self._fp8 if self._numbers.dtype == FP8 else self._int8)(x, bias)

    def _fp8(self, x: Tensor, bias: Tensor | None) -> Tensor:
        numbers, scales = self._rounding.rounded(x, FP8, self._rotation)
        out = F.scaled_mm(
            numbers,
            self._numbers,
            scales,
            ScalingType.RowWise,
            self._scales,
            ScalingType.RowWise,
            output_dtype=x.dtype,
        )
        return out if bias is None else out.add_(bias)

    def _int8(self, x: Tensor, bias: Tensor | None) -> Tensor:
        numbers, scales = self._rounding.rounded(x, torch.int8, self._rotation, INT8_ROWS)
        sums = torch._int_mm(numbers, self._numbers)
        return self._rounding.scaled(sums, scales, self._scales, bias, x.dtype)


class ScaledProducts:
    """Of one type of 8 bits. See :class:`worker_svc.kernels.quantized.QuantizedProducts`.

    Numbers of int8 are rotated, as the native kernels' are: a row's large numbers leave few steps to others.
    Those of FP8 have an exponent each, and need no rotation.
    """

    def __init__(self, dtype: torch.dtype, rounding: Rounding) -> None:
        self.dtype = dtype
        self._rounding = rounding
        self._rotations: dict[int, Tensor] = {}  # by their size; all weights share them

    def takes(self, outputs: int, inputs: int) -> bool:
        return outputs % MULTIPLE == 0 and inputs % MULTIPLE == 0

    def weight(self, numbers: Tensor, scales: Tensor) -> ScaledWeight:
        return ScaledWeight(numbers, scales, None, self._rounding)

    def nearest(self, weight: Tensor) -> ScaledWeight:
        rotation = None
        if self.dtype == torch.int8:
            rotation = self._rotation(part_of(weight.shape[1]), weight.device)
        return ScaledWeight(*rounded_weight(weight, self.dtype, rotation), rotation, self._rounding)

    def _rotation(self, part: int, device: torch.device) -> Tensor:
        if part not in self._rotations:
            self._rotations[part] = hadamard(part).to(device)
        return self._rotations[part]


def tried_products(
    kind: torch.dtype, device: torch.device, dtype: torch.dtype, rounding: Rounding
) -> ScaledProducts:
    """Of ``kind``, of rows in ``dtype``; multiplies once. Raises RuntimeError where the device cannot, and
    where what comes is not the product."""
    products = ScaledProducts(kind, rounding)
    x, weight = (
        torch.linspace(0, 99, rows * TRIED, device=device).sin().view(rows, TRIED).to(dtype)
        for rows in (5, TRIED)
    )
    exact = x.float() @ weight.float().t()
    try:
        found = products.nearest(weight).multiply(x, None).float()
    except ValueError as error:  # so torch refuses some types
        raise RuntimeError(str(error)) from error
    if not float((found - exact).norm() / exact.norm()) < NEAR:
        raise RuntimeError(f"torch's scaled products in {kind} bring wrong numbers here")
    return products
