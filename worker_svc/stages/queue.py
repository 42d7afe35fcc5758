"""The queue between two stages of a rank: bounded, and left by both sides when the rank stops.

A plan enters at the input stage, becomes a staged step, is computed, and leaves through the output
stage. Each stage has one thread; the queues between them keep the order.
"""

from __future__ import annotations

import queue
from typing import Generic, TypeVar

from albireo.runtime.clock import Clock, Event, Queue

POLL_SECONDS = 0.25
"""How often a waiting stage looks whether it should stop."""

Item = TypeVar("Item")


class StageQueue(Generic[Item]):
    """A bounded queue between two stages; neither end waits on once the rank stops."""

    def __init__(self, size: int, stop: Event, clock: Clock) -> None:
        self._queue: Queue[Item] = clock.queue(size)
        self._stop = stop

    def put(self, item: Item) -> None:
        """Waits for space; drops the item when the rank stops."""
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def get(self) -> Item | None:
        """The next item, or None when the rank stops."""
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
        return None
