"""Weights of linear layers as the native products take them."""

from __future__ import annotations

import torch
from torch import Tensor

from worker_svc.kernels.rounding import hadamard, part_of, rounded_weight

PANEL = 32
"""Outputs of a product must be a multiple of it."""


class PackedWeight:
    """A weight in bf16."""

    def __init__(self, weight: Tensor) -> None:
        """``weight``: ``[outputs, inputs]``."""
        self.outputs, self.inputs = outputs, inputs = weight.shape
        # [outputs / 32, inputs / 2, 32, 2]
        self.packed = weight.view(outputs // PANEL, PANEL, inputs // 2, 2).transpose(1, 2).contiguous()


class Int8Weight:
    """A weight in 8 bits, symmetric, with a scale for each output."""

    def __init__(self, quantized: Tensor, scales: Tensor, *, part: int = 0) -> None:
        """``quantized``: ``[outputs, inputs]`` int8; ``scales``: ``[outputs]``. ``part``: inputs of it that
        are rotated together, as those of rows will be; 0 for none."""
        self.outputs, self.inputs = outputs, inputs = quantized.shape
        self.part = part
        self.scales = scales.float().contiguous()
        # Rows come as unsigned bytes around 128.
        self.offsets = (quantized.sum(dim=1, dtype=torch.int32) * -128).contiguous()
        self.packed = quantized.view(outputs // PANEL, PANEL, inputs // 4, 4).transpose(1, 2).contiguous()

    @classmethod
    def of(cls, weight: Tensor) -> Int8Weight:
        """The nearest one to a weight ``[outputs, inputs]``, rotated.

        A few inputs of a row are often far larger than the others, which would be left with few steps of the
        row's scale. A rotation of rows and weight alike leaves the product as it is and spreads them (QuaRot,
        Ashkboos et al. 2024, arXiv 2404.00456; here by parts, on the fly).
        """
        part = part_of(weight.shape[1])
        return cls(*rounded_weight(weight, torch.int8, hadamard(part)), part=part)
