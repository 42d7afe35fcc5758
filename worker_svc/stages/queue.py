"""What joins the three stages of a rank: bounded queues that can be stopped, and threads that fail loudly.

A plan enters at the input stage, becomes a staged step, is computed, and leaves through the output
stage. Each stage has one thread; the queues between them keep the order.
"""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

from redis.exceptions import RedisError

from albireo.runtime.clock import Clock, Event, Queue, Thread
from albireo.store.redis_errors import describe

logger = logging.getLogger(__name__)

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


def exit_process() -> NoReturn:
    """Ends the process at once, with status 1: other threads may be in a collective that never returns. The
    group's launcher restarts all ranks."""
    logging.shutdown()
    os._exit(1)


def start_stage(
    name: str,
    body: Callable[[], None],
    stop: Event,
    clock: Clock,
    abort: Callable[[], NoReturn] = exit_process,
) -> Thread:
    """Runs a stage in a thread of its own. If it fails while the rank is not to stop, ``abort`` is called."""

    def guarded() -> None:
        try:
            body()
        except Exception as error:
            if not stop.is_set():
                if isinstance(error, RedisError):
                    logger.critical("the %s stage failed: %s", name, describe(error))
                else:
                    logger.critical("the %s stage failed", name, exc_info=True)
                abort()

    return clock.start(name, guarded)
