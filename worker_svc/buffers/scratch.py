"""A scratch buffer: memory for large intermediate tensors that is kept from step to step.

The compute stage uses it, in the sampler and in collectives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class ScratchBuffer:
    """One tensor at a time. Fresh memory of tens of megabytes costs more than the computation in it."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def take(self, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialized tensor on the device of ``like``; whatever was taken before is gone."""
        dtype = dtype or like.dtype
        size = math.prod(shape) * dtype.itemsize
        if len(self._bytes) < size or self._bytes.device != like.device:
            self._bytes = torch.empty(size, dtype=torch.uint8, device=like.device)
        return self._bytes[:size].view(dtype).view(shape)
