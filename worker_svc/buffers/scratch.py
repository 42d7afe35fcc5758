"""Memory for large intermediates that is kept from step to step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Room:
    """One tensor at a time. Fresh memory of tens of megabytes costs more than what is done in it."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def take(self, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialized tensor on the device of ``like``; whatever was taken before is gone."""
        dtype = dtype or like.dtype
        size = math.prod(shape) * dtype.itemsize
        if len(self._bytes) < size or self._bytes.device != like.device:
            self._bytes = torch.empty(size, dtype=torch.uint8, device=like.device)
        return self._bytes[:size].view(dtype).view(shape)
