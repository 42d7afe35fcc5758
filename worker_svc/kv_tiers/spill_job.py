"""Some blocks of one spill, on their way from the device through a host buffer to their tier."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from worker_svc.kv_tiers.copies import DONE, Copy


class SpillState(Enum):
    """How far the copy from the device is."""

    WAITING = 0
    COPYING = 1
    COPIED = 2
    DROPPED = 3  # it does not count


@dataclass(eq=False, slots=True)
class SpillJob:
    """Its state and buffer are for :class:`worker_svc.kv_tiers.spilling.Spilling`, which has their lock."""

    tier: int
    blocks: tuple[int, ...]
    frames: tuple[int, ...]
    keys: tuple[bytes, ...]
    buffer: Tensor | None  # None: given back
    state: SpillState = SpillState.WAITING
    copied: threading.Event = field(default_factory=threading.Event)  # ``copy`` is launched, or it is dropped
    copy: Copy = DONE
    holds: int = 0  # fetches that read the buffer
    over: bool = False  # nothing writes to the buffer and no tier reads it
    began: int = 0  # the copy, ns of the Unix clock

    @property
    def rows(self) -> Tensor:
        """``[blocks, *block_shape]`` of the buffer. While there is one."""
        if self.buffer is None:
            raise RuntimeError("the buffer of this spill has been given back")
        return self.buffer[: len(self.blocks)]

    def read(self, row: int, key: bytes, layers: range, out: Tensor, seconds: float) -> bool:
        """Some layers of one of its blocks; False: it has another key, or is not copied in time."""
        if self.keys[row] != key or not self.await_copied(seconds):
            return False
        self.copy.wait()
        out.copy_(self.rows[row, layers.start : layers.stop])
        return True

    def await_copied(self, seconds: float) -> bool:
        """Whether the copy was launched in time, and counts."""
        return self.copied.wait(max(0.0, seconds)) and self.state is SpillState.COPIED
