"""Host buffers for spills, a few: what is copied out of the device waits in them for its tier."""

from __future__ import annotations

from collections import deque

from torch import Tensor

from worker_svc.kv_tiers.copies import Copies
from worker_svc.kv_tiers.layout import KvLayout

PORTION = 8
"""Most blocks of one buffer: one copy brings them, one write takes them away."""
FEWEST, MOST = 4, 32
RING_BYTES = 256 << 20


class BufferRing:
    """Buffers ``[8, *block_shape]``. Each is given back once; callers hold a lock for taking and giving."""

    def __init__(self, copies: Copies, layout: KvLayout) -> None:
        """Of large blocks there are fewer buffers: 256 MiB, or four."""
        count = max(FEWEST, min(MOST, RING_BYTES // (PORTION * layout.block_bytes)))
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
