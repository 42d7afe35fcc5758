"""The sign of life by which others know that this gateway follows its requests."""

from __future__ import annotations

import secrets
import time
from typing import Any

from redis.asyncio import Redis

from albireo.keys import Keys
from albireo.logs import RECONNECT_SECONDS
from albireo.scripts import RELEASE, TAKE

TTL_SECONDS = RECONNECT_SECONDS + 2
"""After so long without a sign a gateway's requests are cancelled and their ids are free. Longer than a
gateway rides out a Redis that does not answer: that must not look like a death."""


class Presence:
    """An expiring key of this gateway's own. Whoever keeps it alive knows when it may have run out."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.gateway_id = secrets.token_hex(8)
        self.key = keys.gateway(self.gateway_id)
        self._redis = redis
        self._confirmed_at = 0.0  # when the last confirmed sign was sent, by the monotonic clock

    @property
    def lapsed(self) -> bool:
        """Whether others may have taken this gateway for dead since the last sign."""
        return time.monotonic() - self._confirmed_at > TTL_SECONDS

    async def begin(self) -> None:
        """The first sign. Raises RedisError."""
        at = time.monotonic()
        await self._redis.eval(*self._take())
        self._confirmed_at = at

    def give(self, pipe: Any) -> None:
        """Adds a sign to a pipeline; its answer goes to ``confirm``."""
        pipe.eval(*self._take())

    def confirm(self, answer: int, sent_at: float) -> bool:
        """The sign that was sent at ``sent_at`` was answered. False where the key had run out before."""
        kept = answer == 2 and not self.lapsed
        self._confirmed_at = sent_at
        return kept

    async def end(self) -> None:
        """Nothing is followed any more. Raises RedisError."""
        await self._redis.eval(RELEASE, 1, self.key, self.gateway_id)

    def _take(self) -> tuple[str, int, str, str, str]:
        return TAKE, 1, self.key, self.gateway_id, str(int(TTL_SECONDS * 1000))
