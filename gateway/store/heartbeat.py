"""The heartbeat by which the other tiers know that this gateway follows its requests."""

from __future__ import annotations

import secrets
import time
from typing import Any

from redis.asyncio import Redis

from albireo.contract.keys import Keys
from albireo.store.connection import RECONNECT_SECONDS
from albireo.store.scripts import RELEASE, TAKE

TTL_SECONDS = RECONNECT_SECONDS + 2
"""After so long without a heartbeat a gateway's requests are cancelled and their ids are free. Longer than a
gateway retries where Redis does not answer: that must not look like a death."""


class Heartbeat:
    """An expiring key of this gateway's own, and whether it may have run out meanwhile."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.gateway_id = secrets.token_hex(8)
        self.key = keys.gateway(self.gateway_id)
        self._redis = redis
        self._confirmed_at = 0.0  # monotonic seconds at which the last confirmed one was sent

    @property
    def lapsed(self) -> bool:
        """Whether the key may have run out since: then others take this gateway for dead."""
        return time.monotonic() - self._confirmed_at > TTL_SECONDS

    async def start(self) -> None:
        """The first heartbeat. Raises RedisError."""
        at = time.monotonic()
        await self._redis.eval(*self._take())
        self._confirmed_at = at

    def send(self, pipe: Any) -> None:
        """Adds a heartbeat to a pipeline; its answer goes to ``confirm``."""
        pipe.eval(*self._take())

    def confirm(self, answer: int, sent_at: float) -> bool:
        """The heartbeat of ``sent_at`` (monotonic seconds) was answered. False where the key had run out."""
        kept = answer == 2 and not self.lapsed
        self._confirmed_at = sent_at
        return kept

    async def stop(self) -> None:
        """Deletes the key: nothing is followed any more. Raises RedisError."""
        await self._redis.eval(RELEASE, 1, self.key, self.gateway_id)

    def _take(self) -> tuple[str, int, str, str, str]:
        return TAKE, 1, self.key, self.gateway_id, str(int(TTL_SECONDS * 1000))
