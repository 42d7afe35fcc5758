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
"""Most copies that one result names: the last ones. As many reads of layers, which have all bytes."""


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
        self._streamed: list[control.KvTransfer] = []
        self._layer: tuple[int, int] | None = None  # tier and layer of the last of these
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

    def streamed(self, tier: int, layer: int, *, begin: int, end: int, size: int) -> None:
        """A piece was read for a layer of a streamed slot. Those that follow one another in the same layer
        are one transfer."""
        name = self._names[tier]
        with self._lock:
            self._new = True
            known = self._streamed if (tier, layer) == self._layer or len(self._streamed) >= TRANSFERS else ()
            transfer = next((found for found in reversed(known) if found.tier == name), None)
            if transfer is None:
                transfer = control.KvTransfer(tier=name, streamed=True, begin=begin)
                self._streamed.append(transfer)
            transfer.end = end
            transfer.bytes += size
            self._layer = tier, layer

    def take(self) -> Recorded | None:
        """What is new since the last call; None: nothing."""
        if not self._new:
            return None
        with self._lock:
            transfers = (*self._transfers, *self._streamed)
            recorded = Recorded(tuple(self._lost), tuple(self._read), transfers)
            self._lost, self._read, self._streamed, self._new = [], [], [], False
            self._transfers.clear()
        return recorded
