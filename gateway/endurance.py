"""How a gateway bears the errors of Redis: as the other tiers do in :mod:`albireo.logs`, on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from albireo.logs import RECONNECT_SECONDS
from albireo.redis_errors import Trouble, moved, trouble

RETRY_SECONDS = 0.1


class Endurance:
    """Of one loop that talks to Redis: since when it has had nothing but errors."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._since: float | None = None

    @property
    def failing(self) -> bool:
        """Whether the last call failed."""
        return self._since is not None

    def answered(self) -> None:
        self._since = None

    async def spent(self, error: RedisError) -> bool:
        """Takes in one more error; True where it cannot pass by itself, or has not for RECONNECT_SECONDS."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        await reconnect(self._redis, error)
        return trouble(error) is Trouble.LASTING or now - self._since > RECONNECT_SECONDS


async def reconnect(redis: Redis, error: RedisError) -> None:
    """Drops the idle connections where another server may be the primary now."""
    if moved(error):
        await redis.connection_pool.disconnect(inuse_connections=False)


async def ride_out(redis: Redis, call: Callable[[], Awaitable[Any]]) -> None:
    """Makes a call that does no harm when made twice, again and again while its error may pass.

    Raises RedisError at once where it cannot, else when it lasts for RECONNECT_SECONDS.
    """
    endurance = Endurance(redis)
    while True:
        try:
            await call()
            return
        except RedisError as error:
            if await endurance.spent(error):
                raise
        await asyncio.sleep(RETRY_SECONDS)
