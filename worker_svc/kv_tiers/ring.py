"""Host buffers for spills, a few: what is copied out of the device waits in them for its tier."""

from __future__ import annotations

from collections import deque

from torch import Tensor

from worker_svc.kv_tiers.copies import Copies
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.limits import PORTION, ring_buffers


class BufferRing:
    """Buffers ``[8, *block_shape]``. Each is given back once; callers hold a lock for taking and giving."""

    def __init__(self, copies: Copies, layout: KvLayout) -> None:
        """As many as ``ring_buffers`` says."""
        count = ring_buffers(layout.block_bytes)
        memory = copies.buffer((count, PORTION, *layout.block_shape), layout.dtype)
        self._free = deque(memory.unbind())

    def __len__(self) -> int:
        """Buffers that are free."""
        return len(self._free)

    def take(self) -> Tensor | None:
        """None where all are taken."""
        return self._free.popleft() if self._free else None

    def give(self, buffer: Tensor) -> None:
        self._free.append(buffer)
