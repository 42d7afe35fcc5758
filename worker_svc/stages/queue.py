"""The queue between two stages of a rank: bounded, and left by both sides when the rank is over.

A plan enters at the input stage, becomes a staged step, is computed, and leaves through the output
stage. Each stage has one thread; the queues between them keep the order.
"""

from __future__ import annotations

import queue
from typing import Generic, TypeVar

from albireo.runtime.clock import Clock, Event, Queue

POLL_SECONDS = 0.25
"""How often a waiting stage looks whether the rank is over."""

Item = TypeVar("Item")


class StageQueue(Generic[Item]):
    """A bounded queue between two stages; neither end waits on once the rank is over."""

    def __init__(self, size: int, over: Event, clock: Clock) -> None:
        self._queue: Queue[Item | None] = clock.queue(size)
        self._over = over

    def end(self) -> None:
        """Nothing follows what has been put."""
        self._put(None)

    def put(self, item: Item) -> None:
        """Waits for space; drops the item when the rank is over."""
        self._put(item)

    def _put(self, item: Item | None) -> None:
        while not self._over.is_set():
            try:
                return self._queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def get(self) -> Item | None:
        """The next item; None behind the last one, and when the rank is over."""
        while not self._over.is_set():
            try:
                return self._queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
        return None
