"""Names of other models that are served through the same Redis, where a gateway's own has no scheduler.

They go into its log and its answers: its ``--model-name`` may be wrong."""

from __future__ import annotations

import logging
import time
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from albireo.contract.keys import EVERY_LEASE, model_of

logger = logging.getLogger(__name__)

SCAN_COUNT = 1000
MAX_SCANS = 100
"""A look visits so many times ``SCAN_COUNT`` keys at most; names behind that many are not found."""
KEEP_SECONDS = 5.0
MAX_NAMES = 16


class OtherModels:
    """Looks for schedulers of other models, at most once in ``KEEP_SECONDS``."""

    def __init__(self, redis: Redis, model: str) -> None:
        self._redis = redis
        self._model = model
        self._names: list[str] = []
        self._looked: float | None = None

    async def names(self) -> list[str]:
        """At most 16, sorted; those of the last look where Redis does not answer."""
        now = time.monotonic()
        if self._looked is None or now - self._looked > KEEP_SECONDS:
            self._looked = now  # before: many may ask at once
            before = self._names
            try:
                self._names = await self._look()
            except RedisError:
                return before
            if self._names and self._names != before:
                logger.warning("%r has no scheduler%s", self._model, self._hint())
        return self._names

    async def hint(self) -> str:
        """For the end of a message that nothing is there; empty where there are no others either."""
        return self._hint() if await self.names() else ""

    def _hint(self) -> str:
        names = ", ".join(map(repr, self._names))
        return f"; in the same Redis there is {names}: is the gateway's --model-name right?"

    async def _look(self) -> list[str]:
        found: set[str] = set()
        cursor = 0
        for _ in range(MAX_SCANS):
            cursor, keys = cast(
                "tuple[int, list[bytes]]",
                await self._redis.scan(cursor, match=EVERY_LEASE, count=SCAN_COUNT),
            )
            found |= {model_of(key.decode()) for key in keys}
            if not cursor:
                break
        return [] if self._model in found else sorted(found)[:MAX_NAMES]
