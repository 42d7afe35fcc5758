"""Memory that streamed KV passes through: one piece is read from its tier into host memory while another is
copied to the device, and there are some on the device that wait for their layer."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from itertools import cycle

from torch import Tensor

from worker_svc.kv_tiers.copies import DONE, Copies, Copy
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.limits import piece_buffers
from worker_svc.kv_tiers.streamed_frames import PIECE_BLOCKS


@dataclass(eq=False, slots=True)
class StreamBuffer:
    """Of one piece, on the device."""

    memory: Tensor  # [2, most blocks, 16, kv heads, row width]
    blocks: int = 0
    filled: Copy = DONE
    used: object = None  # names what the compute stage has launched that reads it


@dataclass(slots=True)
class HostBuffer:
    """What a tier is read into, and the last copy out of it."""

    memory: Tensor  # [most blocks, 2, 16, kv heads, row width]
    copy: Copy = DONE


class StreamBuffers:
    """Those of a rank."""

    def __init__(self, copies: Copies, layout: KvLayout) -> None:
        self._copies = copies
        host = copies.buffer((2, PIECE_BLOCKS, *layout.part_shape), layout.dtype)
        self._turn = cycle([HostBuffer(memory) for memory in host])
        both, *part = layout.part_shape
        count = piece_buffers(PIECE_BLOCKS * layout.part_bytes)
        memories = copies.device_buffer((count, both, PIECE_BLOCKS, *part), layout.dtype)
        self._free: queue.SimpleQueue[StreamBuffer] = queue.SimpleQueue()
        for memory in memories:
            self._free.put(StreamBuffer(memory))

    def host(self) -> HostBuffer:
        """The reader: what it reads the next piece into. Waits until nothing is copied out of it."""
        found = next(self._turn)
        found.copy.wait()
        return found

    def bring(self, host: HostBuffer, blocks: int) -> StreamBuffer:
        """The reader: the first blocks of a host buffer in one on the device. Waits until one is free: until
        the compute stage has used a piece, or a step is closed."""
        buffer = self._free.get()
        out = buffer.memory[:, :blocks]
        host.copy = buffer.filled = self._copies.bring(host.memory[:blocks], out, buffer.used)
        buffer.blocks = blocks
        return buffer

    def give(self, buffer: StreamBuffer, *, used: bool) -> None:
        """``used``: what reads it has been launched on the compute stage's stream."""
        if used:
            buffer.used = self._copies.mark()
        self._free.put(buffer)
