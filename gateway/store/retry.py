"""Retries of calls to the store on an event loop, by the same rules as in :mod:`albireo.store.connection`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from albireo.runtime.clock import Clock
from albireo.store.connection import RECONNECT_SECONDS
from albireo.store.redis_errors import passes
from gateway.store.interface import GatewayStore

RETRY_SECONDS = 0.1


class StoreRetry:
    """For one loop that calls the store: since when its calls have failed."""

    def __init__(self, store: GatewayStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._since: float | None = None  # by the clock; None: the last call succeeded

    @property
    def failing(self) -> bool:
        """Whether the last call failed."""
        return self._since is not None

    def succeeded(self) -> None:
        """The last call was answered."""
        self._since = None

    async def gives_up(self, error: RedisError) -> bool:
        """Records one more error; True where it cannot pass by itself, or has not for RECONNECT_SECONDS."""
        now = self._clock.now()
        self._since = now if self._since is None else self._since
        await self._store.recover(error)
        return not passes(error) or now - self._since > RECONNECT_SECONDS


async def retried(store: GatewayStore, clock: Clock, call: Callable[[], Awaitable[None]]) -> None:
    """Retries an idempotent call as long as its error may pass.

    Raises RedisError at once where it cannot, else when it lasts for RECONNECT_SECONDS.
    """
    retry = StoreRetry(store, clock)
    while True:
        try:
            return await call()
        except RedisError as error:
            if await retry.gives_up(error):
                raise
        await asyncio.sleep(RETRY_SECONDS)
