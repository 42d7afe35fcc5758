"""Copies between the KV blocks of a GPU and pinned host memory, on streams of their own.

One kernel gathers or scatters all blocks and layers of a copy, and one transfer brings them over the bus. The
intermediate tensors belong to the stream that they are allocated and used on, so its order alone decides when
their memory is used again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worker_svc.kv_tiers.copies import Copy
from worker_svc.model.kv_cache import KVCache


class CudaCopy:
    """``blocks``: the event after which it touches no blocks; ``done``: after which it touches nothing."""

    def __init__(self, blocks: torch.cuda.Event, done: torch.cuda.Event, device: torch.device) -> None:
        self.blocks = blocks
        self._done = done
        self._device = device

    def wait(self) -> None:
        self._done.synchronize()

    def before_compute(self) -> None:
        torch.cuda.current_stream(self._device).wait_event(self.blocks)


class CudaCopies:
    """Fetches, spills and pieces for streamed slots run at the same time as each other and as the compute
    stage's stream. A piece waits for a buffer that compute still reads: no fetch is to wait behind it.

    Nothing here waits for the device. Events are fresh for each copy: a reused one could be recorded again
    before it was waited for.
    """

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._device = device = cache.storage.device
        streams = tuple(torch.cuda.Stream(device) for _ in range(3))
        self._fetches, self._spills, self._pieces = streams
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream(device))  # which zeroes the cache

    def buffer(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        with torch.cuda.device(self._device):  # a thread begins with the first GPU of the machine
            return torch.empty(shape, dtype=dtype, pin_memory=True)

    def mark(self) -> object:
        return torch.cuda.current_stream(self._device).record_event()

    def gather(self, blocks: Sequence[int], out: Tensor, after: object) -> Copy:
        stream = self._spills
        with torch.cuda.stream(stream):
            index = self._index(blocks)
            if isinstance(after, torch.cuda.Event):
                stream.wait_event(after)
            found = self._cache.gather(index)
            taken = stream.record_event()
            out.copy_(found, non_blocking=True)
            return CudaCopy(taken, _record(stream), self._device)

    def scatter(
        self, blocks: Sequence[int], layers: range, source: Tensor, after: Sequence[Copy] = ()
    ) -> Copy:
        stream = self._fetches
        with torch.cuda.stream(stream):
            index = self._index(blocks)
            brought = source.to(self._device, non_blocking=True)
            for copy in after:
                if isinstance(copy, CudaCopy):
                    stream.wait_event(copy.blocks)
            self._cache.scatter(index, layers, brought)
            done = _record(stream)
            return CudaCopy(done, done, self._device)

    def device_buffer(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self._device)

    def bring(self, source: Tensor, out: Tensor, after: object) -> Copy:
        stream = self._pieces
        with torch.cuda.stream(stream):
            brought = source.to(self._device, non_blocking=True)
            if isinstance(after, torch.cuda.Event):
                stream.wait_event(after)
            out.copy_(brought.transpose(0, 1))
            done = _record(stream)
            return CudaCopy(done, done, self._device)

    def _index(self, blocks: Sequence[int]) -> Tensor:
        # torch's allocator of pinned memory keeps it until the stream is past the copy.
        return torch.tensor(blocks).pin_memory().to(self._device, non_blocking=True)


def _record(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """An event for threads to wait for: they sleep, and leave the core to the stages."""
    event = torch.cuda.Event(blocking=True)
    event.record(stream)
    return event
