"""NCCL on simulated devices: collectives of ranks that are processes with a device each, over gloo.

A collective is work of the current stream, in a graph too. It begins when all work before it has run, and the
stream goes on once all ranks have come so far; until then other streams of the device may.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.worker_svc.simulated_cuda.device import CudaError, Work, device
from tests.worker_svc.simulated_cuda.tensor import SimulatedTensor

_all_reduce, _broadcast, _all_gather = dist.all_reduce, dist.broadcast, dist.all_gather
_barrier = dist.barrier
_communicator = ThreadPoolExecutor(1, "communicator")
"""Where a rank's collectives wait for the others, one after the other."""


@dataclass(eq=False, slots=True)
class Exchange(Work):
    """Work that is done with the other ranks. A graph runs it again at each replay."""

    exchange: Callable[[], None] = lambda: None
    begun: Future[None] | None = None

    def able(self) -> bool:
        """Whether the others have done theirs. Begins it: a stream asks this of its next work alone."""
        if self.begun is None:
            self.begun = _communicator.submit(self.exchange)
        return self.begun.done()


def _exchange(name: str, exchange: Callable[[], object]) -> None:
    def in_inference_mode() -> None:
        with torch.inference_mode():
            exchange()

    def end() -> None:
        assert work.begun is not None
        begun, work.begun = work.begun, None
        begun.result()  # raises where another rank is gone

    work = Exchange(name, end, exchange=in_inference_mode)
    device().put(work)


def _memory(tensor: Tensor) -> Tensor:
    """Raises as NCCL does."""
    if not isinstance(tensor, SimulatedTensor):
        raise CudaError("no backend of the group takes tensors on the CPU")
    if not tensor.is_contiguous():
        raise CudaError("tensors must be contiguous")
    return tensor.memory


def all_reduce(x: Tensor) -> None:
    memory = _memory(x)
    _exchange("all_reduce", lambda: _all_reduce(memory))


def broadcast(x: Tensor, src: int) -> None:
    memory = _memory(x)
    _exchange("broadcast", lambda: _broadcast(memory, src))


def all_gather(received: list[Tensor], x: Tensor) -> None:
    memories, memory = [_memory(tensor) for tensor in received], _memory(x)
    _exchange("all_gather", lambda: _all_gather(memories, memory))


def all_to_all(received: list[Tensor], sent: list[Tensor]) -> None:
    """gloo has none of lists, and sends nothing that is empty."""
    into, out = [_memory(tensor) for tensor in received], [_memory(tensor) for tensor in sent]

    def exchange() -> None:
        rank = dist.get_rank()
        into[rank].copy_(out[rank])
        peers = [peer for peer in range(dist.get_world_size()) if peer != rank]
        requests = [dist.irecv(into[peer], peer) for peer in peers if into[peer].numel()]
        requests += [dist.isend(out[peer], peer) for peer in peers if out[peer].numel()]
        for request in requests:
            assert request is not None
            request.wait()

    _exchange("all_to_all", exchange)


def barrier() -> None:
    """The host waits too."""
    _exchange("barrier", _barrier)
    device().sync("barrier")


def patch_distributed(patch: pytest.MonkeyPatch) -> None:
    """Puts them in the place of ``torch.distributed``'s."""
    for replaced in (all_reduce, broadcast, all_gather, all_to_all, barrier):
        patch.setattr(dist, replaced.__name__, replaced)
