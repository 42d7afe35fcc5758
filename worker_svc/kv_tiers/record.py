"""What came of copies between blocks and tiers, for the next result.

The threads of the copies add to it, the output stage takes what the results have to say.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from albireo.contract.tiers import Frames, TierRead
from albireo.v1 import control_pb2 as control

TRANSFERS = 64
"""Most copies that one result names: the last ones."""


class Recorded(NamedTuple):
    """What results have not said yet."""

    lost: tuple[Frames, ...] = ()
    read: tuple[TierRead, ...] = ()
    transfers: tuple[control.KvTransfer, ...] = ()


class TransferRecord:
    """Of all tiers of a rank, by their numbers and names."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._lock = threading.Lock()
        self._lost: list[Frames] = []
        self._read: list[TierRead] = []
        self._transfers: deque[control.KvTransfer] = deque(maxlen=TRANSFERS)
        self._new = False

    def lost(self, tier: int, frames: Iterable[int]) -> None:
        with self._lock:
            self._lost.append(Frames(tier, tuple(frames)))
            self._new = True

    def read(self, tier: int, blocks: int, seconds: float) -> None:
        with self._lock:
            self._read.append(TierRead(tier, blocks, seconds))
            self._new = True

    def copied(self, tier: int, *, write: bool, begin: int, end: int, size: int) -> None:
        """A copy ended. ``begin``, ``end``: ns of the Unix clock; ``size``: bytes."""
        name = self._names[tier]
        with self._lock:
            self._transfers.append(
                control.KvTransfer(tier=name, write=write, begin=begin, end=end, bytes=size)
            )
            self._new = True

    def take(self) -> Recorded | None:
        """What is new since the last call; None: nothing."""
        if not self._new:
            return None
        with self._lock:
            recorded = Recorded(tuple(self._lost), tuple(self._read), tuple(self._transfers))
            self._lost, self._read, self._new = [], [], False
            self._transfers.clear()
        return recorded
