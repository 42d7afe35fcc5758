"""The ring of staging buffers: where a step's input lies between the input stage and the compute stage.

A step that overwrites a buffer which a step in flight still reads makes that step sample wrong ids. So there
is one order: the compute stage releases a buffer, the copy stream waits for that on the device, the host
waits for the last copy out of the pinned half, and only then does the next step fill it.
"""

from __future__ import annotations

import time
import weakref

import torch
from torch import Tensor

from worker_svc.buffers.arrays import Ints

BUFFERS = 8
"""More than the steps between the stages: two queued, one running, one being staged."""

SMALLEST = 1024
"""Words of a buffer at first: it grows by powers of two."""


class _Memory:
    """Memory that one step uses at a time. On the CPU both halves are the same tensor."""

    def __init__(self) -> None:
        self.host = torch.empty(0, dtype=torch.int64)
        self.device = self.host
        self.user: weakref.ref[StagingBuffer] | None = None
        self.copied: torch.cuda.Event | None = None  # the last copy out of ``host`` is done
        self.consumed: torch.cuda.Event | None = None  # the last step that read ``device`` is done

    def grow(self, size: int, device: torch.device) -> None:
        # The old halves may go: the copy out of one is done, and the copy stream, whose allocator owns the
        # other, waits for its reader.
        capacity = max(SMALLEST, 1 << (size - 1).bit_length())
        cuda = device.type == "cuda"
        self.host = torch.empty(capacity, dtype=torch.int64, pin_memory=cuda)
        self.device = torch.empty(capacity, dtype=torch.int64, device=device) if cuda else self.host


class StagingBuffer:
    """The buffer of one step: the input stage fills and seals it, the compute stage waits and releases."""

    def __init__(self, memory: _Memory, number: int, size: int, stream: torch.cuda.Stream | None) -> None:
        """Made by :class:`StagingRing`. ``number`` counts the steps that were staged."""
        self.number = number
        self.host: Ints = memory.host.numpy()[:size]
        self.words: Tensor = memory.device[:size]  # int64; other types are views
        self.released = False
        self._memory = memory
        self._stream = stream
        self._ready: torch.cuda.Event | None = None

    def upload(self) -> None:
        """Input stage, with the copy stream current: brings what ``host`` holds to ``words``."""
        if self._stream is not None:
            self.words.copy_(self._memory.host[: len(self.words)], non_blocking=True)

    def seal(self) -> None:
        """Input stage: whatever the copy stream was given so far belongs to this step."""
        if self._stream is not None:
            # Fresh for each use: a reused event could be recorded again before it was waited for.
            self._ready = self._memory.copied = torch.cuda.Event()
            self._ready.record(self._stream)

    def wait(self) -> None:
        """Compute stage: its current stream waits, on the device, for what was sealed."""
        if self._ready is not None:
            torch.cuda.current_stream(self.words.device).wait_event(self._ready)

    def release(self) -> None:
        """Compute stage, when all that reads ``words`` has been launched on its current stream."""
        if self._stream is not None:
            consumed = torch.cuda.Event()
            consumed.record(torch.cuda.current_stream(self.words.device))
            self._memory.consumed = consumed
        self.released = True  # last: the input stage takes it as the sign that ``consumed`` is set


class StagingRing:
    """Buffers in turn. Filled by one thread, released by another in the same order."""

    def __init__(
        self, device: torch.device, stream: torch.cuda.Stream | None, buffers: int = BUFFERS
    ) -> None:
        """``stream``: the copy stream on CUDA, None on the CPU, where nothing is copied."""
        self._device = device
        self._stream = stream
        self._memories = tuple(_Memory() for _ in range(buffers))
        self._taken = 0
        self.waited = 0.0  # seconds that ``take`` has waited for copies

    def take(self, size: int) -> StagingBuffer:
        """The next buffer, of ``size`` words of 8 bytes; the copy stream must be current.

        Raises RuntimeError where the step that used its memory before has not been executed and still can be.
        A step that has been dropped cannot.
        """
        memory = self._memories[self._taken % len(self._memories)]
        before = memory.user() if memory.user is not None else None
        if before is not None and not before.released:
            raise RuntimeError(
                f"staged step {before.number} has not been executed: step {self._taken} would overwrite it "
                f"in buffer {self._taken % len(self._memories)} of {len(self._memories)}"
            )
        if memory.consumed is not None and self._stream is not None:
            self._stream.wait_event(memory.consumed)
        if memory.copied is not None:
            began = time.perf_counter()
            memory.copied.synchronize()  # of a whole turn ago: done, unless the device is that far behind
            self.waited += time.perf_counter() - began
        if size > len(memory.host):
            memory.grow(size, self._device)
        buffer = StagingBuffer(memory, self._taken, size, self._stream)
        memory.user = weakref.ref(buffer)
        self._taken += 1
        return buffer
