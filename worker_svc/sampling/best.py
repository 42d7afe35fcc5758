"""The largest numbers of each row, of those equal to the last of them only how many there are, and where.

A draw of rows with a small top_k uses it, in the compute stage. Nothing is asked of the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker_svc.sampling.ranking import ordered
from worker_svc.sampling.tiles import TILE, tile_members, tile_sums


class Best:
    """Of some rows of logits, the ``count`` largest, descending. Equal numbers are equal in all bits here.

    A selection takes just some of the numbers that are equal to its last one, and which ones may differ
    from device to device. So the last entry stands for all of them, and the entries equal to it for none;
    every other number of the selection is in the row as often as in the selection. A function of the number
    alone that is zero below the last one is thereby known for the whole row.
    """

    def __init__(self, logits: Tensor, count: int) -> None:
        """``logits``: ``[rows, n]`` fp32, unchanged as long as this is in use; ``count``: at most n."""
        self._logits = logits
        order = ordered(logits)
        self._order, self._ids = order.topk(count, dim=-1)
        self._last = self._order[:, -1:]
        self._above = self._order > self._last
        self._equal = tile_sums(order == self._last)
        self.values = logits.gather(1, self._ids)  # [rows, count]
        every = self._equal.sum(-1, keepdim=True)
        self.times = torch.cat([self._above[:, :-1].long(), every], dim=1)
        """How often each entry counts in its row, ``[rows, count]``."""

    def tile_sums(self, mass: Tensor) -> Tensor:
        """Mass of each tile of the row ``[rows, tiles]``, given that of each entry ``[rows, count]``."""
        sums = self._equal * mass[:, -1:]
        return sums.scatter_add_(1, self._ids // TILE, mass * self._above)

    def members(self, mass: Tensor, tile: Tensor) -> Tensor:
        """Mass of each number of one tile ``[rows, 1]`` each: ``[rows, TILE]``, zero where the row has ended.

        ``mass``: of each entry.
        """
        order = ordered(tile_members(self._logits, tile, beyond=-torch.inf))  # which weighs nothing
        # Searched where numbers ascend: in the complement.
        entry = torch.searchsorted(~self._order, ~order).clamp_(max=mass.shape[1] - 1)
        return mass.gather(1, entry).masked_fill_(order < self._last, 0)
