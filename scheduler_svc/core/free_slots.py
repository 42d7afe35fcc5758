"""The set of slots that no request holds.

The ledger changes it; the plan builder reads it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from scheduler_svc.core.errors import ProtocolError


class FreeSlots:
    """A heap: requests get the lowest slot first, which keeps the slot table dense. Written by the ledger."""

    def __init__(self, max_seqs: int) -> None:
        self._heap = list(range(max_seqs))

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[int]:
        """In no particular order."""
        return iter(self._heap)

    @property
    def lowest(self) -> int:
        """The slot to use next; there is one."""
        return self._heap[0]

    def take(self, slot: int) -> None:
        """Removes a slot: the lowest one, or any if another scheduler's plan names it.

        Raises ProtocolError if it is not free.
        """
        if self._heap and self._heap[0] == slot:
            heapq.heappop(self._heap)
        elif slot in self._heap:
            self._heap.remove(slot)
            heapq.heapify(self._heap)
        else:
            raise ProtocolError(f"slot {slot} is not free")

    def put(self, slot: int) -> None:
        """The slot can be used again."""
        heapq.heappush(self._heap, slot)
