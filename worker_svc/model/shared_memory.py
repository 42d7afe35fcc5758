"""Memory that ranks on one machine share: what one writes, the others read, with no socket between."""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

SMALLEST = 1 << 20


class SharedMemory:
    """Parts that each rank of the default group writes for the others. All ranks call the same, in order.

    A rank has two parts, used in turn: it writes into one again only after another call, in which all ranks
    have met, so that whoever still read it is done. The memory has no name, and goes with the processes.
    """

    def __init__(self, rank: int, size: int) -> None:
        self._rank = rank
        self._size = size
        self._turn = 0
        self._parts: list[list[Tensor]] = [[], []]  # by turn, then by rank: bytes
        self._capacity = 0

    def usable(self) -> bool:
        """Whether every rank sees what every other one writes: they may be on different machines."""
        token = torch.tensor(list(secrets.token_bytes(16)), dtype=torch.uint8)
        dist.broadcast(token, 0)
        opened = self._grow(SMALLEST)
        for parts in self._parts:
            parts[self._rank][:16] = token
        dist.barrier()
        seen = opened and all(torch.equal(part[:16], token) for parts in self._parts for part in parts)
        found = torch.tensor([int(seen)])
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return bool(found)

    def exchange(self, x: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """See :meth:`TPGroup.exchange_columns`: what each rank has of this rank's rows.

        ``x`` has the same shape on every rank. The result is good until the next call but one.
        """
        if self._capacity < x.nbytes:
            self._grow(1 << (x.nbytes - 1).bit_length())
        views = [part[: x.nbytes].view(x.dtype).view(x.shape) for part in self._parts[self._turn]]
        self._turn = 1 - self._turn
        first = sum(counts[: self._rank])
        last = first + counts[self._rank]
        views[self._rank][:first], views[self._rank][last:] = x[:first], x[last:]
        dist.barrier()
        views[self._rank] = x
        return [view[first:last] for view in views]

    def _grow(self, capacity: int) -> bool:
        """New parts of ``capacity`` bytes; False where a part could not be opened, which is then our own."""
        opened = True
        for turn in range(2):
            own = os.memfd_create("albireo")
            os.ftruncate(own, capacity)
            place = torch.tensor([os.getpid(), own])
            places = [torch.empty_like(place) for _ in range(self._size)]
            dist.all_gather(places, place)
            mine = _map(own, capacity)
            parts = []
            for rank, (pid, number) in enumerate(found.tolist() for found in places):
                try:
                    parts.append(mine if rank == self._rank else _open(pid, number, capacity))
                except (OSError, ValueError):
                    parts.append(mine)
                    opened = False
            dist.barrier()
            os.close(own)
            self._parts[turn] = parts
        self._capacity = capacity
        return opened


def _open(pid: int, number: int, capacity: int) -> Tensor:
    """The memory behind another process's descriptor. Raises OSError or ValueError where it is none."""
    descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR)
    try:
        return _map(descriptor, capacity)
    finally:
        os.close(descriptor)


def _map(descriptor: int, capacity: int) -> Tensor:
    return torch.frombuffer(mmap.mmap(descriptor, capacity), dtype=torch.uint8)
