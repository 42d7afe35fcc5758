"""Collectives of ranks on one machine, on CPU tensors: what one writes, the others read."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from worker_svc.collectives.step_barrier import Neighbours

SMALLEST = 1 << 20


class SharedMemory:
    """A part of memory for each rank, twice. All ranks call the same, in order, with tensors of one size.

    The two sets are used in turn: a rank writes into a part again only after another call, in which all have
    met, so that whoever still read it is done. The memory has no name, and goes with the processes.
    """

    def __init__(self, neighbours: Neighbours, rank: int, size: int) -> None:
        self._neighbours = neighbours
        self._rank = rank
        self._size = size
        self._turn = 0
        self._sets = torch.empty(2, size, 0, dtype=torch.uint8)

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over ranks, in place; the same bits on every rank."""
        parts = self._next(x.shape, x.dtype)
        parts[self._rank] = x
        self._neighbours.meet()
        return torch.sum(parts, dim=0, out=x)

    def exchange_columns(self, x: Tensor, counts: Sequence[int], dtype: torch.dtype) -> Tensor:
        """See :meth:`TPGroup.exchange_columns`. Everyone writes its columns where their owner wants them."""
        width = x.shape[1]
        parts = self._next((max(counts), self._size * width), dtype)
        columns = slice(self._rank * width, (self._rank + 1) * width)
        rows = x.split(list(counts))
        for rank in range(self._size):
            if rank != self._rank:
                parts[rank, : counts[rank], columns] = rows[rank]
        self._neighbours.ring()
        own = parts[self._rank, : counts[self._rank]]
        own[:, columns] = rows[self._rank]  # while the others finish
        self._neighbours.hear()
        return own

    def close(self) -> None:
        self._neighbours.close()

    def barrier(self) -> None:
        self._neighbours.meet()

    def gather(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """See :meth:`TPGroup.gather_rows`."""
        parts = self._next((max(counts), *x.shape[1:]), x.dtype)
        parts[self._rank, : len(x)] = x
        self._neighbours.meet()
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def _next(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """``[ranks, *shape]``: everyone's part."""
        size = math.prod(shape) * dtype.itemsize
        if self._sets.shape[2] < size:
            self._grow(max(SMALLEST, 1 << (size - 1).bit_length()))
        parts = self._sets[self._turn, :, :size]
        self._turn = 1 - self._turn
        return parts.view(dtype).view(self._size, *shape)

    def _grow(self, capacity: int) -> None:
        """New sets, of parts of ``capacity`` bytes."""
        total = 2 * self._size * capacity
        if self._rank == 0:
            descriptor = os.memfd_create("albireo")
            os.ftruncate(descriptor, total)
            self._neighbours.hand_out(descriptor)
        else:
            descriptor = self._neighbours.receive(0)
        try:
            memory = torch.frombuffer(mmap.mmap(descriptor, total), dtype=torch.uint8)
        finally:
            os.close(descriptor)
        self._sets = memory.view(2, self._size, capacity)
