"""A tensor-parallel group: the ranks that hold one model, and their collectives.

The compute stage calls them; at its start a rank does too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.collectives.local_ranks import LocalRanks
from worker_svc.collectives.shared_memory import SharedMemoryCollectives


class TPGroup:
    """``size`` ranks over torch.distributed: NCCL for CUDA tensors, gloo for CPU tensors.

    A group of one has no peers and needs no process group. All collectives are called by all ranks
    in the same order; a peer that dies or stalls makes them raise after the timeout.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, timeout_seconds: float = 60.0) -> None:
        """For ``size`` > 1 the default process group must exist."""
        self.rank = rank
        self.size = size
        self._timeout = timeout_seconds
        self.begun = self.ended = 0  # collectives of steps, so far; other threads read them
        self._parts, self._whole = ScratchBuffer(), ScratchBuffer()
        self._asked = False
        self._shared: SharedMemoryCollectives | None = None

    @classmethod
    def from_environment(cls, device: str, *, timeout_seconds: float) -> TPGroup:
        """Joins the group that torchrun's variables describe (RANK, WORLD_SIZE, MASTER_ADDR, ...)."""
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if size > 1:
            dist.init_process_group(
                "nccl" if device == "cuda" else "gloo", timeout=timedelta(seconds=timeout_seconds)
            )
        return cls(rank, size, timeout_seconds=timeout_seconds)

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over ranks, in place; the same bits on every rank."""
        if self.size == 1:
            return x
        self.begun += 1
        if (shared := self._shared_memory(x)) is not None:
            shared.all_reduce(x)
        else:
            dist.all_reduce(x)
        self.ended += 1
        return x

    def exchange_columns(
        self, x: Tensor, counts: Sequence[int], dtype: torch.dtype, out: Tensor | None = None
    ) -> Tensor:
        """``[n, v]`` of each rank becomes ``[counts[rank], v * size]``: all columns of a rank's own rows.

        Rows are in the order of the ranks that get them, ``counts`` of each; a rank of no rows takes part all
        the same. The result may be overwritten, and is good until the next collective. A group of one gets
        ``x`` itself where it has ``dtype``. ``out``: on CUDA, where the result shall be.
        """
        if self.size == 1 and x.dtype == dtype and out is None:
            return x
        self.begun += 1
        if self.size > 1 and (shared := self._shared_memory(x)) is not None:
            assert out is None  # these are tensors on the CPU
            own = shared.exchange_columns(x, counts, dtype)
        else:
            own = self._exchange_columns(x, counts, dtype, out)
        self.ended += 1
        return own

    def _exchange_columns(
        self, x: Tensor, counts: Sequence[int], dtype: torch.dtype, out: Tensor | None
    ) -> Tensor:
        own, width = counts[self.rank], x.shape[1]
        # Fresh memory of that size costs the operating system more than all of the sampling: 19 ms against
        # 2 ms for 64 rows of 151,936 from bf16.
        whole = self._whole.take((own, self.size * width), x, dtype) if out is None else out
        for rank, part in enumerate(self._exchange(x, counts)):
            whole[:, rank * width : (rank + 1) * width] = part
        return whole

    def _exchange(self, x: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """What each rank has of this rank's rows, ``[counts[rank], v]`` each."""
        if self.size == 1:
            return [x]
        own, sent = counts[self.rank], x.split(list(counts))
        received = list(self._parts.take((self.size, own, x.shape[1]), x).unbind())
        if x.is_cuda:
            dist.all_to_all(received, [part.contiguous() for part in sent])
            return received
        # gloo has no all-to-all of lists, and its gather, which this is where one rank gets all rows, takes
        # three times as long (31 ms against 11 ms for 20 MB).
        peers = [rank for rank in range(self.size) if rank != self.rank]
        requests = [dist.irecv(received[peer], peer) for peer in peers if own]
        requests += [dist.isend(sent[peer], peer) for peer in peers if counts[peer]]
        for request in requests:
            if request is not None:
                request.wait()
        received[self.rank] = sent[self.rank]
        return received

    def _shared_memory(self, x: Tensor) -> SharedMemoryCollectives | None:
        """For tensors on the CPU, unless the ranks are on different machines. Finds out on the first call."""
        if x.is_cuda:
            return None
        if not self._asked:
            self._asked = True
            ranks = LocalRanks.find(self.rank, self.size, timeout_seconds=self._timeout)
            if ranks is not None:
                self._shared = SharedMemoryCollectives(ranks, self.rank, self.size)
        return self._shared

    def gather_rows(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """``[counts[rank], w]`` of each rank, one below the other on every rank: ``[sum of counts, w]``."""
        if self.size == 1:
            return x
        self.begun += 1
        if (shared := self._shared_memory(x)) is not None:
            rows = shared.gather(x, counts)
        else:
            rows = self._gather(x, counts)
        self.ended += 1
        return rows

    def _gather(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        most = max(counts)
        sent = x.new_zeros(most, x.shape[1])
        sent[: len(x)] = x
        received = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent)
        return torch.cat([part[:count] for part, count in zip(received, counts, strict=True)])

    def broadcast(self, x: Tensor) -> Tensor:
        """Rank 0's values, in place."""
        if self.size > 1:
            dist.broadcast(x, 0)
        return x

    def barrier(self) -> None:
        if self._shared is not None:
            self._shared.barrier()
        elif self.size > 1:
            dist.barrier()

    def close(self) -> None:
        if self._shared is not None:
            self._shared.close()
        if self.size > 1:
            dist.destroy_process_group()


def compute_threads(local_ranks: int) -> int:
    """Threads of each rank where ``local_ranks`` share this machine: its fair share of usable cores."""
    return max(1, len(os.sched_getaffinity(0)) // local_ranks)
