"""Tensors in host memory as rows of bytes, one a block, without a copy; tiers move blocks as such."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]


def rows_of(blocks: Tensor) -> Bytes:
    """``[n, bytes]``: the memory of each ``blocks[i]``, which is contiguous. Raises RuntimeError if not."""
    if not blocks.numel():
        return np.empty((len(blocks), 0), dtype=np.uint8)
    rows: Bytes = blocks.view(len(blocks), -1).view(torch.uint8).numpy()
    return rows
