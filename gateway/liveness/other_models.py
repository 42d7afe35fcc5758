"""Names of other models that are served through the same Redis, where a gateway's own has no scheduler.

They go into its log and its answers: its ``--model-name`` may be wrong."""

from __future__ import annotations

import logging

from redis.exceptions import RedisError

from albireo.runtime.clock import Clock
from gateway.store.interface import GatewayStore

logger = logging.getLogger(__name__)

KEEP_SECONDS = 5.0
MAX_NAMES = 16


class OtherModels:
    """Looks for schedulers of other models, at most once in ``KEEP_SECONDS``."""

    def __init__(self, store: GatewayStore, clock: Clock, model: str) -> None:
        self._store = store
        self._clock = clock
        self._model = model
        self._names: list[str] = []
        self._looked: float | None = None

    async def names(self) -> list[str]:
        """At most 16, sorted; those of the last look where Redis does not answer."""
        now = self._clock.now()
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
        found = await self._store.models()
        return [] if self._model in found else sorted(found)[:MAX_NAMES]
