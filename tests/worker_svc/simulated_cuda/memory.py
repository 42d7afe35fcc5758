"""Memory of the simulated device, and pinned memory of the host.

torch's allocator gives freed memory to the next that asks on the same stream, and only there; memory that
``record_stream`` has named for others waits for those first. What is freed here is filled with rubbish at
the moment from which another could have it, so that a late reader sees it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.worker_svc.simulated_cuda.device import Device, Stream, Work

if TYPE_CHECKING:
    from tests.worker_svc.simulated_cuda.graphs import CUDAGraph


def spoil(memory: Tensor, device: Device) -> None:
    """Fills all memory that a CPU tensor is a view of with rubbish."""
    flat = torch.empty(0, dtype=torch.uint8).set_(memory.untyped_storage())
    flat.fill_(device.policy.rubbish())


class Allocation:
    """Memory of a tensor and its views on the device. It is freed with the last of them."""

    def __init__(self, memory: Tensor, device: Device) -> None:
        """``memory``: on the CPU. It belongs to the stream that is current now, or to the captured graph."""
        spoil(memory, device)
        self.users: set[Stream] = set()
        """Streams that ``record_stream`` has named."""
        graph, owner, users = device.capture, device.current, self.users
        if graph is None:
            weakref.finalize(self, lambda: _free(memory, device, owner, users)).atexit = False
        else:
            weakref.finalize(self, lambda: _free_of_graph(memory, device, graph)).atexit = False


def _free(memory: Tensor, device: Device, owner: Stream, users: set[Stream]) -> None:
    with device.lock:
        device.counts["freed"] += 1
        marks = [user.mark() for user in users if user is not owner]
        if marks:
            device.when_reached([*marks, owner.mark()], lambda: spoil(memory, device))
        else:
            owner.queue.append(Work("free", lambda: spoil(memory, device)))


def _free_of_graph(memory: Tensor, device: Device, graph: CUDAGraph) -> None:
    """Freed during the capture: the graph's own work behind it may use it. Freed after it: the next graphs
    of its pool may have been captured onto it."""
    with device.lock:
        device.counts["freed of graphs"] += 1
        if device.capture is graph:
            graph.nodes.append(Work("free", lambda: spoil(memory, device)))
        else:
            graph.freed.append(memory)


def pin(tensor: Tensor, device: Device) -> Tensor:
    """Declares a new tensor's memory as pinned. It holds rubbish: a copy that has not come shows."""
    with device.lock:
        device.pinned.append(tensor)
    return tensor


def is_pinned(tensor: Tensor, device: Device) -> bool:
    address = tensor.data_ptr()
    return any(
        0 <= address - pinned.data_ptr() < pinned.untyped_storage().nbytes() for pinned in device.pinned
    )
