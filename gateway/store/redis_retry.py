"""Retries of calls to Redis on an event loop, by the rules of :func:`albireo.store.connection.retried`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from albireo.store.connection import RECONNECT_SECONDS
from albireo.store.redis_errors import moved, passes

RETRY_SECONDS = 0.1


class RedisRetry:
    """Of one loop that calls Redis: since when its calls have failed."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._since: float | None = None  # monotonic seconds; None: the last call succeeded

    @property
    def failing(self) -> bool:
        """Whether the last call failed."""
        return self._since is not None

    def succeeded(self) -> None:
        """The last call was answered."""
        self._since = None

    async def gives_up(self, error: RedisError) -> bool:
        """Takes in one more error; True where it cannot pass by itself, or has not for RECONNECT_SECONDS."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        await reconnect(self._redis, error)
        return not passes(error) or now - self._since > RECONNECT_SECONDS


async def reconnect(redis: Redis, error: RedisError) -> None:
    """Drops the idle connections where another server may be the primary now."""
    if moved(error):
        await redis.connection_pool.disconnect(inuse_connections=False)


async def ride_out(redis: Redis, call: Callable[[], Awaitable[Any]]) -> None:
    """Retries a call that does no harm when made twice, as long as its error may pass.

    Raises RedisError at once where it cannot, else when it lasts for RECONNECT_SECONDS.
    """
    retry = RedisRetry(redis)
    while True:
        try:
            await call()
            return
        except RedisError as error:
            if await retry.gives_up(error):
                raise
        await asyncio.sleep(RETRY_SECONDS)
