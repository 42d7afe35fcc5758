"""One direction of a simulated tier: copies follow one another, each as long as its blocks take.

Times are nanoseconds of the Unix clock.
"""

from __future__ import annotations

from collections import deque

from albireo.v1 import control_pb2 as control


class SimulatedLane:
    """The input stage takes copies, the compute stage asks which have ended."""

    def __init__(self, tier: str, block_seconds: float, block_bytes: int, *, write: bool) -> None:
        self.tier = tier
        self.block_ns = block_seconds * 1e9
        self._block_bytes = block_bytes
        self._write = write
        self._copies: deque[control.KvTransfer] = deque()  # that were not reported yet, in their order
        self._free_at = 0

    def waiting(self, now: int) -> float:
        """Blocks that are not copied yet."""
        return max(0, self._free_at - now) / self.block_ns

    def take(self, blocks: int, now: int) -> control.KvTransfer:
        """The copy of ``blocks``, behind all that were taken before."""
        begin = self.reserve(blocks, now)
        copy = control.KvTransfer(
            tier=self.tier,
            write=self._write,
            begin=begin,
            end=self._free_at,
            bytes=blocks * self._block_bytes,
        )
        self._copies.append(copy)
        return copy

    def reserve(self, blocks: float, now: int) -> int:
        """When reading as much as ``blocks`` begins, behind all that was taken before; it is not among the
        copies."""
        begin = max(now, self._free_at)
        self._free_at = begin + round(blocks * self.block_ns)
        return begin

    def ended(self, now: int) -> list[control.KvTransfer]:
        """Copies that have ended by ``now``, each once."""
        found = []
        while self._copies and self._copies[0].end <= now:
            found.append(self._copies.popleft())
        return found
