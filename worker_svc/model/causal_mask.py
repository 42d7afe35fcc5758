"""Causal masks without arithmetic: every row is a window of one vector.

The input stage takes the rows of each step; a CUDA graph takes its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE


class CausalMasks:
    """Rows to add to attention scores: 0 for what a position sees, -inf for what comes after it.

    A vector of zeros followed by as many -inf holds the row of every position as a window. Taking rows is
    then an index, which one thread does at the speed of memory, so that the input stage needs no other
    thread of those that compute.
    """

    def __init__(self, max_model_len: int, dtype: torch.dtype, device: torch.device) -> None:
        # Contexts are rounded up to whole blocks, and decode rows are padded to the longest of their group.
        self._length = -(-max_model_len // BLOCK_SIZE) * BLOCK_SIZE
        self._vector = torch.zeros(2 * self._length, dtype=dtype, device=device)
        self._vector[self._length :] = -torch.inf

    def rows(self, positions: Tensor, keys: int) -> Tensor:
        """``[n, keys]`` for ``positions`` ``[n]``: each sees itself and what comes before."""
        windows = self._vector.unfold(0, keys, 1)
        return windows.index_select(0, self._length - 1 - positions)
