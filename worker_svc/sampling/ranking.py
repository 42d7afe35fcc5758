"""Thresholds among the numbers of each row: the k-th largest, and where a share of the row's mass is reached.

The cuts call it, in the compute stage.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

MAX_NARROW_K = 256
"""Largest top_k that is looked for among a row's largest logits only."""

SORTED = 4096
"""Numbers of a row that are sorted together; a longer row is sorted in pieces of at most so many."""

DIGIT = 8
"""Bits of a threshold that are found at a time where a row is in pieces."""

LOWEST_ORDER = -(2**31)
"""Below all numbers, in their order."""


def ordered(x: Tensor) -> Tensor:
    """fp32 as int32 in the same order, -0 just below 0."""
    bits = x.view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


class Ranking:
    """Finds thresholds among the numbers of each row, given as integers in the same order."""

    def __init__(self, order: Tensor) -> None:
        """``order``: ``[rows, n]`` int32."""
        self._order = order

    def kth(self, counts: Tensor, most: int) -> Tensor:
        """The ``counts``-th largest ``[rows, 1]``, below all where a row has fewer; ``most``: counted."""
        n = self._order.shape[1]
        last = counts.unsqueeze(1).clamp(1, n)
        if n <= SORTED:
            found = self._sorted[0].gather(1, last - 1)
        elif most <= MAX_NARROW_K:
            found = self._order.topk(most, dim=-1).values.gather(1, last - 1)
        else:
            keys, _ = self._pieces
            found = self._search(torch.arange(1, keys.shape[2] + 1, device=keys.device).expand_as(keys), last)
        return found.masked_fill_(counts.unsqueeze(1) > n, LOWEST_ORDER)

    def crossing(self, mass: Tensor, target: Tensor) -> Tensor:
        """The largest value ``[rows, 1]`` at and above which a row has ``target`` ``[rows, 1]`` mass.

        ``mass``: ``[rows, n]`` int64. A row that has less gets its smallest value, or LOWEST_ORDER.
        """
        if self._order.shape[1] <= SORTED:
            descending, places = self._sorted
            reached = (mass.gather(1, places).cumsum(-1) < target).sum(-1, keepdim=True)
            return descending.gather(1, reached.clamp_(max=descending.shape[1] - 1))
        _, places = self._pieces
        return self._search(_in_pieces(mass, 0).gather(2, places).cumsum_(2), target)

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        descending, places = self._order.sort(dim=-1, descending=True)
        return descending, places

    @cached_property
    def _pieces(self) -> tuple[Tensor, Tensor]:
        """``[rows, pieces, size]``: each piece as its keys, which ascend where the numbers descend, and where
        in the piece each was. Padding comes last."""
        keys, places = _in_pieces(~self._order, ~LOWEST_ORDER).sort(dim=-1)
        return keys, places

    def _search(self, cumulated: Tensor, target: Tensor) -> Tensor:
        """The largest value ``[rows, 1]`` at and above which all pieces together have ``target``, or
        LOWEST_ORDER if there is none.

        ``cumulated``: sums along the sorted pieces, ``[rows, pieces, size]`` int64. The value is found digit
        by digit, the most significant one first, as in a radix select (Alabi et al. 2012, Fast k-selection
        algorithms for graphics processing units). For each value that a digit may have, a binary search in
        each sorted piece finds the sum at and above it. So only the sort goes through the whole row.
        """
        keys, _ = self._pieces
        rows, pieces, _ = keys.shape
        digits = torch.arange(1 << DIGIT, device=keys.device)
        low = torch.full_like(target, LOWEST_ORDER)
        for shift in range(32 - DIGIT, -1, -DIGIT):
            limits = (~(low + (digits << shift))).int().unsqueeze(1)
            limits = limits.expand(rows, pieces, len(digits)).contiguous()
            count = torch.searchsorted(keys, limits, right=True)
            above = cumulated.gather(2, (count - 1).clamp_(min=0)).masked_fill_(count == 0, 0).sum(1)
            digit = ((above >= target).sum(-1, keepdim=True) - 1).clamp_(min=0)
            low.add_(digit, alpha=1 << shift)
        return low.int()


def _in_pieces(x: Tensor, padding: int) -> Tensor:
    """``[rows, n]`` as ``[rows, pieces, size]``: as few pieces as SORTED allows, of equal size."""
    n = x.shape[1]
    pieces = -(-n // SORTED)
    size = -(-n // pieces)
    return pad(x, (0, pieces * size - n), value=padding).view(len(x), pieces, size)
