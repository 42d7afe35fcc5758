"""Shared-memory collectives: for CPU tensors of ranks on one machine; what one writes, the others read.

:class:`worker_svc.collectives.tp_group.TPGroup` calls them, in the compute stage.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from worker_svc.collectives.local_ranks import LocalRanks

SMALLEST = 1 << 20


class SharedMemoryCollectives:
    """A part of memory for each rank, twice. All ranks call the same, in order, with tensors of one size.

    The two sets are used in turn: a rank writes into a part again only after another call, in which all have
    waited for one another, so that all have read it. The memory has no name, and is freed with the processes.
    """

    def __init__(self, ranks: LocalRanks, rank: int, size: int) -> None:
        self._ranks = ranks
        self._rank = rank
        self._size = size
        self._turn = 0
        self._sets = torch.empty(2, size, 0, dtype=torch.uint8)

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over ranks, in place; the same bits on every rank."""
        parts = self._next(x.shape, x.dtype)
        parts[self._rank] = x
        self._ranks.barrier()
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
        self._ranks.signal()
        own = parts[self._rank, : counts[self._rank]]
        own[:, columns] = rows[self._rank]  # while the others finish
        self._ranks.wait()
        return own

    def close(self) -> None:
        self._ranks.close()

    def barrier(self) -> None:
        self._ranks.barrier()

    def gather(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """See :meth:`TPGroup.gather_rows`."""
        parts = self._next((max(counts), *x.shape[1:]), x.dtype)
        parts[self._rank, : len(x)] = x
        self._ranks.barrier()
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
            self._ranks.send_file(descriptor)
        else:
            descriptor = self._ranks.receive_file(0)
        try:
            memory = torch.frombuffer(mmap.mmap(descriptor, total), dtype=torch.uint8)
        finally:
            os.close(descriptor)
        self._sets = memory.view(2, self._size, capacity)
