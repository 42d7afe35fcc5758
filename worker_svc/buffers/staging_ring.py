"""Staging buffers, used again and again: where a step's input lies between the input and compute stage.

Whoever writes into a buffer that a step in flight still reads gets garbage or, worse, plausible ids. So a
slot changes hands in one order only: the compute stage releases it, the copy stream waits for that on the
device, the host waits for the last copy out of the pinned half, and only then does the next step fill it.
"""

from __future__ import annotations

import time
import weakref

import torch
from torch import Tensor

from worker_svc.buffers.arrays import Ints

SLOTS = 8
"""More than the steps between the stages: two queued, one running, one being staged."""

SMALLEST = 1024
"""Words of a slot at first: it grows by powers of two."""


class _Slot:
    """Memory of one step at a time. On the CPU both halves are the same tensor."""

    def __init__(self) -> None:
        self.host = torch.empty(0, dtype=torch.int64)
        self.device = self.host
        self.lease: weakref.ref[Lease] | None = None
        self.copied: torch.cuda.Event | None = None  # the last copy out of ``host`` is done
        self.consumed: torch.cuda.Event | None = None  # the last step that read ``device`` is done

    def grow(self, size: int, device: torch.device) -> None:
        # The old halves may go: the copy out of one is done, and the copy stream, whose allocator owns the
        # other, has been told to wait for its reader.
        capacity = max(SMALLEST, 1 << (size - 1).bit_length())
        cuda = device.type == "cuda"
        self.host = torch.empty(capacity, dtype=torch.int64, pin_memory=cuda)
        self.device = torch.empty(capacity, dtype=torch.int64, device=device) if cuda else self.host


class Lease:
    """One step's use of a slot: the input stage fills and seals it, the compute stage waits and releases."""

    def __init__(self, slot: _Slot, number: int, size: int, stream: torch.cuda.Stream | None) -> None:
        """Made by :class:`StagingRing`. ``number`` counts the steps that were staged."""
        self.number = number
        self.host: Ints = slot.host.numpy()[:size]
        self.words: Tensor = slot.device[:size]  # int64; other types are views
        self.released = False
        self._slot = slot
        self._stream = stream
        self._ready: torch.cuda.Event | None = None

    def upload(self) -> None:
        """Input stage, with the copy stream current: brings what ``host`` holds to ``words``."""
        if self._stream is not None:
            self.words.copy_(self._slot.host[: len(self.words)], non_blocking=True)

    def seal(self) -> None:
        """Input stage: whatever the copy stream was given so far belongs to this step."""
        if self._stream is not None:
            # Fresh for each use: a reused event could be recorded again before it was waited for.
            self._ready = self._slot.copied = torch.cuda.Event()
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
            self._slot.consumed = consumed
        self.released = True  # last: the input stage takes it as the sign that ``consumed`` is set


class StagingRing:
    """Slots in turn. Filled by one thread, released by another in the same order."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None, slots: int = SLOTS) -> None:
        """``stream``: the copy stream on CUDA, None on the CPU, where nothing is copied."""
        self._device = device
        self._stream = stream
        self._slots = tuple(_Slot() for _ in range(slots))
        self._taken = 0
        self.waited = 0.0  # seconds that ``take`` has waited for copies

    def take(self, size: int) -> Lease:
        """The next slot, with room for ``size`` words of 8 bytes; the copy stream must be current.

        Raises RuntimeError where the slot's step has not been executed and still can be. A step that nobody
        holds any more cannot.
        """
        slot = self._slots[self._taken % len(self._slots)]
        before = slot.lease() if slot.lease is not None else None
        if before is not None and not before.released:
            raise RuntimeError(
                f"staged step {before.number} has not been executed: step {self._taken} would overwrite it "
                f"in slot {self._taken % len(self._slots)} of {len(self._slots)}"
            )
        if slot.consumed is not None and self._stream is not None:
            self._stream.wait_event(slot.consumed)
        if slot.copied is not None:
            began = time.perf_counter()
            slot.copied.synchronize()  # of a whole turn ago: done, unless the device is that far behind
            self.waited += time.perf_counter() - began
        if size > len(slot.host):
            slot.grow(size, self._device)
        lease = Lease(slot, self._taken, size, self._stream)
        slot.lease = weakref.ref(lease)
        self._taken += 1
        return lease
