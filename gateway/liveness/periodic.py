"""A task of the gateway that asks the store for something at an interval, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from albireo.store.redis_errors import describe

logger = logging.getLogger(__name__)


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Waits for ``seconds``, or until ``stopping`` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()


class Periodic:
    """Runs ``action`` again and again, also where the store does not answer; of errors in a row the first is
    logged."""

    def __init__(self, what: str, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        """``what``: is asked for, for the log; ``seconds``: from one end of ``action`` to its next begin."""
        self._what = what
        self._seconds = seconds
        self._action = action
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ends ``run``."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopping.is_set()

    async def run(self) -> None:
        """Until stopped."""
        failing = False
        while not self._stopping.is_set():
            try:
                await self._action()
            except RedisError as error:
                if not failing:
                    logger.warning("%s: %s", self._what, describe(error))
                failing = True
            else:
                failing = False
            await pause(self._stopping, self._seconds)
