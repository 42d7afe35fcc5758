"""What joins the three stages of a rank: bounded queues that can be stopped, and threads that fail loudly.

A plan enters at the input stage, becomes a staged step, is computed, and leaves through the output
stage. Each stage has one thread; the queues between them keep the order.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from redis.exceptions import RedisError

from albireo.store.redis_errors import describe

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""How often a waiting stage looks whether it should stop."""

Item = TypeVar("Item")


class StageQueue(Generic[Item]):
    """A bounded queue between two stages; both ends let go when the rank stops."""

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[Item] = queue.Queue(size)
        self._stop = stop

    def put(self, item: Item) -> None:
        """Waits for room; drops the item when the rank stops."""
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


def start_stage(name: str, body: Callable[[], None], stop: threading.Event) -> threading.Thread:
    """Runs a stage in a thread of its own. A stage that fails ends the whole process.

    The other threads may sit in a collective that never returns, so nothing is waited for: the group's
    launcher restarts all ranks.
    """

    def guarded() -> None:
        try:
            body()
        except BaseException as error:
            if not stop.is_set():
                if isinstance(error, RedisError):
                    logger.critical("the %s stage failed: %s", name, describe(error))
                else:
                    logger.critical("the %s stage failed", name, exc_info=True)
                logging.shutdown()
                os._exit(1)

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread
